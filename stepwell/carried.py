"""What a file of another convention carries for Stepwell beside its own fields: the vocabulary of `extra.stepwell`.

Belongs here: the names that whoever writes such a file (exporters) and whoever reads it back (importers) must share. Does not
belong here: either of the two.

Where a step, a result or a document has `extra`, what stands there under KEY is an event written flat: the envelope
(ENVELOPE) and the payload's columns side by side, nulls left out. `payload` of an event that has a place of its own in the
file is without the columns that stand there (NATIVE), unless the place cannot hold their value. Events without a place of
their own are lists by kind. References are ids of the file's own events; readers give new ones.
"""

from __future__ import annotations

from schemas.kinds import KINDS

KEY = "stepwell"
ENVELOPE = ("event_id", "actor", "policy", "step", "occurred_at", "caused_by", "usage", "extra")
NATIVE = {
    "action": ("text", "reasoning", "tool_calls"),
    "observation": ("rendered",),
    "instruction": ("content",),
    "start": ("model", "run_id"),
    "end": ("tokens_in", "tokens_out", "cost_usd"),
}
"""Columns that ATIF has places for, by kind of event."""
NATIVE_USAGE = ("tokens_in", "tokens_out", "cache_read", "cost_usd")
REFERENCES = {
    "attempt": ("critique_id",),
    "feedback": ("verdict_id",),
    "reward": ("critique_id",),
    "mask": ("evidence",),
}
"""Columns that hold ids of events, by kind, in an order in which they can be resolved."""
PLACELESS = tuple(k for k in KINDS if k not in (*NATIVE, "retraction"))
"""Kinds of events that no trajectory format has a place for."""
