"""One row a file seen by an import."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

SOURCES = Table(
    name="sources",
    doc="Every file an import has read: its hash, format and what came of it.",
    key=("content_hash", "path"),
    columns=(
        required("content_hash", pa.string(), "sha256 of the file with the outcome files joined to it."),
        required("path", pa.string(), "Path as given to the import."),
        required("format", pa.string(), "Format it was read as."),
        required("corpus", pa.string(), "Corpus its trajectories went to."),
        required("n_bytes", pa.int64(), "Size in bytes."),
        Column("n_records", pa.int32(), "Records it holds: null for a companion file, and where not counted yet."),
        Column(
            "fidelity",
            pa.string(),
            "What became of its values, as JSON: counts of records, and of values by key path in `source`, `columns`, `extra`.",
        ),
        required("n_trajectories", pa.int32(), "Trajectories it holds."),
        required("n_steps", pa.int32(), "Steps it holds."),
        required("n_events", pa.int32(), "Events it yields."),
        required("n_rejected", pa.int32(), "Records rejected."),
        Column("outcome_path", pa.string(), "File the outcome was joined from."),
        required("trajectory_ids", pa.list_(pa.string()), "Trajectories it holds."),
        required("batch_id", pa.string(), "Import that read it."),
        required("recorded_at", TIMESTAMP, "When it was read."),
    ),
)
