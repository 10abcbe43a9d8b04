"""Identities: the same content always has the same id, on any machine and in any process."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

_PLAIN = frozenset((str, int, float, bool))
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
_LEAVES = _PLAIN | {type(None)}


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, nulls dropped, so that adding a nullable field later changes no id."""
    return orjson.dumps(_without_nulls(value), option=_SORTED)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return {k: v if type(v) in _LEAVES else _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [v if type(v) in _LEAVES else _without_nulls(v) for v in value]
    return value


def storable(value: Any) -> Any:
    """Text as Arrow can hold it, lone surrogates (undecodable names, halves of emoji) written out; anything else as it is."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def digest(*parts: Any) -> str:
    """128-bit hex digest of the canonical JSON of the parts."""
    data = orjson.dumps([p if type(p) in _LEAVES else _without_nulls(p) for p in parts], option=_SORTED)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def fraction(*parts: Any) -> float:
    """A number in [0, 1) that these parts decide, whatever else there is."""
    return int(digest(*parts)[:8], 16) / 2**32


def sha256(text: str | bytes) -> str:
    """sha256 in hex; text is taken as UTF-8 (lone surrogates survive)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text).hexdigest()
