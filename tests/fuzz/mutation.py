"""How inputs are varied: as JSON where they are JSON, so that a changed file is still of its format, else as bytes.

An input is a byte, which says whether the file is read as what it is or as a format by name, and the file. Seeds are the format
examples of the tests. Not here: which variations are kept; the fuzzer's coverage says that.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from format_examples import EXAMPLES
from test_import_contract import HOSTILE, MARK
from test_importers import nested

from stepwell.importers.registry import IMPORTERS

AS_IT_IS = 0
_FORCED = 128
"""First byte from which on a format is asked for by name."""
_NAMES = sorted(IMPORTERS)
_LINES = tuple(name for name, importer in IMPORTERS.items() if importer.unit == "records")


def split(data: bytes) -> tuple[bytes, str | None]:
    """An input -> its file, and the format it is to be read as, if any."""
    first = data[0] if data else AS_IT_IS
    return data[1:], _NAMES[(first - _FORCED) % len(_NAMES)] if first >= _FORCED else None


def seeds() -> Iterator[bytes]:
    """Inputs to begin with: every example as a file of its format, some lists, a Parquet file, gzip, and odd bytes."""
    whole = [(name, data) for name, data, _ in EXAMPLES]
    for name, data in whole:
        yield bytes([AS_IT_IS]) + _file(name, data)
    by_name = {name: [d for n, d in whole if n == name] for name, _ in whole}
    for name, documents in by_name.items():
        if IMPORTERS[name].unit in ("record", "document") and all(isinstance(d, dict) for d in documents):
            yield bytes([AS_IT_IS]) + orjson.dumps(documents[:3])
            yield bytes([AS_IT_IS]) + b"\n".join(map(orjson.dumps, documents[:3] * 2))
    row = next(d for n, d in whole if n == "sharegpt")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row]), sink)
    yield bytes([AS_IT_IS]) + sink.getvalue().to_pybytes()
    yield bytes([AS_IT_IS]) + gzip.compress(orjson.dumps(row), mtime=0)
    for odd in (
        b"",
        b"[]",
        b"{}",
        b"version https://git-lfs.github.com/spec/v1",
        b'{"a": NaN}\n{}\n{"b"',
        b"\xef\xbb\xbf{}",
    ):
        yield bytes([AS_IT_IS]) + odd


def _file(name: str, data: Any) -> bytes:
    if IMPORTERS[name].unit == "archive":
        return _zipped(data)
    if name in _LINES and isinstance(data, list):
        return b"\n".join(map(orjson.dumps, data))
    return orjson.dumps(data)


def _zipped(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return sink.getvalue()


def _parts(value: Any) -> Iterator[Any]:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(inner)


def _known() -> tuple[list[str], list[str]]:
    """Every value, as JSON, and every key of the examples."""
    documents = [d for name, d, _ in EXAMPLES if IMPORTERS[name].unit != "archive"]
    values = [v for d in documents for v in _parts(d)]
    return [json.dumps(v) for v in values], sorted({k for v in values if isinstance(v, dict) for k in v})


_VALUES, _KEYS = _known()
_MARKED = [MARK, [MARK], {"key": MARK}, [{"type": "text", "text": MARK}], [[{"a": [MARK]}]], json.dumps({"k": MARK})]
_LARGE = [nested(60), nested(260), nested(600), 2**70, "9" * 400, "a" * 3000, [0] * 300, 1e18, -1e18]
_TIMES = ["2026-01-01T00:00:00+99:99", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1700000000", -1e10]
_ODD = [
    json.dumps(v) for v in (*HOSTILE, *_MARKED, *_LARGE, *_TIMES, "\ud800", float("nan"), "\u2028", {"\ud800": 1}, -0.0)
]


def vary(data: bytes, random: Random, bytewise: Callable[[bytes], bytes]) -> bytes:
    """Another input: a JSON value changed in one to four places, or bytes changed by the fuzzer's own mutators."""
    head, body = data[:1] or bytes([AS_IT_IS]), data[1:]
    if random.random() < 0.03:
        head = bytes([random.choice([AS_IT_IS, random.randrange(_FORCED, 256)])])
    if random.random() < 0.2:
        return head + bytewise(body)
    if body[:4] == b"PK\x03\x04":
        return head + (_vary_zip(body, random) or bytewise(body))
    return head + (_vary_json(body, random) or bytewise(body))


