"""Auditing a critic: its verdicts against those of another policy on the same steps, and against outcomes.

Belongs here: agreement, over- and under-intervention, calibration, leakage of the agent into critiques, each with its
interval, and what the figures may be called. Does not belong here: making verdicts (the critics), what masks make of them
(curation, evaluation). May import: `schemas`, the rest of `stepwell.critics`, and modules directly under `stepwell`.
"""

from stepwell.critics.audit.ratings import CLASSES, COLUMNS, KINDS, step_labels
from stepwell.critics.audit.report import TRUTH, Audit, audit
from stepwell.critics.audit.tables import curve_sheet, kind_of, leakage_sheet, render, sheets
from stepwell.critics.audit.training import Training, training_of

__all__ = [
    "CLASSES", "COLUMNS", "KINDS", "TRUTH", "Audit", "Training", "audit", "curve_sheet", "kind_of", "leakage_sheet",
    "render", "sheets", "step_labels", "training_of",
]  # fmt: skip
