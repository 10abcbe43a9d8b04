"""Training rows with provenance: what is trained on, and the events it was derived from."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import Table, required

DATASET = Table(
    name="dataset",
    doc="Training rows of one recipe: messages, tokens, labels and the events they come from.",
    key=("row_id",),
    columns=(
        required("row_id", pa.string(), "128-bit hex digest of method, trajectory, weights and events."),
        required("recipe", pa.string(), "Recipe that made it."),
        required("method", pa.string(), "Dataset method."),
        required("split", pa.string(), "train or held_out."),
        required("trajectory_id", pa.string(), "Trajectory it comes from."),
        required("corpus", pa.string(), "Corpus of the trajectory."),
        required("task_id", pa.string(), "Task of the trajectory; empty when the source names none."),
        required("messages", pa.string(), "Chat messages as a JSON string, roles and contents as the agent saw them."),
        required("steps", pa.list_(pa.int32()), "Steps in message order, one per assistant message."),
        required("weights", pa.list_(pa.float64()), "Loss weight of each of these steps: 0 or 1."),
        required(
            "event_ids",
            pa.list_(pa.string()),
            "Action event of each step, or the label event in its place.",
        ),
        required("mask_event_ids", pa.list_(pa.string()), "Mask or label events that set the weights."),
        required("input_ids", pa.list_(pa.int32()), "Token ids of the whole conversation."),
        required("labels", pa.list_(pa.int32()), "Token id where trained, -100 elsewhere; same length as input_ids."),
        required("n_tokens", pa.int32(), "Length of input_ids."),
        required("n_trained_tokens", pa.int32(), "Positions of labels that are not -100."),
        required("n_masked_steps", pa.int32(), "Steps with weight 0."),
    ),
)
