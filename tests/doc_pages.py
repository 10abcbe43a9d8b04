"""The pages of the documentation as their tests read them: fenced and indented blocks, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("decisions/*.md"), ROOT / "README.md"])
_BLOCK = re.compile(
    r"(?:<!-- test: (skip|slow), ([^>]+?) -->\n)?^```([a-z]*)\n(.*?)^```|^\n((?:    stepwell .*\n)+)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block: its language (none: indented, or not said), its text, and what the page says of running it."""

    language: str
    text: str
    mark: str
    reason: str

    def commands(self) -> list[str]:
        """The lines of a shell that are in it; of an example session those after `$`, without what is said beside them."""
        if self.language in ("sh", "bash"):
            return self.text.splitlines()
        if self.language not in ("", "console"):
            return []
        found = re.findall(r"^\s*(?:\$ (.+)|(stepwell .+))$", self.text, re.MULTILINE)
        return [re.split(r"\s{2,}", told or bare)[0] for told, bare in found]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in their order."""
    for mark, reason, language, text, indented in _BLOCK.findall(page.read_text(encoding="utf-8")):
        yield Block(language, text or indented, mark, reason)
