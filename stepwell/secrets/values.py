"""Exact values: where they come from, and the forms in which one value stands in other texts.

A form is a literal to search for: the value itself, as writers of JSON write it (once and twice), percent-encoded, in hex,
and in base64 at each of the three places it can have inside a longer text. Of base64 only what depends on the value alone is
a form, so up to two characters on either side are not part of it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import orjson

from stepwell.errors import UsageError

SHORTEST = 4
"""Characters a value must have to be searched for at all."""
_ENCODED = 8
"""Characters an encoded form must have: shorter ones would be met by chance."""
_NAMES = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?|PAT)(?:_|$)")
_ESCAPED = [
    re.compile(chars)
    for chars in ("[&<>]", "[&<>']", r"[^\0-\x7f]", r"[^\0-\x7f]|[&<>']", r"""[^\0-\x7f]|[&<>'+`]|\\\"""")
]
"""What writers of JSON write as `\\uXXXX` though they need not: Go, others for HTML, Python, those with both, .NET (last)."""
_LOOKS = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[^\s/]\S{11,}")


def forms(value: str) -> list[str]:
    """Every form of a value, the longest first."""
    data = value.encode("utf-8", "surrogateescape")
    once = _written(value)
    found = {value, *once, *(form.replace("/", "\\/") for form in once)}
    found |= {twice for form in once for twice in _written(form)}
    encoded = {quote(data, safe=""), quote(data), quote_plus(data), data.hex(), data.hex().upper()}
    for offset in range(3):
        text = base64.b64encode(b"\0" * offset + data).decode()
        begin = -(-offset * 8 // 6)
        end = (offset + len(data)) * 8 // 6
        encoded |= {text[begin:end], text[begin:end].replace("+", "-").replace("/", "_")}
    found |= {form for form in encoded if len(form) >= _ENCODED}
    return sorted(found, key=lambda form: (-len(form), form))


def _written(text: str) -> set[str]:
    """A text as different writers of JSON write it."""
    plain = orjson.dumps(text.encode("utf-8", "replace").decode()).decode()[1:-1]
    if not _ESCAPED[-1].search(plain):
        return {plain}
    return {escaped.sub(partial(_units, digits), plain) for escaped in _ESCAPED for digits in ("04x", "04X")} | {plain}


def _units(digits: str, match: re.Match[str]) -> str:
    """A character as `\\uXXXX`, one for each of its UTF-16 units."""
    data = match[0][-1].encode("utf-16-be")
    return "".join(f"\\u{int.from_bytes(data[at : at + 2]):{digits}}" for at in range(0, len(data), 2))


def of_file(path: str | Path) -> list[str]:
    """The values in a file, one a line; of a file called `*.env` what follows `NAME=`. Raises UsageError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read secret values from {str(path)!r}: {error}; give a text file.") from error
    if Path(path).name.endswith(".env"):
        named = (line.partition("=")[2] for line in lines if not line.lstrip().startswith("#"))
        lines = [value.strip().strip("'\"") for value in named]
    return checked(line for line in lines if line.strip())


def of_environment(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Values of variables that are named like secrets and look like one (12 characters or more, letters and digits)."""
    return sorted({v for k, v in environment.items() if _NAMES.search(k.upper()) and _LOOKS.fullmatch(v)})


def checked(values: Iterable[str]) -> list[str]:
    """The values without repetition. Raises UsageError for one too short to be searched for."""
    unique = list(dict.fromkeys(values))
    short = sum(len(v) < SHORTEST for v in unique)
    if short:
        raise UsageError(f"{short} of {len(unique)} values have fewer than {SHORTEST} characters; give longer ones.")
    return unique
