"""Plots of a comparison as SVG, drawn by hand: no library, nothing fetched, colours for light and dark.

Belongs here: coordinates and marks. Does not belong here: figures and words around them. A plot is also a picture of its own,
so its colours are in it; inside a page the same class names follow the page's colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH = 760
_LEFT, _RIGHT = 210, 190
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2328}.soft{fill:#656d76;font-size:12px}.axis{stroke:#d0d7de}"
    ".zero{stroke:#656d76;stroke-dasharray:4 3}.mark{fill:#356;stroke:#356;stroke-width:2}"
    ".faint{fill:#9db;stroke:#9db;stroke-width:6;opacity:.75}.paper{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9aa4af}.axis{stroke:#3d444d}.zero{stroke:#9aa4af}"
    ".mark{fill:#8bd;stroke:#8bd}.faint{fill:#365;stroke:#365}.paper{fill:#14181d}}"
)


@dataclass(frozen=True)
class Bar:
    """A line of a forest plot: value with its interval, a wider one behind it where there is one, and words at the right."""

    name: str
    value: float
    low: float
    high: float
    wide: tuple[float, float] | None = None
    words: str = ""


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot with its intervals."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def forest(bars: Sequence[Bar], label: str, zero: bool = True) -> str:
    """A forest plot, the first bar on top; with `zero` the line of no difference is drawn."""
    ends = [x for b in bars for x in (b.low, b.high, *(b.wide or ()))] + ([0.0] if zero else [])
    ticks = _ticks(min(ends), max(ends))
    height = 40 + 34 * len(bars) + 34

    def x(value: float) -> float:
        return _LEFT + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - _LEFT - _RIGHT)

    bottom = height - 44
    parts = [_grid_x(ticks, x, bottom, label, height)]
    if zero:
        parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="12" y2="{bottom}"/>')
    for i, b in enumerate(bars):
        y = 30 + 34 * i
        wide = b.wide and f'<line class="faint" x1="{x(b.wide[0]):.1f}" x2="{x(b.wide[1]):.1f}" y1="{y}" y2="{y}"/>'
        parts += [
            f'<g><title>{escape(f"{b.name} {b.words}")}</title>', wide or "",
            f'<line class="mark" x1="{x(b.low):.1f}" x2="{x(b.high):.1f}" y1="{y}" y2="{y}"/>',
            f'<circle class="mark" cx="{x(b.value):.1f}" cy="{y}" r="4.5"/>',
            f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(_cut(b.name))}</text>',
            f'<text class="soft" x="{WIDTH - _RIGHT + 12}" y="{y + 4}">{escape(b.words)}</text></g>',
        ]  # fmt: skip
    return _svg(height, parts, label)


def scatter(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Points with intervals in both directions; up and to the left is better where x is a cost."""
    height, top, bottom, left = 380, 24, 330, 76
    x_ticks = _ticks(min(p.x[1] for p in points), max(p.x[2] for p in points))
    y_ticks = _ticks(min(p.y[1] for p in points), max(p.y[2] for p in points))

    def x(value: float) -> float:
        return left + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - left - 150)

    def y(value: float) -> float:
        return bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    parts = [_grid_x(x_ticks, x, bottom, x_label, height)]
    for t in y_ticks:
        parts.append(f'<line class="axis" x1="{left}" x2="{WIDTH - 150}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>')
        parts.append(f'<text class="soft" x="{left - 8}" y="{y(t) + 4:.1f}" text-anchor="end">{_tick(t)}</text>')
    middle = (top + bottom) // 2
    turned = f'text-anchor="middle" transform="rotate(-90 20 {middle})"'
    parts.append(f'<text class="soft" x="20" y="{middle}" {turned}>{escape(y_label)}</text>')
    placed: list[tuple[float, float]] = []
    for p in points:
        at = (x(p.x[0]) + 9, y(p.y[0]) - 9)
        while any(abs(at[0] - other[0]) < 60 and abs(at[1] - other[1]) < 15 for other in placed):
            at = (at[0], at[1] + 15)
        placed.append(at)
        words = f"{p.name}: {x_label} {_tick(p.x[0])}, {y_label} {_tick(p.y[0])}"
        parts += [
            f"<g><title>{escape(words)}</title>",
            f'<line class="mark" x1="{x(p.x[1]):.1f}" x2="{x(p.x[2]):.1f}" y1="{y(p.y[0]):.1f}" y2="{y(p.y[0]):.1f}"/>',
            f'<line class="mark" x1="{x(p.x[0]):.1f}" x2="{x(p.x[0]):.1f}" y1="{y(p.y[1]):.1f}" y2="{y(p.y[2]):.1f}"/>',
            f'<circle class="mark" cx="{x(p.x[0]):.1f}" cy="{y(p.y[0]):.1f}" r="5"/>',
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}">{escape(_cut(p.name))}</text></g>',
        ]
    return _svg(height, parts, f"{y_label} over {x_label}")


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    paper = f'<rect class="paper" width="{WIDTH}" height="{height}"/>'
    return f"{head}<style>{_STYLE}</style>{paper}{''.join(parts)}</svg>"


def _grid_x(ticks: Sequence[float], x: Callable[[float], float], bottom: int, label: str, height: int) -> str:
    parts = []
    for t in ticks:
        at = x(t)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="12" y2="{bottom}"/>')
        parts.append(f'<text class="soft" x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{_tick(t)}</text>')
    middle = (x(ticks[0]) + x(ticks[-1])) / 2
    words = f'<text class="soft" x="{middle:.1f}" y="{height - 6}" text-anchor="middle">{escape(label)}</text>'
    return "".join([*parts, words])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`, four to nine of them."""
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** floor(log10(span / 4))
    step = next(s * unit for s in (1, 2, 2.5, 5, 10) if span / (s * unit) <= 6)
    first, last = floor(low / step), ceil(high / step)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _tick(value: float) -> str:
    return f"{value:.4g}"


def _cut(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"
