"""JSON as it is found: parsed so that all of it can be stored, or refused with the reason and the byte.

What is no standard JSON but is written all the same is kept as text: a lone surrogate as `\\udXXX`, NaN, Infinity and numbers
too large for a float as they are written. Of a key that stands twice in one object the last value counts, as parsers do.
Integers beyond 64 bits become floats. Nesting deeper than DEEPEST cannot be written again and is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.ids import canonical, storable_whole

DEEPEST = 254
_BOM = b"\xef\xbb\xbf"


def parse(data: bytes) -> Any:
    """Bytes -> value. Raises BadInput (`not_json`, `too_deep`) with the byte it fails at."""
    data = data.removeprefix(_BOM)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _lenient(data)


def _lenient(data: bytes) -> Any:
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=str, parse_float=_float, parse_int=_int)
        return storable_whole(value)
    except UnicodeDecodeError as error:
        raise BadInput("not_json", f"{error.reason} at byte {error.start}; JSON is UTF-8.", error.start) from error
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode("utf-8", "surrogatepass"))
        raise BadInput("not_json", f"{error.msg} at byte {at}; JSON or JSON lines are read.", at) from error
    except RecursionError as error:
        raise BadInput("too_deep", f"nested deeper than {DEEPEST} levels; nothing deeper can be kept.") from error


def _float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _int(text: str) -> int | float | str:
    if len(text) > 20:
        return _float(text)
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def document_identity(document: Any) -> str:
    """sha256 of a document's content, the same for any layout of it. Raises BadInput (`too_deep`)."""
    try:
        return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError as error:
        raise BadInput("too_deep", f"{error}; documents are nested at most {DEEPEST} deep.") from error


def record_identity(record: Any) -> str:
    """sha256 of a record's content without nulls: the same in JSON lines and in Parquet, which pads with them.

    Raises BadInput (`too_deep`).
    """
    try:
        return hashlib.sha256(canonical(record)).hexdigest()
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise BadInput("too_deep", f"{error}; records are nested at most {DEEPEST} deep.") from error
