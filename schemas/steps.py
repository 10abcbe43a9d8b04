"""One row a step: the action, what came back, and what was said about it."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required

STEPS = Table(
    name="steps",
    doc="One row a turn in which a policy acted, folded from its events.",
    key=("trajectory_id", "step"),
    columns=(
        required("trajectory_id", pa.string(), "Trajectory it belongs to."),
        required("step", pa.int32(), "0-based turn."),
        required("corpus", pa.string(), "Body of trajectories it belongs to."),
        required("actor", pa.string(), "Who acted: agent, teacher or human."),
        Column("policy", pa.string(), "Which policy acted."),
        required("action", pa.string(), "What the policy said, verbatim."),
        Column("thought", pa.string(), "The thought, where told apart."),
        Column("command", pa.string(), "What was executed; null when nothing could be parsed."),
        Column("parse_error", pa.string(), "Why nothing was executed."),
        Column("observation", pa.string(), "The message the agent was shown in answer."),
        Column("exit_code", pa.int32(), "Exit code of the command."),
        Column("duration_s", pa.float64(), "Execution time in seconds."),
        Column("state_before", pa.string(), "Hash of the state before the turn."),
        Column("state_after", pa.string(), "Hash of the state after the turn."),
        Column("tokens_in", pa.int64(), "Prompt tokens of the call."),
        Column("tokens_out", pa.int64(), "Completion tokens of the call."),
        Column("cost_usd", pa.float64(), "Cost of the call in US dollars."),
        Column("occurred_at", TIMESTAMP, "When the policy acted."),
        required("action_event", pa.string(), "Event id of the action."),
        Column("observation_event", pa.string(), "Event id of the (last) observation."),
    ),
)
