"""Identities: the same content always has the same id, on any machine and in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

_PLAIN = frozenset((str, int, float, bool))
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
_LEAVES = _PLAIN | {type(None)}
_CORPUS = 240


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, nulls dropped, so that adding a nullable field later changes no id."""
    return orjson.dumps(without_nulls(value), option=_SORTED)


def without_nulls(value: Any) -> Any:
    """A value whose objects have no nulls; the very value when they have none and hold nothing nested."""
    if isinstance(value, dict):
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return {k: v if type(v) in _LEAVES else without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [v if type(v) in _LEAVES else without_nulls(v) for v in value]
    return value


def storable(value: Any) -> Any:
    """Text as Arrow can hold it, lone surrogates (undecodable names, halves of emoji) written out; anything else as it is."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def storable_whole(value: Any) -> Any:
    """A JSON value with every text in it storable, keys too."""
    if isinstance(value, dict):
        return {storable(k): storable_whole(v) for k, v in value.items()}
    return [storable_whole(v) for v in value] if isinstance(value, list | tuple) else storable(value)


def unfit_corpus(name: str) -> str | None:
    """Why no event can be kept under a corpus name, None when it can: `corpus=NAME`, percent-encoded, is a folder's name.

    File systems take 255 bytes of it.
    """
    n = len(quote(storable(name), safe=""))
    if n <= _CORPUS:
        return None
    return f"corpus {name[:40]!r}... is {n} bytes percent-encoded; allowed: at most {_CORPUS}. Give a shorter name."


def digest(*parts: Any) -> str:
    """128-bit hex digest of the canonical JSON of the parts."""
    return digest_of([p if type(p) in _LEAVES else without_nulls(p) for p in parts])


def digest_of(parts: Sequence[Any]) -> str:
    """The digest of parts that have gone through `without_nulls`."""
    return hashlib.blake2b(orjson.dumps(parts, option=_SORTED), digest_size=16).hexdigest()


def fraction(*parts: Any) -> float:
    """A number in [0, 1) that these parts decide, whatever else there is."""
    return int(digest(*parts)[:8], 16) / 2**32


def sha256(text: str | bytes) -> str:
    """sha256 in hex; text is taken as UTF-8 (lone surrogates survive)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text).hexdigest()
