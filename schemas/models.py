"""One row a checkpoint: what it was trained on and by which code."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

MODELS = Table(
    name="models",
    doc="One row a checkpoint: recipe, dataset version and hash, base model, code version, metrics.",
    key=("model_id",),
    columns=(
        required("model_id", pa.string(), "Name and 12 hex digits of the hash of its weights and tokenizer."),
        required("name", pa.string(), "Recipe name with the seed."),
        required("path", pa.string(), "Model directory."),
        required("recipe", pa.string(), "Recipe that trained it."),
        required("recipe_hash", pa.string(), "sha256 of the resolved recipe."),
        Column("training_hash", pa.string(), "sha256 of its settings that decide the weights; null in rows of before."),
        Column("dataset", pa.string(), "Dataset table it was trained on; null for a base model brought in."),
        Column("dataset_version", pa.int64(), "Version of that table."),
        Column("dataset_hash", pa.string(), "Content hash of that version."),
        Column("events_version", pa.int64(), "Version of `events` the dataset was derived from."),
        required("base_model", pa.string(), "Model it started from."),
        Column("base_id", pa.string(), "Identity of that model by the hash of its weights; null in rows of before."),
        required("code_version", pa.string(), "Version of the code that trained it."),
        required("seed", pa.int64(), "Training seed."),
        required("n_parameters", pa.int64(), "Parameters."),
        required("n_rows", pa.int64(), "Rows trained on."),
        required("n_trained_tokens", pa.int64(), "Tokens in the loss per epoch."),
        required("metrics", pa.string(), "Final metrics as a JSON string."),
        required("environment", pa.string(), "Library versions and hardware as a JSON string."),
        required("wall_s", pa.float64(), "Wall time of training in seconds."),
        Column(
            "device_s", pa.float64(), "Time in training steps in seconds, summed over devices; null in rows of before."
        ),
        required("recorded_at", TIMESTAMP, "When it was registered."),
    ),
)
