"""Companion files: what lies beside trajectories and says something of them, told by its content.

Belongs here: telling reports, results, predictions and trials from trajectories, and which instances a file names. Not here:
what they say of which trajectory (`outcome`).
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from stepwell.importers.files import Blob

INSTANCE, AGGREGATE, PREDICTIONS, VALIDATION = "instance-report", "results", "predictions", "validation-report"
TRIAL = "harbor-result"
_MARKS = re.compile(rb'"(?:resolved|ids_resolved"|model_patch"|FAIL_TO_PASS"|verifier_result")')
_MOST = 64 << 20
_IDS = re.compile(rb'"(?:instance_id|environment)":\s*"([^"\\]{1,200})"')
_CHUNK, _OVERLAP = 1 << 20, 300


def classify(document: Any, keyed: bool = True) -> str:
    """Kind of companion file a parsed object is, or nothing; `keyed` allows one report a key."""
    if not isinstance(document, dict) or any(k in document for k in ("trajectory", "messages", "history", "steps")):
        return ""
    verified = document.get("verifier_result", ())  # null in a trial that broke off before it was verified
    if isinstance(verified, dict | None) and ("trial_name" in document or "task_name" in document):
        return TRIAL
    scalar = not any(isinstance(v, dict | list) for k, v in document.items() if k != "tests_status")
    if (
        scalar
        and isinstance(document.get("resolved"), bool)
        and ("tests_status" in document or "patch_exists" in document)
    ):
        return INSTANCE
    if any(
        is_ids(document.get(k))
        for k in ("resolved_ids", "ids_resolved", "unresolved_ids", "ids_unresolved", "resolved")
    ):
        return AGGREGATE
    if isinstance(document.get("FAIL_TO_PASS"), list) and isinstance(document.get("PASS_TO_PASS"), list):
        return VALIDATION if "instance_id" not in document and "problem_statement" not in document else ""
    if scalar and "model_patch" in document and "instance_id" in document:
        return PREDICTIONS
    values = list(document.values()) if keyed else []
    kinds = {classify(v, keyed=False) for v in values} if values and all(isinstance(v, dict) for v in values) else set()
    return kinds.pop() if len(kinds) == 1 and kinds <= {INSTANCE, PREDICTIONS} else ""


def is_ids(value: Any) -> bool:
    """Whether a value is a list of ids."""
    return isinstance(value, list) and set(map(type, value)) <= {str}


Digests = dict[Path, tuple[tuple[int, int], bytes]]
"""Of files that were read: size and time of the last change, and the sha256 of what they held."""


def read_companion(path: Path, digests: Digests | None = None) -> tuple[str, Any]:
    """Kind and parsed content of a possible companion file; an empty kind when it is none.

    Of a file that was read to know this, its hash is noted in `digests`.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST:
            return "", None
        with path.open("rb") as file:
            if path.suffix == ".jsonl":  # all its lines are predictions, or none counts: mostly the first one tells
                lines = (line for line in file if line.strip())
                first = next(lines, b"")
                told = bool(_MARKS.search(first)) and all(
                    classify(orjson.loads(row)) == PREDICTIONS for row in chain([first], lines)
                )
                return (PREDICTIONS if told else ""), None
            data = file.read()
        if digests is not None:
            digests[path] = (about.st_size, about.st_mtime_ns), hashlib.sha256(data).digest()
        if not _MARKS.search(data):
            return "", None
        document = orjson.loads(data)
    except (OSError, orjson.JSONDecodeError):
        return "", None
    if isinstance(document, list):
        return (PREDICTIONS if document and all(classify(r) == PREDICTIONS for r in document) else ""), None
    return classify(document), document


def ids_in(blob: Blob) -> Counter[str]:
    """Every instance id that is written in some bytes, found without parsing them, and at most how often."""
    found: Counter[bytes] = Counter()
    with blob.open() as stream:
        kept = b""
        while chunk := stream.read(_CHUNK):
            found.update(_IDS.findall(kept + chunk))
            kept = chunk[-_OVERLAP:]
    return Counter({name.decode("utf-8", "replace"): n for name, n in found.items()})
