"""A lineage tree: one thing, what is known of it, and what hangs on it; and how it looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.tree import Tree as RichTree

from stepwell.display import terminal

_MOST, _LISTED = 20, 5
"""Children of one node, and values of one fact, that are shown to people; `as_dict` has all."""


@dataclass(frozen=True)
class Tree:
    """One thing, what is known of it, and what it was made from, or what was made of it."""

    kind: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    children: tuple[Tree, ...] = ()

    def as_dict(self, below: str = "made_from") -> dict[str, Any]:
        """The tree as one JSON document; `below` is the name of the list of children."""
        children = [child.as_dict(below) for child in self.children]
        return {"kind": self.kind, "name": self.name, **self.facts, below: children}

    def walk(self) -> Iterable[Tree]:
        """This node and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def told(self) -> str:
        """The facts in one line; nothing of those that are empty."""
        return ", ".join(
            f"{key} {_shown(value)}" for key, value in self.facts.items() if value not in (None, "", [], {})
        )

    def few(self, most: int = _MOST) -> tuple[Sequence[Tree], int]:
        """The children to show, and how many are left out."""
        return self.children[:most], max(0, len(self.children) - most)


def render_trace(tree: Tree) -> RichTree:
    """The tree for a terminal; names and facts are escaped, as they come from outside."""
    return _rendered(tree, None)


def _rendered(tree: Tree, parent: RichTree | None) -> RichTree:
    facts = tree.told()
    label = f"{tree.kind} [bold]{terminal(tree.name)}[/]" + (f"  [dim]{terminal(facts)}[/]" if facts else "")
    node = RichTree(label, highlight=False) if parent is None else parent.add(label, highlight=False)
    shown, more = tree.few()
    for child in shown:
        _rendered(child, node)
    if more:
        node.add(f"[dim]and {more} more: --json has all[/]", highlight=False)
    return node


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items())
    if isinstance(value, list):
        shown, more = ", ".join(str(v) for v in value[:_LISTED]), len(value) - _LISTED
        return f"{shown} and {more} more" if more > 0 else shown
    return str(value)