def _vary_zip(body: bytes, random: Random) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as file:
            members = {name: file.read(name) for name in file.namelist()}
    except Exception:  # what is no zip any more is varied as bytes
        return None
    if not members:
        return None
    name = random.choice(list(members))
    what = random.random()
    if what < 0.1:
        del members[name]
    elif what < 0.2:
        members[random.choice([f"../{name}", "samples/other_epoch_1.json", "header.json", f"{name}x"])] = members[name]
    else:
        members[name] = _vary_json(members[name], random) or members[name][: random.randrange(len(members[name]) + 1)]
    return _zipped(members)


def _vary_json(body: bytes, random: Random) -> bytes | None:
    """The same with some values changed; None for what is neither JSON nor JSON lines."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return _vary_lines(body, random)
    try:
        for _ in range(random.choice((1, 1, 2, 4))):
            parsed = _changed(parsed, random)
        return json.dumps(parsed).encode()
    except RecursionError:
        return None


def _vary_lines(body: bytes, random: Random) -> bytes | None:
    lines = [line for line in body.split(b"\n") if line]
    if len(lines) < 2:
        return None
    for _ in range(random.choice((1, 1, 2, 4))):
        at, what = random.randrange(len(lines)), random.random()
        if what < 0.1 and len(lines) > 2:
            del lines[at]
        elif what < 0.2:
            lines.insert(random.randrange(len(lines) + 1), lines[at])
        elif what < 0.25:
            lines.insert(at, lines.pop(random.randrange(len(lines))))
        elif what < 0.3:
            lines[at] = lines[at][: random.randrange(len(lines[at]) + 1)] or b"3"
        else:
            try:
                lines[at] = json.dumps(_changed(json.loads(lines[at]), random)).encode()
            except (ValueError, RecursionError):
                continue
    return b"\n".join(lines)


def _changed(root: Any, random: Random) -> Any:
    """A value in which one place, found by walking down at random, is another."""
    holder: Any = [root]
    here, key = holder, 0
    while isinstance(here[key], dict | list) and here[key] and random.random() < 0.8:
        here = here[key]
        key = random.choice(list(here)) if isinstance(here, dict) else random.randrange(len(here))
    what = random.random()
    if what < 0.3:
        here[key] = json.loads(random.choice(_ODD))
    elif what < 0.5:
        here[key] = json.loads(random.choice(_VALUES))
    elif what < 0.6 and here is not holder:
        del here[key]
    elif what < 0.7:
        here[key] = random.choice(([here[key]], {random.choice(_KEYS): here[key]}, json.dumps(here[key])))
    elif what < 0.8 and isinstance(here[key], str):
        here[key] = _text(here[key], random)
    elif what < 0.9 and isinstance(here, dict) and here is not holder:
        here[random.choice(_KEYS)] = json.loads(random.choice((json.dumps(here[key]), random.choice(_ODD))))
    elif isinstance(here, list) and here is not holder:
        here.insert(random.randrange(len(here) + 1), json.loads(json.dumps(random.choice(here))))
    else:
        here[key] = MARK
    return holder[0]


def _text(text: str, random: Random) -> Any:
    """A text cut, doubled, opened as JSON, or with something odd in it."""
    at = random.randrange(len(text) + 1)
    odd = random.choice(
        ("\x00", "```", "</function>", "<returncode>", "\n", "{", "[1", "\ud800", "\\", "%", " ", "9" * 30)
    )
    try:
        opened = json.loads(text)
    except (ValueError, RecursionError):
        opened = text[::-1]
    return random.choice((text[:at], text[at:], text + text, text[:at] + odd + text[at:], opened))
