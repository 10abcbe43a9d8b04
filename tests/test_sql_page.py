"""The page of SQL is what the files of `sql/` say."""

from __future__ import annotations

from pathlib import Path

from stepwell.sql_page import page

ROOT = Path(__file__).parent.parent


def test_the_committed_page_is_current() -> None:
    written = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    assert written == page(), "run `make docs`, or python -m stepwell.sql_page > docs/sql.md"
    macros = (ROOT / "sql" / "_macros.sql").read_text(encoding="utf-8")
    assert page().count("\n- ") == macros.count("CREATE MACRO") - 1, (
        "one line a macro; both ends of the interval share one"
    )
