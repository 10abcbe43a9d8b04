"""Every table of the lake by name, so that checks, views and documents are generated from one list."""

from __future__ import annotations

from schemas.column import Table
from schemas.comparisons import COMPARISONS
from schemas.contamination import CONTAMINATION
from schemas.datasets import DATASET
from schemas.evaluations import EVALUATIONS
from schemas.events import EVENTS
from schemas.models import MODELS
from schemas.rejects import REJECTS
from schemas.sources import SOURCES
from schemas.steps import STEPS
from schemas.trajectories import TRAJECTORIES

TABLES: dict[str, Table] = {
    t.name: t for t in (EVENTS, TRAJECTORIES, STEPS, SOURCES, REJECTS, MODELS, EVALUATIONS, COMPARISONS, CONTAMINATION)
}
"""Tables with a fixed name; datasets share the schema `DATASET` and live at `datasets/<recipe>`."""

__all__ = ["DATASET", "TABLES"]
