"""What the contamination gate flagged: training rows that are, or repeat, a task of an evaluation suite."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

CONTAMINATION = Table(
    name="contamination",
    doc="Training rows flagged against evaluation suites, one row a pair and detector; and which suites were looked at.",
    key=("dataset_hash", "gate", "suite", "row_id", "task_id", "detector"),
    columns=(
        required("dataset", pa.string(), "Table of the dataset."),
        required("dataset_version", pa.int64(), "Version of that table."),
        required("dataset_hash", pa.string(), "Content hash of the rows that were compared."),
        required("gate", pa.string(), "128-bit hex digest of the gate's settings and of the suites' tasks."),
        required("suite", pa.string(), "Evaluation suite: a corpus, or the name of a file of tasks."),
        required("row_id", pa.string(), "Training row; empty where `detector` is `looked_at`."),
        required("task_id", pa.string(), "Task of the suite; empty where all of it is meant."),
        required(
            "detector",
            pa.string(),
            "Detector that flagged the pair, or `looked_at`: one row a suite that was compared, and one a task of it.",
        ),
        required(
            "score",
            pa.float64(),
            "What it measured, in [0, 1]; for `looked_at` of a suite its number of tasks, of a task 1.",
        ),
        Column("waived", pa.string(), "Why the recipe lets it pass, null where it does not."),
        required("recorded_at", TIMESTAMP, "When it was computed."),
    ),
)
