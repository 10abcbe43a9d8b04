"""Plots for metadata: small PNGs inside markdown, since people would rather look than read."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import dagster as dg
import matplotlib
from matplotlib.figure import Figure

matplotlib.use("agg")


def _markdown(figure: Figure, title: str) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})")


def bars(values: Mapping[str, float], title: str) -> dg.MarkdownMetadataValue:
    """A horizontal bar per name, the first on top."""
    figure = Figure(figsize=(6, 0.5 + 0.3 * max(len(values), 1)))
    axes = figure.add_subplot()
    names = list(values)[::-1]
    axes.barh(names, [values[n] for n in names], color="#356")
    axes.set_title(title)
    return _markdown(figure, title)


def curve(points: Sequence[Mapping[str, float]], title: str) -> dg.MarkdownMetadataValue:
    """Loss over optimiser steps."""
    figure = Figure(figsize=(6, 3))
    axes = figure.add_subplot()
    axes.plot([p["step"] for p in points], [p["loss"] for p in points], color="#356")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (mean over trained tokens)")
    axes.set_title(title)
    return _markdown(figure, title)


def rates(rows: Sequence[tuple[str, float, float, float]], title: str) -> dg.MarkdownMetadataValue:
    """Resolve rates with their intervals: (name, rate, low, high), all in [0, 1]."""
    figure = Figure(figsize=(6, 0.8 + 0.4 * max(len(rows), 1)))
    axes = figure.add_subplot()
    for place, (_, rate, low, high) in enumerate(reversed(rows)):
        axes.errorbar(
            100 * rate, place, xerr=[[100 * (rate - low)], [100 * (high - rate)]], fmt="o", color="#356", capsize=3
        )
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    axes.set_xlabel("resolved, % with 95% Wilson interval")
    axes.set_title(title)
    return _markdown(figure, title)
