"""Stepwell: what we do with rows.

Belongs here: the lake and the log, importers, critics, curation, datasets, rendering, rollouts, evaluation, statistics,
lineage and the command line. Does not belong here: Dagster (`assets`), torch, TRL and vLLM (`jobs`), what a row is
(`schemas`), questions (`sql`). May import: `schemas`, `sql`.
"""

__version__ = "0.1.0"
