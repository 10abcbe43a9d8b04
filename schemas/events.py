"""The system of record: one row an event, an envelope and one nullable payload struct per kind."""

from __future__ import annotations

import pyarrow as pa

from schemas.column import TIMESTAMP, Column, Table, required, struct
from schemas.kinds import KINDS
from schemas.payloads import USAGE

ENVELOPE = (
    required("event_id", pa.string(), "128-bit hex digest of the fact recorded: the same fact always has the same id."),
    required("corpus", pa.string(), "Body of trajectories it belongs to; the partition column."),
    required("trajectory_id", pa.string(), "The stream it belongs to."),
    Column("step", pa.int32(), "0-based turn; null for facts about the whole trajectory."),
    required("kind", pa.string(), "One of the closed set of kinds."),
    required(
        "actor", pa.string(), "Role of whoever produced it: agent, teacher, critic, environment, grader, human, system."
    ),
    Column("policy", pa.string(), "Which model, rule or person that was."),
    Column("occurred_at", TIMESTAMP, "When it happened; null where the source does not say."),
    required("recorded_at", TIMESTAMP, "When it was appended to the log."),
    Column("caused_by", pa.string(), "Event id it answers."),
    required("batch_id", pa.string(), "Import or derivation that wrote it."),
    required("schema_version", pa.int32(), "Version of the payload."),
    Column("usage", struct(USAGE), "Tokens, cost and latency of the model call that produced it."),
    Column("extra", pa.string(), "Fields of the source that have no column, as a JSON string."),
)

EVENTS = Table(
    name="events",
    doc="Every fact ever recorded, append-only; one table version is one state of the world.",
    columns=(*ENVELOPE, *(Column(k.name, k.type, k.doc) for k in KINDS.values())),
    key=("event_id",),
    partition_by=("corpus",),
)
