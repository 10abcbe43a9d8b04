"""A lineage tree as one SVG file: layers from left to right, no script, no font, no link.

Belongs here: where boxes stand. Does not belong here: what is in them (`trace`, `impact`).
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from stepwell.lineage.tree import Tree

_WIDTH, _HEIGHT, _GAP, _COLUMN = 230, 38, 10, 290
_LETTERS = 34
_COLOURS = {
    "model": "#dbe9ff", "base model": "#eef3fb", "recipe": "#f1f1f1", "dataset": "#dff3e0", "row": "#eef9ee",
    "source": "#fff1d6", "rollout": "#f6e3f7", "rollouts": "#f6e3f7", "evaluation": "#ffe3e0", "corpus": "#f7f7e4",
    "comparison": "#fbe9ef",
}  # fmt: skip


@dataclass
class _Drawing:
    parts: list[str]
    layers: int = 0
    bottom: int = _GAP


def picture(tree: Tree, most: int = 12) -> str:
    """The tree as an SVG document; of more than `most` children of one node only the first are drawn."""
    drawing = _Drawing([])
    _draw(tree, 0, drawing, most)
    width, height = _COLUMN * (drawing.layers + 1), drawing.bottom
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">'
    )
    title = f"<title>{_text(f'{tree.kind} {tree.name}', 200)}</title>"
    return "\n".join([head, title, *drawing.parts, "</svg>"]) + "\n"


def _draw(tree: Tree, layer: int, drawing: _Drawing, most: int) -> int:
    """Draw a node and all below it; returns the height of its middle."""
    drawing.layers = max(drawing.layers, layer)
    shown, more = tree.few(most)
    middles = [_draw(child, layer + 1, drawing, most) for child in shown]
    if more:
        middles.append(_box(Tree("", f"and {more} more"), layer + 1, drawing, None))
        drawing.layers = max(drawing.layers, layer + 1)
    middle = _box(tree, layer, drawing, (middles[0] + middles[-1]) // 2 if middles else None)
    right, left = _COLUMN * layer + 10 + _WIDTH, _COLUMN * (layer + 1) + 10
    for to in middles:
        bend = (left - right) // 2
        path = f"M{right} {middle} C{right + bend} {middle} {left - bend} {to} {left} {to}"
        drawing.parts.append(f'<path d="{path}" fill="none" stroke="#888"/>')
    return middle


def _box(tree: Tree, layer: int, drawing: _Drawing, middle: int | None) -> int:
    if middle is None:
        middle = drawing.bottom + _HEIGHT // 2
        drawing.bottom += _HEIGHT + _GAP
    x, y, told = _COLUMN * layer + 10, middle - _HEIGHT // 2, tree.told()
    fill = _COLOURS.get(tree.kind, "#ffffff")
    label, below = _text(f"{tree.kind} {tree.name}".strip(), _LETTERS), _text(told, _LETTERS + 6)
    drawing.parts.append(
        f"<g><title>{_text(f'{tree.kind} {tree.name}: {told}', 600)}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="5" fill="{fill}" stroke="#666"/>'
        f'<text x="{x + 8}" y="{y + 15}" font-weight="bold">{label}</text>'
        f'<text x="{x + 8}" y="{y + 30}" font-size="9" fill="#444">{below}</text></g>'
    )
    return middle


def _text(text: str, most: int) -> str:
    """Text as XML may have it, cut with a sign that it is."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return escape(clean if len(clean) <= most else f"{clean[: most - 1]}…")
