"""What must not reach the log: hidden tests, gold patches and reference solutions, replaced by their hashes.

Belongs here: finding them by the names their format gives them, however deep, also in JSON written as text and in base64; and
finding their text again where a source repeats it. Not here: names of one format alone; what an agent itself wrote or saw.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

from stepwell.contamination.tasks import compared, filled
from stepwell.ids import canonical, sha256
from stepwell.importers.messages import Obj

TESTS = (
    "test_patch", "tests", "unit_tests", "repro_test_info_base64", "FAIL_TO_PASS", "PASS_TO_PASS", "fail_to_pass",
    "pass_to_pass", "test_cases", "private_test_cases", "hidden_tests", "inputs", "expected",
)  # fmt: skip
SOLUTIONS = (
    "patch", "gold_patch", "golden_patch", "solution", "solutions", "canonical_solution", "reference_solution",
    "reference_patch", "expected_answer", "expected_output", "ground_truth", "answer_key",
)  # fmt: skip
"""Names that suites of tasks give hidden tests and reference solutions; a format may have its own."""
_TELLING = 20
"""Characters from which on a text can be told by itself."""
_SOUGHT = 100
"""Hidden texts, the longest, that are sought inside other texts; all are known where they stand alone."""
_DEEPEST = 100
"""Levels up to which JSON text is looked into; nested deeper it is sealed as a whole."""


class Seal:
    """Takes what is hidden out of the values of one record and remembers its hashes, to be asked for afterwards.

    `tests` and `solutions` are keys, most telling first: the hash of a record is that of the first one it has. Text is hashed
    as it is, anything else as canonical JSON.
    """

    def __init__(self, tests: Sequence[str], solutions: Sequence[str]) -> None:
        self._tests, self._solutions = tuple(tests), tuple(solutions)
        self._keys = frozenset(self._tests + self._solutions)
        self._marks = tuple(f'"{key}"' for key in self._keys)
        self._hashes: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    @property
    def tests_hash(self) -> str | None:
        """sha256 of the hidden tests met so far."""
        return next((self._hashes[key] for key in self._tests if key in self._hashes), None)

    @property
    def solution_hash(self) -> str | None:
        """sha256 of the reference solution met so far."""
        return next((self._hashes[key] for key in self._solutions if key in self._hashes), None)

    @property
    def compared(self) -> Obj:
        """What of the hidden tests and solutions met so far is recorded to compare tasks by: hashes and paths."""
        tests, solutions = (
            [v for k, v in self._values.items() if k in keys] for keys in (self._tests, self._solutions)
        )
        return dict(compared(tests, solutions))

    def open(self, value: Any) -> Any:
        """A value with its JSON texts that hold something hidden parsed; only for reading, never for the log."""
        if isinstance(value, dict):
            return {k: self.open(v) for k, v in value.items()}
        return self._parsed(value) if isinstance(value, str) else value

    def strip(self, value: Any) -> Any:
        """A copy of a value without what is hidden: in its place stand its sha256 and its length."""
        stripped = self._stripped(value)
        return self._cleaned(stripped, sorted(self._texts, key=len)[-_SOUGHT:]) if self._texts else stripped

    def _stripped(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: self._sealed(k, v) if k in self._keys and v else self._stripped(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._stripped(v) for v in value]
        if not isinstance(value, str):
            return value
        opened = self._parsed(value)
        if opened is not value:
            return self._stripped(opened)
        return self._sealed("", value) if self._is_packed(value) else value

    def _parsed(self, text: str) -> Any:
        """The value of a JSON text that holds something hidden; any other text as it is."""
        if text[:1] not in ("{", "[") or not any(mark in text for mark in self._marks):
            return text
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return value if _depth(value) <= _DEEPEST else text

    def _is_packed(self, text: str) -> bool:
        """Whether a text that cannot be looked into holds something hidden: broken JSON, or base64 of JSON."""
        if text[:1] in ("{", "["):
            return any(mark in text for mark in self._marks)
        if text[:2] not in ("ey", "ew", "e3", "Wy", "W3", "Ww"):
            return False
        try:
            plain = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return False
        return any(mark.encode() in plain for mark in self._marks)

    def _sealed(self, key: str, value: Any) -> Obj:
        text = value if isinstance(value, str) else canonical(value).decode()
        hashed = sha256(text)
        if filled(value):
            self._hashes.setdefault(key, hashed)
        if not key.startswith("incorrect"):
            self._values.setdefault(key, value)
        for one in _texts(value):
            self._texts[one] = sha256(one)
        return {"sha256": hashed, "n_chars": len(text)}

    def _cleaned(self, value: Any, sought: list[str]) -> Any:
        """The same without the texts that are hidden elsewhere."""
        if isinstance(value, dict):
            return {k: self._cleaned(v, sought) for k, v in value.items()}
        if isinstance(value, list):
            return [self._cleaned(v, sought) for v in value]
        if not isinstance(value, str) or len(value) < _TELLING:
            return value
        for text in [value.strip()] if value.strip() in self._texts else sought:
            if text in value:
                value = value.replace(text, f"<sha256 {self._texts[text]}>")
        return value


def _depth(value: Any) -> int:
    """Levels of nesting in a value."""
    level, n = [value], 0
    while level:
        inner = [v for v in level if isinstance(v, dict | list)]
        level, n = [i for v in inner for i in (v.values() if isinstance(v, dict) else v)], n + 1
    return n


def _texts(value: Any) -> list[str]:
    """The texts in a hidden value that are long enough to be known again."""
    if isinstance(value, dict | list):
        return [t for v in (value.values() if isinstance(value, dict) else value) for t in _texts(v)]
    return [value.strip()] if isinstance(value, str) and len(value.strip()) >= _TELLING else []
