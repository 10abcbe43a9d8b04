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

Upcaster = Callable[[pa.StructArray], dict[str, pa.Array]]


def _observation_1(old: pa.StructArray) -> dict[str, pa.Array]:
    """Version 1 kept one `text`, with notices already concatenated; version 2 keeps raw and rendered apart."""
    text = pc.struct_field(old, "text")
    return {"raw": text, "rendered": text}


UPCASTERS: dict[tuple[str, int], Upcaster] = {("observation", 1): _observation_1}


def _conform(array: pa.StructArray, target: pa.DataType, overrides: dict[str, pa.Array]) -> pa.StructArray:
    stored = {array.type.field(i).name for i in range(array.type.num_fields)}
    children = []
    for i in range(target.num_fields):
        child = target.field(i)
        if child.name in overrides:
            value = overrides[child.name]
        elif child.name in stored:
            value = pc.struct_field(array, child.name)
        else:
            value = pa.nulls(len(array), child.type)
        children.append(value.cast(child.type))
    fields = [target.field(i) for i in range(target.num_fields)]
    return pa.StructArray.from_arrays(children, fields=fields, mask=pc.is_null(array))


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
    overrides: dict[str, pa.Array] = {}
    for version in range(1, KINDS[name].version if name in KINDS else 1):
        if versions is None:
            raise ValueError(f"column {name!r} has payloads of several versions: read `schema_version` with it")
        old = pc.and_(pc.equal(versions, version), pc.is_valid(value))
        if not pc.any(old).as_py():
            continue
        for child, upgraded in UPCASTERS[(name, version)](value).items():
            stored = {value.type.field(i).name for i in range(value.type.num_fields)}
            current = pc.struct_field(value, child) if child in stored else pa.nulls(len(value), upgraded.type)
            overrides[child] = pc.if_else(old, upgraded, overrides.get(child, current))
    return _conform(value, target, overrides)
