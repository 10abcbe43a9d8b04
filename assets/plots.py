"""Plots for metadata: small PNGs inside markdown, since people would rather look than read."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import dagster as dg
import matplotlib
from matplotlib.figure import Figure

from stepwell.evaluation.report import picture

matplotlib.use("agg")


def _markdown(figure: Figure, title: str) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")


def drawn(svg: str, title: str) -> dg.MarkdownMetadataValue:
    """A plot that is there as SVG already."""
    return dg.MetadataValue.md(f"![{title}]({picture(svg)})")


def bars(values: Mapping[str, float], title: str) -> dg.MarkdownMetadataValue:
    """A horizontal bar per name, the first on top."""
    figure = Figure(figsize=(6, 0.5 + 0.3 * max(len(values), 1)))
    axes = figure.add_subplot()
    names = list(values)[::-1]
    axes.barh(names, [values[n] for n in names], color="#356")
    axes.set_title(title)
    return _markdown(figure, title)


def by_iteration(
    lines: Mapping[str, Sequence[tuple[int, float, float, float]]], title: str
) -> dg.MarkdownMetadataValue:
    """Shares over iterations: (iteration, share, low, high), all shares in [0, 1]."""
    figure = Figure(figsize=(6, 3))
    axes = figure.add_subplot()
    for (name, points), color in zip(lines.items(), ("#356", "#a53", "#583"), strict=False):
        n = [p[0] for p in points]
        errors = [[100 * (v - low) for _, v, low, _ in points], [100 * (high - v) for _, v, _, high in points]]
        axes.errorbar(n, [100 * p[1] for p in points], yerr=errors, marker="o", color=color, capsize=3, label=name)
    axes.set_xticks(sorted({p[0] for points in lines.values() for p in points}))
    axes.set_xlabel("iteration")
    axes.set_ylabel("% with 95% interval")
    axes.legend()
    axes.set_title(title)
    return _markdown(figure, title)


def matrix(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> dg.MarkdownMetadataValue:
    """A confusion matrix: counts in the cells, shades by the share of the row; empty rows and columns left out."""
    kept = [i for i in range(len(names)) if any(counts[i]) or any(row[i] for row in counts)]
    figure = Figure(figsize=(1.5 + 0.9 * len(kept), 1 + 0.6 * len(kept)))
    axes = figure.add_subplot()
    cells = [[counts[i][j] for j in kept] for i in kept]
    shares = [[n / max(sum(row), 1) for n in row] for row in cells]
    axes.imshow(shares or [[0.0]], cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(cells):
        for x, n in enumerate(row):
            axes.text(x, y, str(n), ha="center", va="center", color="white" if shares[y][x] > 0.6 else "black")
    axes.set_xticks(range(len(kept)), [names[i] for i in kept], rotation=20)
    axes.set_yticks(range(len(kept)), [names[i] for i in kept])
    axes.set_title(title)
    return _markdown(figure, title)


def reliability(points: Sequence[tuple[float, float, int]], title: str) -> dg.MarkdownMetadataValue:
    """How often right at which confidence: (confidence, share right, n); on the line the critic is as sure as it should be."""
    figure = Figure(figsize=(4, 4))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#bbb", linewidth=1)
    axes.plot([c for c, _, _ in points], [r for _, r, _ in points], marker="o", color="#356")
    for confidence, right, n in points:
        axes.annotate(f"n={n}", (confidence, right), textcoords="offset points", xytext=(4, -10), fontsize=7)
    axes.set_xlabel("mean confidence")
    axes.set_ylabel("share right")
    axes.set_title(title)
    return _markdown(figure, title)


def over_members(points: Sequence[tuple[int, float, float, float]], title: str) -> dg.MarkdownMetadataValue:
    """Quality over the number of votes: (n, value, low, high)."""
    figure = Figure(figsize=(6, 3))
    axes = figure.add_subplot()
    n = [p[0] for p in points]
    axes.plot(n, [p[1] for p in points], marker="o", color="#356")
    axes.fill_between(n, [p[2] for p in points], [p[3] for p in points], color="#356", alpha=0.2)
    axes.set_xlabel("votes")
    axes.set_ylabel("accuracy with 95% interval")
    axes.set_title(title)
    return _markdown(figure, title)


def shades(values: Sequence[Sequence[float]], names: Sequence[str], title: str) -> dg.MarkdownMetadataValue:
    """A square of numbers in [0, 1], one row and column a name."""
    figure = Figure(figsize=(2.5 + 0.8 * len(names), 1.5 + 0.5 * len(names)))
    axes = figure.add_subplot()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title)
    return _markdown(figure, title)
