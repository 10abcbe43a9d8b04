"""Upcasters: payloads written by earlier versions, brought to the current one when read; stored rows never change.

An upcaster is a pure function from the stored struct array of one kind and version to the next version's. To change a
payload: raise the kind's version in `schemas.kinds`, add the upcaster here, add a test with rows of the old version.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import EVENTS
from schemas.kinds import KINDS

Upcaster = Callable[[dict[str, pa.Array]], dict[str, pa.Array]]
"""Fields of one version -> the fields that differ in the next."""


def _observation_1(old: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Version 1 kept one `text`, with notices already concatenated; version 2 keeps raw and rendered apart."""
    return {"raw": old["text"], "rendered": old["text"]}


UPCASTERS: dict[tuple[str, int], Upcaster] = {("observation", 1): _observation_1}


def upcast(stored: pa.Table) -> pa.Table:
    """Stored event rows of any version -> the same rows, in the same order, with the current schema.

    Columns that were not read stay absent. `schema_version` keeps the version the row was written with.
    """
    stored = stored.combine_chunks()
    versions = stored.column("schema_version").combine_chunks() if "schema_version" in stored.column_names else None
    columns, fields = [], []
    for column in EVENTS.columns:
        if column.name not in stored.column_names:
            continue
        value = stored.column(column.name).combine_chunks()
        if isinstance(value, pa.ChunkedArray):
            value = value.chunk(0) if value.num_chunks else pa.array([], value.type)
        if pa.types.is_struct(column.type):
            value = _upcast_struct(column.name, column.type, value, versions)
        else:
            value = value.cast(column.type)
        columns.append(value)
        fields.append(column.field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _upcast_struct(name: str, target: pa.DataType, value: pa.Array, versions: pa.Array | None) -> pa.Array:
    if value.type.equals(target):
        return value
    present = [value.type.field(i).name for i in range(value.type.num_fields)]
    fields = {child: pc.struct_field(value, child) for child in present}
    for version in range(1, KINDS[name].version if name in KINDS else 1):
        if versions is None:
            raise ValueError(f"column {name!r} has payloads of several versions: read `schema_version` with it")
        old = pc.and_(pc.less_equal(versions, version), pc.is_valid(value))
        if pc.any(old).as_py():
            for child, upgraded in UPCASTERS[(name, version)](fields).items():
                current = fields.get(child, pa.nulls(len(value), upgraded.type))
                fields[child] = pc.if_else(old, upgraded, current)
    wanted = [target.field(i) for i in range(target.num_fields)]
    children = [fields[f.name].cast(f.type) if f.name in fields else pa.nulls(len(value), f.type) for f in wanted]
    return pa.StructArray.from_arrays(children, fields=wanted, mask=pc.is_null(value))
