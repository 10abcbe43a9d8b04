"""One row a trajectory: the fold of its events."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

TRAJECTORIES = Table(
    name="trajectories",
    doc="One row a trajectory, folded from its events.",
    key=("trajectory_id",),
    columns=(
        required("trajectory_id", pa.string(), "Identity of the trajectory."),
        required("corpus", pa.string(), "Body of trajectories it belongs to."),
        Column("task_id", pa.string(), "Task attempted."),
        Column("repo", pa.string(), "Repository, or task family for embedded tasks."),
        Column("split", pa.string(), "Split of the task."),
        Column("agent", pa.string(), "Agent (harness) name and version."),
        Column("model", pa.string(), "Model the agent called."),
        Column("run_id", pa.string(), "Run it belongs to."),
        Column("seed", pa.int64(), "Seed of the rollout."),
        required("n_steps", pa.int32(), "Turns in which a policy acted."),
        required("n_events", pa.int32(), "Events in the stream."),
        Column("resolved", pa.bool_(), "Result of the last grading; null when never graded."),
        Column("grader", pa.string(), "Who graded."),
        Column("exit_status", pa.string(), "How the run ended; never success."),
        required("submitted", pa.bool_(), "Whether a non-empty submission was made."),
        Column("tokens_in", pa.int64(), "Prompt tokens: the source's total, else the sum over steps."),
        Column("tokens_out", pa.int64(), "Completion tokens: the source's total, else the sum over steps."),
        Column("cost_usd", pa.float64(), "Cost in US dollars: the source's total, else the sum over steps."),
        Column("step_cost_usd", pa.float64(), "Sum of the step costs that are known; null when none is."),
        required("n_format_errors", pa.int32(), "Turns in which nothing could be executed."),
        required("n_failed_commands", pa.int32(), "Observations with an exit code other than 0."),
        Column("started_at", TIMESTAMP, "First time known."),
        Column("ended_at", TIMESTAMP, "Last time known."),
    ),
)
