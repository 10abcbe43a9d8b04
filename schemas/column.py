"""How a column and a table are declared: once, with its sentence; schema, validation and documentation follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type and the sentence that says what it means."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = True

    @property
    def field(self) -> pa.Field:
        """The Arrow field; the sentence travels as its `comment` metadata."""
        return pa.field(self.name, self.type, nullable=self.nullable, metadata={"comment": self.doc})


@dataclass(frozen=True)
class Table:
    """One table of the lake: its name is its folder, its SQL name and its asset key."""

    name: str
    doc: str
    columns: Sequence[Column]
    key: Sequence[str]
    partition_by: Sequence[str] = field(default_factory=tuple)

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema, columns in declared order."""
        return pa.schema([c.field for c in self.columns])


def required(name: str, type_: pa.DataType, doc: str) -> Column:
    """A column that is never null."""
    return Column(name, type_, doc, nullable=False)


def struct(columns: Sequence[Column]) -> pa.DataType:
    """The struct type whose children are these columns; children are always nullable, as upcasting needs."""
    return pa.struct([pa.field(c.name, c.type, metadata={"comment": c.doc}) for c in columns])
