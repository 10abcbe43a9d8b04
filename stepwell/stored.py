"""Rows and the schema of the table they are for: what must be equal, and what a table has stored.

Belongs here: comparing schemas. Does not belong here: the declared ones (`schemas`), opening tables (`stepwell.lake`).
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable

from schemas.column import Table
from stepwell.errors import SchemaError

BOUNDS = "delta.dataSkippingStatsColumns"
BOUNDED = ("event_id", "trajectory_id", "step", "kind", "actor", "recorded_at")
"""Columns of `events` whose least and greatest value in each file its log has; to readers any other declared one is null."""
BOUNDED_NAMES = ",".join(BOUNDED)


def as_declared(spec: Table, handle: DeltaTable) -> bool:
    """Whether `events` has the declared columns and types, and bounds of no others in its log: others would read as nulls."""
    stored = pa.schema(handle.schema())
    types = dict(zip(stored.names, stored.types, strict=True))
    bounded = handle.metadata().configuration.get(BOUNDS)
    return types == {f.name: f.type for f in spec.schema} and bounded == BOUNDED_NAMES


def as_stored(schema: pa.Schema, handle: DeltaTable) -> pa.Schema:
    """A declared schema with the comments that a table was created with: Delta refuses a column whose comment changed."""
    stored = pa.schema(handle.schema())
    return pa.schema([_commented(f, stored.field(f.name)) if f.name in stored.names else f for f in schema])


def _commented(declared: pa.Field, stored: pa.Field) -> pa.Field:
    """A field, and those inside it, with the metadata they are stored with; what is new in it stays as declared."""
    kind = declared.type
    if pa.types.is_struct(kind) and pa.types.is_struct(stored.type):
        known = {f.name: f for f in stored.type}
        kind = pa.struct([_commented(f, known[f.name]) if f.name in known else f for f in kind])
    elif pa.types.is_list(kind) and pa.types.is_list(stored.type):
        kind = pa.list_(_commented(kind.value_field, stored.type.value_field))
    return pa.field(declared.name, kind, declared.nullable, stored.metadata)


def require_schema(spec: Table, rows: pa.Table) -> None:
    """Raise SchemaError listing every difference between the rows and the declared table."""
    want, got = {f.name: f.type for f in spec.schema}, {f.name: f.type for f in rows.schema}
    wrong = [f"missing column {n!r}" for n in want.keys() - got.keys()]
    wrong += [f"foreign column {n!r}" for n in got.keys() - want.keys()]
    wrong += [f"{n!r} is {got[n]}, must be {want[n]}" for n in want.keys() & got.keys() if want[n] != got[n]]
    wrong += [
        f"{c.name!r} has {rows.column(c.name).null_count} nulls, must have none"
        for c in spec.columns
        if not c.nullable and c.name in got and rows.column(c.name).null_count
    ]
    if wrong:
        raise SchemaError(
            f"rows do not fit table {spec.name!r}: {'; '.join(sorted(wrong))}. Build them with its schema."
        )
