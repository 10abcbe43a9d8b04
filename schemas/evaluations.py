"""One row a task attempt of an evaluation."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

EVALUATIONS = Table(
    name="evaluations",
    doc="One row per task attempt of an evaluated policy.",
    key=("evaluation_id", "task_id", "attempt"),
    columns=(
        required(
            "evaluation_id", pa.string(), "One run of one policy over one suite with one seed of tasks and of sampling."
        ),
        required("suite", pa.string(), "Task suite."),
        required("recipe", pa.string(), "Recipe that asked for it."),
        required("model_id", pa.string(), "Policy evaluated."),
        required("task_id", pa.string(), "Task attempted."),
        required("attempt", pa.int32(), "0-based attempt."),
        required("trajectory_id", pa.string(), "Trajectory of the attempt in the log."),
        required("resolved", pa.bool_(), "Whether the hidden tests pass."),
        required("submitted", pa.bool_(), "Whether the policy submitted."),
        Column("exit_status", pa.string(), "How the attempt ended."),
        required("n_steps", pa.int32(), "Turns taken."),
        required("tokens_in", pa.int64(), "Prompt tokens over all calls."),
        required("tokens_out", pa.int64(), "Completion tokens over all calls."),
        required("seed", pa.int64(), "Seed of the evaluation: which tasks were drawn."),
        required("backend", pa.string(), "What generated: transformers or vllm with version, or the endpoint."),
        required("recorded_at", TIMESTAMP, "When it was recorded."),
        Column("cache_read", pa.int64(), "Prompt tokens read from the server's cache, among `tokens_in`."),
        Column("cache_write", pa.int64(), "Prompt tokens written to the server's cache, among `tokens_in`."),
        Column("cost_usd", pa.float64(), "Cost of the agent's calls in US dollars as recorded; null where none was."),
        Column("longest_repeat", pa.int32(), "Most identical consecutive commands; from 3 on the attempt is stuck."),
        Column(
            "sampling_seed",
            pa.int64(),
            "Seed of what was sampled on the same tasks; null in rows of before, which is 0.",
        ),
        Column(
            "contamination",
            pa.string(),
            "Whether the model's training data repeat the task: `clean`, the detectors that say so (comma between), or "
            "`unknown` where nothing was compared, when this was recorded.",
        ),
    ),
)
