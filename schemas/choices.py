"""What a dataset made of every trajectory of its corpora: kept or left out and why, with counts and the hash of its rows."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import Column, Table, required, struct

PART = (
    Column("reason", pa.string(), "Why these rows were left out."),
    Column("rows", pa.int32(), "Rows left out."),
    Column("steps", pa.int32(), "Steps these would have trained."),
    Column("tokens", pa.int64(), "Their tokens; 0 for what cannot be rendered."),
)

CHOICES = Table(
    name="choices",
    doc="One row a trajectory of a recipe's corpora: whether it is learnt from, why not, and what its rows amount to.",
    key=("trajectory_id",),
    columns=(
        required("trajectory_id", pa.string(), "The trajectory."),
        required("corpus", pa.string(), "Its corpus."),
        Column("dropped", pa.string(), "Why it is left out; null when it is learnt from."),
        Column("split", pa.string(), "train or held_out; null when it is left out."),
        Column("curated", pa.string(), "What curation said of it, as a JSON string; null when it was not asked."),
        required("n_steps", pa.int32(), "Steps of the trajectory."),
        required("n_tokens", pa.int64(), "Tokens of its conversation; 0 when it cannot be rendered."),
        required("n_rows", pa.int32(), "Rows it makes."),
        required("n_row_steps", pa.int64(), "Steps in these rows, a step in two rows twice."),
        required("n_row_tokens", pa.int64(), "Tokens of these rows."),
        required("n_trained_steps", pa.int32(), "Steps in the loss of any of its rows."),
        required("n_trained_tokens", pa.int64(), "Tokens in the loss."),
        required("n_masked_steps", pa.int64(), "Steps of its rows with weight 0."),
        required("n_masked_tokens", pa.int64(), "Tokens of replies with weight 0."),
        Column("parts", pa.list_(struct(PART)), "Rows of a trajectory that is kept that were left out, by reason."),
        Column("rows_hash", pa.string(), "sha256 over its rows, as JSON in row_id order; null without rows."),
    ),
)
