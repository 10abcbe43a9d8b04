"""What is to go: values in every form, events, trajectories; and where a table or a text holds any of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.ids import canonical
from stepwell.secrets.detect import Found
from stepwell.secrets.redact import Redactor, secret_id
from stepwell.secrets.values import forms


@dataclass(frozen=True)
class Target:
    """Values to take out, events whose text goes whole, trajectories that go whole (`down`)."""

    values: Sequence[str] = ()
    events: frozenset[str] = frozenset()
    down: frozenset[str] = frozenset()

    def name(self, salt: bytes) -> str:
        """Identity of what was asked for: the same request has the same name, which tells nothing without the salt."""
        asked = canonical([sorted(self.values), sorted(self.events), sorted(self.down)])
        return hashlib.blake2b(asked, key=salt, digest_size=8).hexdigest()

    @cached_property
    def literals(self) -> list[bytes]:
        """Every form of every value, as bytes."""
        return sorted({form.encode("utf-8", "surrogateescape") for v in self.values for form in forms(v)})

    def in_bytes(self, data: bytes) -> bool:
        """Whether bytes hold a value in any form."""
        return any(literal in data for literal in self.literals)

    def in_text(self, text: str) -> bool:
        """Whether a text holds a value in any form."""
        return self.in_bytes(text.encode("utf-8", "surrogateescape"))

    def rows(self, table: pa.Table) -> pa.ChunkedArray:
        """Which rows hold a value in any string or bytes of them, however deep."""
        mask = pa.chunked_array([pa.repeat(False, len(table))]) if len(table) else pa.chunked_array([], pa.bool_())
        for column in table.columns if self.values else ():
            mask = pc.or_(mask, pa.chunked_array([self._held(c) for c in column.chunks], pa.bool_()))
        return mask

    def held(self, table: pa.Table) -> bool:
        """Whether any row holds a value."""
        return bool(len(table)) and bool(pc.any(self.rows(table)).as_py())

    def _held(self, array: pa.Array) -> pa.Array:
        """Raises ArrowNotImplementedError for a type that cannot be looked into: nothing is passed over in silence."""
        kind, none = array.type, pa.repeat(False, len(array))
        if pa.types.is_dictionary(kind):
            return self._held(array.dictionary_decode())
        if pa.types.is_map(kind):
            pairs = pa.struct([pa.field("key", kind.key_type, nullable=False), pa.field("value", kind.item_type)])
            return self._held(array.cast(pa.list_(pairs)))
        if pa.types.is_struct(kind):
            for i in range(kind.num_fields):
                none = pc.or_(none, self._held(pc.struct_field(array, [i])))
            return none
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            inside = self._held(pc.list_flatten(array))
            parents = pc.unique(pc.list_parent_indices(array).filter(inside))
            return pc.is_in(pa.array(range(len(array)), parents.type), parents)
        if any(test(kind) for test in _WITHOUT_TEXT):
            return none
        text = array.cast(pa.large_binary())
        for literal in self.literals:
            none = pc.or_(none, pc.fill_null(pc.match_substring(text, literal), False))
        return none


_WITHOUT_TEXT = (
    pa.types.is_primitive, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null, pa.types.is_temporal,
)  # fmt: skip


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A row with every string and every bytes of it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, bytes):
        return change(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    return [mapped(v, change) for v in value] if isinstance(value, list) else value


@dataclass
class Taking:
    """A target with the function that puts markers in the place of its values."""

    target: Target
    redactor: Redactor
    reason: str

    def __post_init__(self) -> None:
        self.name = self.target.name(self.redactor.salt)
        found = [Found("value", value, value) for value in self.target.values]
        self.clean: Callable[[str], str] = self.redactor.taking_out(found) if found else lambda text: text

    def secret_id(self, event_id: str) -> str:
        """What stands in this lake for the id of an event that is gone."""
        return secret_id(event_id, self.redactor.salt)
