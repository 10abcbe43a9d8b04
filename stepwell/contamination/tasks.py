"""A task as the gate compares it, made from a task event or from a record of a file of tasks.

Belongs here: which fields of a record are statement, tests and solution, and the hashes of these. The log holds hashes of
tests and solutions only; a task event may hold more of them in `extra`: `case_hashes`, `solution_ast` and `gold_files`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.ids import canonical, sha256
from stepwell.syntax import ast_hash, n_nodes, parsed

MIN_CHARS = 32
"""Characters of a hidden value from which on two equal ones are more than chance, where only its hash is known."""
MIN_NODES = 25
"""Nodes of a syntax tree from which on two equal programs are more than chance."""
PROGRAMS = 8
"""Solutions of a task whose syntax trees are recorded; some sets have hundreds."""
CASES = ("input_output", "public_tests", "private_tests", "generated_tests", "public_test_cases", "private_test_cases",
         "test_cases", "unit_tests", "test_list", "challenge_test_list", "test", "tests")  # fmt: skip
TESTS = (*CASES, "test_patch", "plus_input", "base_input", "hidden_tests")
SOLUTIONS = ("patch", "gold_patch", "golden_patch", "solution", "solutions", "canonical_solution", "reference_solution",
             "reference_patch", "code")  # fmt: skip
_STATEMENTS = ("problem_statement", "prompt", "text", "question", "question_content", "description", "statement")
_NAMES = ("task_id", "instance_id", "name", "question_id", "problem_id", "hash_id", "id")
_PATCHED = re.compile(r"^(?:diff --git a/(\S+)|\+\+\+ b/(\S+))", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """One task of one side; what is not known is empty. `suite` is what is compared with, `named` the set it says it is of.

    `tests`, `solutions`, `trees`, `cases` are hashes; `files` what the gold patch changes; `code` the solutions' text.
    """

    suite: str
    task_id: str
    named: str = ""
    statement: str = ""
    repo: str = ""
    base_commit: str = ""
    created: float | None = None
    url: str = ""
    tests: frozenset[str] = frozenset()
    solutions: frozenset[str] = frozenset()
    trees: frozenset[str] = frozenset()
    cases: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    code: tuple[str, ...] = ()


def of_event(payload: Mapping[str, Any], extra: str | None, suite: str) -> Task:
    """The task of a `task` event."""
    rest = _parsed(extra)
    return _task(rest if isinstance(rest, dict) else {}, suite, {k: v for k, v in payload.items() if v is not None})


def of_record(record: Mapping[str, Any], suite: str) -> Task | None:
    """The task of a record of a task file (SWE-bench, HumanEval, MBPP, APPS, TACO, CodeContests, LiveCodeBench and like
    them); None when it has neither a statement nor a name."""
    statement = next((v for k in _STATEMENTS if isinstance(v := record.get(k), str) and v), "")
    name = next((str(v) for k in _NAMES if isinstance(v := record.get(k), str | int) and v != ""), "")
    if not statement and not name:
        return None
    facts = {k: record.get(k) for k in ("repo", "base_commit", "split")}
    facts |= {"task_id": name, "statement": statement, "suite": record.get("suite") or record.get("dataset")}
    facts["created_at"] = record.get("created_at") or record.get("contest_date")
    facts["source_url"] = next((v for k in ("source_url", "url", "link") if isinstance(v := record.get(k), str)), None)
    return _task(record, suite, facts)


def case_hashes(cases: Iterable[tuple[Any, Any]]) -> list[str]:
    """64-bit hex hashes of pairs of test input and output, sorted; white space at line ends does not count.

    Stored as `case_hashes` in `extra` of a task event, as the tests themselves never enter the log.
    """
    return sorted({sha256(canonical([_plain(given), _plain(want)]))[:16] for given, want in cases})


def compared(tests: Iterable[Any], solutions: Iterable[Any]) -> dict[str, list[str]]:
    """What `extra` of a task event holds of hidden tests and reference solutions: `case_hashes`, `solution_ast` and
    `gold_files`, those of them that there are; hashes and paths only.

    Tests are in any shape that suites give them, solutions are texts, patches, or JSON of them; of many solutions the first
    PROGRAMS count.
    """
    code = [text for value in solutions for text in _texts(value)]
    facts = {
        "case_hashes": case_hashes(pair for value in tests for pair in _pairs(value)),
        "solution_ast": sorted(trees(code[:PROGRAMS])),
        "gold_files": sorted(_files(code)),
    }
    return {name: values for name, values in facts.items() if values}


def days(value: Any) -> float | None:
    """A date as days since 1970 (UTC), from ISO 8601 text, seconds or a datetime; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value) if re.fullmatch(r"\d{9,13}(\.\d*)?", value) else datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return (value / 1000 if value > 1e11 else value) / 86400


