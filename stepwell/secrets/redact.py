"""Secrets out, markers in: of parsed input, of bytes, of events; counted by kind.

A marker is `[REDACTED:kind:hash]`: eight hex digits of the secret's hash, keyed with a random salt of the lake, so that equal
secrets have equal markers and whoever does not have the salt cannot try values against them. What is found in one place of a
unit (a record, an event) is taken out of all of it, in every form of `values`. A number that holds an exact value becomes a
string with its marker, and a text that is JSON stays JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import orjson

from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.secrets.detect import IN_NUMBER, MARK, Found, Values, detected
from stepwell.secrets.values import forms, of_environment

T = TypeVar("T")
Put = Callable[[re.Match[str]], str]
SALT = ".salt"
_NUMBERS = frozenset((int, float))
_LEAVES = frozenset((str, int, float, bool, type(None)))
_ESCAPES = (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'), ("\\/", "/"))
"""Escapes of JSON, undone before the rules look: most begin at a word boundary, which `\\n` before a key is not."""
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[-+.\deE]*')
"""Strings and numbers of a text that is JSON."""


def salt_of(lake: Lake) -> bytes:
    """The salt of a lake, made when it has none; it is a file beside the tables and belongs in no copy that is published."""
    if (known := lake.store.get(SALT)) is not None:
        return known  # without a lock, which who may only read the lake cannot take
    with lake.lock("salt"):
        known = lake.store.get(SALT)
        if known is None:
            known = lake.store.first(SALT, os.urandom(32))
        return known


def secret_id(event_id: str, salt: bytes) -> str:
    """What stands for the id of an event that is gone: the id is a digest of what it said, so it goes too."""
    return hashlib.blake2b(event_id.encode(), key=salt, digest_size=16).hexdigest()


def redactions(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What stands for the id of every event that was redacted, and the id of what is left of it, of rows with `retraction`."""
    told = (r["retraction"] for r in rows if r["retraction"])
    return {t["target_event"]: t["replacement"] for t in told if t["action"] == "redact"}


def redactor_of(lake: Lake, values: Iterable[str] = ()) -> Redactor:
    """The redactor of a lake, for these values and those of the environment that look like secrets."""
    return Redactor(salt_of(lake), [*values, *of_environment()])


class Redactor:
    """Takes secrets out and counts them; `values` are exact values, found whatever they look like."""

    def __init__(self, salt: bytes, values: Iterable[str] = ()) -> None:
        self.salt, self.counts = salt, Counter[str]()
        self._values = Values(values)

    def marker(self, kind: str, secret: str) -> str:
        """What stands in place of a secret."""
        data = secret.encode("utf-8", "surrogateescape")
        return f"{MARK}{kind}:{hashlib.blake2b(data, key=self.salt, digest_size=4).hexdigest()}]"

    def redact(self, value: T) -> T:
        """A string, list or object as parsed from JSON, without its secrets; the very value when it has none."""
        return self._redacted(value, self._values.numeric)

    def _redacted(self, value: T, numbers: bool) -> T:
        lines: list[str] = []
        _gather(value, lines.append)
        if numbers:
            lines += _numbers(value)
        text = "\n".join(lines)
        plain = text
        for escape, char in _ESCAPES if "\\" in text else ():
            plain = plain.replace(escape, char)
        found = [*self._values.found(text), *detected(plain)] if text else []
        return _mapped(value, self.taking_out(found), numbers) if found else value

    def apart(self, value: T) -> T:
        """The same with each string looked at alone, so that a string is always redacted in the same way."""
        return _mapped(value, self.redact, self._values.numeric)  # type: ignore[no-any-return]

    def raw(self, data: bytes) -> bytes:
        """Bytes of unparsed input without their secrets."""
        text = data.decode("utf-8", "surrogateescape")
        redacted = self.redact(text)
        return data if redacted is text else redacted.encode("utf-8", "surrogateescape")

    def events(self, events: Sequence[Event]) -> list[Event]:
        """Events without their secrets; their ids are those of what is left, and what they cause names them so."""
        names: dict[str, str] = {}
        kept = []
        for event in events:
            said = (event.payload, event.usage, event.extra)
            payload, usage, extra = self._redacted(said, numbers=False)  # columns of numbers hold no text
            cause = names.get(event.caused_by or "", event.caused_by)
            clean = replace(event, payload=payload, usage=usage, extra=extra, caused_by=cause)
            names[event.event_id] = clean.event_id
            kept.append(clean)
        return kept

    def taking_out(self, found: Sequence[Found]) -> Callable[[str], str]:
        """A function that puts markers where a text has any form of what was found, and counts them."""
        marks: dict[str, tuple[str, str]] = {}
        for one in found:
            mark = self.marker(one.kind, one.secret)
            for form in forms(one.secret) if one.text == one.secret else [one.text]:
                marks.setdefault(form, (one.kind, one.text.replace(one.secret, mark)))
        pattern = re.compile("|".join(re.escape(form) for form in sorted(marks, key=len, reverse=True)))

        def put(match: re.Match[str]) -> str:
            kind, mark = marks[match[0]]
            self.counts[kind] += 1
            return mark

        numeric = any(one.kind == "value" and IN_NUMBER.fullmatch(one.secret) for one in found)
        return partial(_json_kept, pattern, put) if numeric else lambda text: pattern.sub(put, text)


def _json_kept(pattern: re.Pattern[str], put: Put, text: str) -> str:
    """A text with markers where the pattern is; one that is JSON stays JSON: a number with a marker becomes a string."""

    def token(match: re.Match[str]) -> str:
        said = match[0]
        if said[0] != '"':
            changed = pattern.sub(put, said)
            return said if changed == said else f'"{changed}"'
        if said[1] not in "{[":
            return said
        inner = orjson.loads(said)
        changed = _json_kept(pattern, put, inner)
        return said if changed == inner else json.dumps(changed)

    return pattern.sub(put, _TOKENS.sub(token, text) if pattern.search(text) and _is_json(text) else text)


def _gather(value: Any, put: Callable[[str], None]) -> None:
    """Every text after the name of its field."""
    if isinstance(value, dict):
        for name, item in value.items():
            if type(item) is str:
                put(f"{name}: {item}" if name else item)
            else:
                put(f"{name}")
                if type(item) not in _LEAVES:
                    _gather(item, put)
    elif isinstance(value, list | tuple):
        for item in value:
            if type(item) not in _LEAVES:
                _gather(item, put)
            elif isinstance(item, str):
                put(item)
    elif isinstance(value, str):
        put(value)


def _numbers(value: Any) -> Iterator[str]:
    """Every number as text."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif type(value) in _NUMBERS:
        yield str(value)


def _is_json(text: str) -> bool:
    try:
        return text.lstrip()[:1] in ("{", "[") and isinstance(orjson.loads(text), dict | list)
    except orjson.JSONDecodeError:
        return False


def _mapped(value: Any, change: Callable[[str], str], numbers: bool = False) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k) if isinstance(k, str) else k: _mapped(v, change, numbers) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change, numbers) for item in value)
    if numbers and type(value) in _NUMBERS:
        text = str(value)
        changed = change(text)
        return value if changed == text else changed
    return value
