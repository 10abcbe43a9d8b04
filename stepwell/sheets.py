"""A table of words and numbers, the same for a terminal, markdown and HTML; what it says comes from outside and is escaped.

Belongs here: headings, cells and how they are written down. Does not belong here: any figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from stepwell.display import terminal


@dataclass(frozen=True)
class Sheet:
    """One table: title, headings (the first column is words, the rest numbers), rows, and a note below."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def terminal(self) -> Table:
        """For a terminal."""
        table = Table(
            title=terminal(self.title), title_justify="left", caption=terminal(self.note), caption_justify="left"
        )
        for i, heading in enumerate(self.headings):
            table.add_column(terminal(heading), justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*map(terminal, row))
        return table

    def markdown(self, title: str = "**{}**") -> str:
        """As a markdown table under its title, which is written as `title` says."""
        rule = "|".join(["---", *["---:"] * (len(self.headings) - 1)])
        lines = [title.format(cell(self.title)), "", _line(self.headings), f"|{rule}|", *map(_line, self.rows)]
        return "\n".join([*lines, *(["", cell(self.note)] if self.note else [])])


def cell(text: str) -> str:
    """Text that is only text in markdown, on one line."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return f"|{'|'.join(map(cell, cells))}|"