def _task(record: Mapping[str, Any], suite: str, facts: Mapping[str, Any]) -> Task:
    tests = {h for key in TESTS for h in _hashes(record.get(key))}
    sets = [record.get(k) for k in ("test_patch", "FAIL_TO_PASS", "PASS_TO_PASS")]
    tests |= {sha256(canonical(sets))} if any(map(filled, sets)) and not any(map(_sealed, sets)) else set()
    solutions = {h for key in SOLUTIONS for h in _hashes(record.get(key))}
    code = tuple(t for key in SOLUTIONS for t in _texts(record.get(key)))
    cases = {c for key in CASES for c in case_hashes(_pairs(record.get(key)))}
    known = facts.get("tests_hash"), facts.get("solution_hash")
    return Task(
        suite=suite,
        task_id=_text(facts.get("task_id")),
        named=_text(facts.get("suite")),
        statement=_text(facts.get("statement")),
        repo=_text(facts.get("repo")).lower(),
        base_commit=_text(facts.get("base_commit")),
        created=days(facts.get("created_at")),
        url=_text(facts.get("source_url")),
        tests=frozenset(tests | ({known[0]} if known[0] else set())),
        solutions=frozenset(solutions | {sha256(t) for t in code} | ({known[1]} if known[1] else set())),
        trees=frozenset(trees(code)) | frozenset(_listed(record.get("solution_ast"))),
        cases=frozenset(cases) | frozenset(_listed(record.get("case_hashes"))),
        files=frozenset(_files(code)) | frozenset(_listed(record.get("gold_files"))),
        code=code,
    )


def trees(code: Iterable[str]) -> set[str]:
    """Hashes of the normal form of these programs, small ones and what is no Python left out."""
    return {ast_hash(text) for text in code if n_nodes(text) >= MIN_NODES}


def _files(code: Iterable[str]) -> set[str]:
    """The files that the patches among these texts change."""
    patches = [t for t in code if t.startswith("diff --git") or "\n+++ b/" in f"\n{t}"]
    return {a or b for patch in patches for a, b in _PATCHED.findall(patch)}


def _hashes(value: Any) -> list[str]:
    """The hash of a hidden value as importers write it, or the one that stands in its place."""
    if _sealed(value):
        return [value["sha256"]] if value["n_chars"] >= MIN_CHARS else []
    return [sha256(value if isinstance(value, str) else canonical(value))] if filled(value) else []


def filled(value: Any) -> bool:
    """Whether a hidden value says anything: lists and objects of nothing, also as JSON, are the same for every task."""
    value = _parsed(value)
    if isinstance(value, dict | list):
        return any(map(filled, value.values() if isinstance(value, dict) else value))
    return value not in (None, "")


def _sealed(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"sha256", "n_chars"}


def _texts(value: Any) -> Iterator[str]:
    """The solutions in a value: one text, or several, also as JSON."""
    value = _parsed(value)
    if isinstance(value, str) and value.strip():
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict) and not _sealed(value):
        yield from _texts(value.get("solution") or value.get("code"))


def _pairs(value: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs of input and output in tests of any of the shapes that suites give them."""
    value = _parsed(value)
    if isinstance(value, str):
        yield from ((one, "") for one in _asserts(value))
    elif isinstance(value, list):
        for one in value:
            yield from _pairs(one)
    elif isinstance(value, dict) and not _sealed(value):
        given = next((value[k] for k in ("inputs", "input", "given") if k in value), None)
        want = next((value[k] for k in ("outputs", "output", "want", "expected_output") if k in value), None)
        if isinstance(given, list) and isinstance(want, list) and len(given) == len(want):
            yield from zip(given, want, strict=True)
        elif given is not None and want is not None:
            yield given, want


def _asserts(code: str) -> Iterator[str]:
    """The assertions of a test program, in normal form: each stands for a case. None of a program too deep to write down."""
    tree = parsed(code)
    try:
        found = [ast.unparse(n.test) for n in ast.walk(tree) if isinstance(n, ast.Assert)] if tree else []
    except (ValueError, RecursionError, MemoryError):
        found = []
    yield from found


def _plain(value: Any) -> Any:
    return "\n".join(line.rstrip() for line in value.strip().splitlines()) if isinstance(value, str) else value


def _parsed(value: Any) -> Any:
    """The value of a text that is a JSON object or list; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(v) for v in value] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
