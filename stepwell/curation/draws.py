"""Draws that depend on a seed and a name alone: never on the order in which things arrive, nor on what else there is."""

from __future__ import annotations

import polars as pl

from stepwell.ids import digest


def shuffled(names: pl.Series, *parts: object) -> pl.Series:
    """A 64-bit number for each name, decided by it and the parts: sorted by it, names are in an order drawn at random."""
    return pl.Series("draw", [int(digest(*parts, name)[:16], 16) for name in names], pl.UInt64)
