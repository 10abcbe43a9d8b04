"""Secrets out, markers in: of parsed input, of bytes, of events; counted by kind.

A marker is `[REDACTED:kind:hash]`: eight hex digits of the secret's hash, keyed with a random salt of the lake, so that equal
secrets have equal markers and whoever does not have the salt cannot try values against them. What is found in one place of a
unit (a record, an event) is taken out of all of it, in every form of `values`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.secrets.detect import MARK, Found, Values, detected
from stepwell.secrets.values import forms, of_environment

T = TypeVar("T")
SALT = ".salt"
_LEAVES = frozenset((str, int, float, bool, type(None)))
_ESCAPES = (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ('\\"', '"'), ("\\/", "/"))
"""Escapes of JSON, undone before the rules look: most begin at a word boundary, which `\\n` before a key is not."""


def salt_of(lake: Lake) -> bytes:
    """The salt of a lake, made when it has none; it is a file beside the tables and belongs in no copy that is published."""
    with lake.lock("salt"):
        known = lake.store.get(SALT)
        if known is None:
            known = os.urandom(32)
            lake.store.put(SALT, known)
        return known


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
        lines: list[str] = []
        _gather(value, lines.append)
        text = "\n".join(lines)
        plain = text
        for escape, char in _ESCAPES if "\\" in text else ():
            plain = plain.replace(escape, char)
        found = [*self._values.found(text), *detected(plain)] if text else []
        return _mapped(value, self.taking_out(found)) if found else value

    def apart(self, value: T) -> T:
        """The same with each string looked at alone, so that a string is always redacted in the same way."""
        return _mapped(value, self.redact)  # type: ignore[no-any-return]

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
            payload, usage, extra = self.redact((event.payload, event.usage, event.extra))
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

        return lambda text: pattern.sub(put, text)


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


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k) if isinstance(k, str) else k: _mapped(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change) for item in value)
    return value
