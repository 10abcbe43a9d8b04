"""Training rows with provenance: what is trained on, and the events it was derived from."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import Column, Table, required, struct

REWARDED = (
    Column("event_id", pa.string(), "The reward event."),
    Column("critique_id", pa.string(), "Verdict event the reward is for."),
    Column("reward", pa.float64(), "The reward."),
    Column("format_ok", pa.bool_(), "Whether the critique passed the format gate."),
)
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
            "Event of each assistant message: action, label, attempt, verdict, or the outcome a verifier's answer says.",
        ),
        required(
            "mask_event_ids",
            pa.list_(pa.string()),
            "Further events that decided the row: masks, labels, hints, revisions, outcomes, rewards, verdicts compared with.",
        ),
        required("input_ids", pa.list_(pa.int32()), "Token ids of the whole conversation."),
        required("labels", pa.list_(pa.int32()), "Token id where trained, -100 elsewhere; same length as input_ids."),
        required("n_tokens", pa.int32(), "Length of input_ids."),
        required("n_trained_tokens", pa.int32(), "Positions of labels that are not -100."),
        required("n_masked_steps", pa.int32(), "Steps with weight 0; 0 for the methods of critics."),
        Column("agent", pa.string(), "Agent of the trajectory."),
        Column("model", pa.string(), "Model of the trajectory."),
        Column("judgment", pa.bool_(), "Whether the trained reply says correct; null where it says neither."),
        Column("rejected", pa.string(), "The reply preferred less than the last message, as a JSON list of messages."),
        Column("rejected_ids", pa.list_(pa.int32()), "Token ids of the conversation that ends in the rejected reply."),
        Column("rejected_labels", pa.list_(pa.int32()), "Labels of these: the token id in the reply, else -100."),
        Column("group_id", pa.string(), "Group that rewards are compared within: the solution asked about."),
        Column("rewards", pa.list_(struct(REWARDED)), "Rewards recorded for critiques of this solution."),
        Column(
            "reference", pa.string(), "JSON of what is needed to run the tests: task, hashes, solution, problem set."
        ),
        Column("n_left_out", pa.int32(), "Oldest turns left out so that the row fits; null where none may be."),
    ),
)
