"""Stepwell: what we do with rows.

Belongs here: the lake and the log, importers, critics, curation, datasets, rendering, rollouts, evaluation, statistics,
lineage and the command line. Does not belong here: Dagster (`assets`), torch, TRL and vLLM (`jobs`), what a row is
(`schemas`), questions (`sql`). May import: `schemas`, `sql`.

For notebooks and scripts, `stepwell.open(uri)` gives a lake whose answers are Polars frames (docs/python.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.notebook import OpenLake

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def open(uri: str = "", storage_options: dict[str, str] | None = None) -> OpenLake:
    """A lake to look at, named by a folder or an address such as s3://bucket/lake; default $STEPWELL_LAKE, else ./lake."""
    from stepwell.notebook import OpenLake

    return OpenLake(uri, storage_options)
