"""What the site shows beside the pages: the SQL of every question, which in the repository lies outside docs/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

SQL = Path(__file__).parents[2] / "sql"


def on_files(files: Files, config: Any) -> Files:
    """Add the questions as plain files."""
    for path in sorted(SQL.glob("*.sql")):
        files.append(File.generated(config, f"questions/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to them there."""
    return markdown.replace("](../sql/", "](questions/")
