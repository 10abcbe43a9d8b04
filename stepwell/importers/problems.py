"""Problem sets with tests: HumanEval and what is written like it (MultiPL-E, EvalPlus), MBPP, APPS and TACO, CodeContests,
LiveCodeBench, NeMo Gym tasks, and SWE-bench instances. One record is one task, and only that: nothing was attempted.

Kept where: the prompt is the statement; names, sets, links, dates and commits have columns. Entry point, visible tests,
starter code and every other field stay in `extra`.
Never logged: hidden tests and reference solutions, only their hashes (columns, and in place in `extra`).
Not in the format: agents, steps, outcomes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_content, take_float, take_obj, take_text
from stepwell.importers.sealed import Seal

TESTS = (
    "test", "tests", "test_list", "challenge_test_list", "test_patch", "input_output", "private_test_cases",
    "private_tests", "generated_tests", "unit_tests", "plus_input", "base_input", "FAIL_TO_PASS", "PASS_TO_PASS",
)  # fmt: skip
SOLUTIONS = (
    "canonical_solution", "patch", "solutions", "solution", "code", "incorrect_solutions", "expected_answer",
)  # fmt: skip
_SHAPES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("prompt",), ("entry_point", "test", "tests", "canonical_solution", "test_list")),
    (("text", "task_id"), ("test_list",)),
    (("question",), ("input_output", "solutions")),
    (("description",), ("private_tests", "generated_tests")),
    (("question_content",), ("public_test_cases", "private_test_cases")),
    (("responses_create_params",), ("verifier_metadata",)),
    (("problem_statement", "instance_id"), ("test_patch", "FAIL_TO_PASS", "base_commit")),
)
"""Keys of a statement, and those of which one must stand beside it."""
_TRIED = (
    "is_solved", "is_passing", "implementations", "response", "completion", "generation", "output_list", "messages",
    "trajectory", "history", "traj", "model_patch", "turn_history",
)  # fmt: skip
"""Keys that only a record of an attempt has."""
_NAMES = ("task_id", "instance_id", "name", "question_id", "problem_id", "hash_id", "id")
_NUMBERED = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]{0,60})/\d+")


class Problems:
    """Reads problem sets; one record is one task."""

    name = "problems-with-tests"
    versions = ("",)
    unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "no",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "no",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def tells(self, record: Obj) -> str:
        """A statement beside tests or a solution, and no attempt at it."""
        if any(k in record for k in _TRIED):
            return ""
        for said, beside in _SHAPES:
            found = [k for k in beside if k in record]
            if found and all(k in record for k in said):
                return f"`{said[0]}` with `{found[0]}`, and no attempt"
        return ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A record -> its task, or one reject when it states none."""
        seal = Seal(TESTS, SOLUTIONS)
        rest = obj(data)
        statement = _statement(rest)
        rest = seal.strip(rest)
        if statement is None:
            yield Rejected("malformed", "no statement: none of prompt, text, question or description is text.")
            return
        inner = take_obj(rest, "verifier_metadata")
        name = _name(rest) or _name(inner)
        rest |= {"verifier_metadata": inner} if inner else {}
        numbered = _NUMBERED.fullmatch(name or "")
        builder = Builder.of(source, self.name, name, self.name)
        builder.task(
            name,
            statement,
            suite=take_text(rest, "dataset") or take_text(rest, "platform") or (numbered[1] if numbered else None),
            split=take_text(rest, "split"),
            repo=take_text(rest, "repo"),
            base_commit=take_text(rest, "base_commit"),
            created_at=take_text(rest, "created_at") or take_text(rest, "contest_date"),
            source_url=next((u for u in (take_text(rest, k) for k in ("source_url", "url", "link")) if u), None),
            time_limit_s=_seconds(rest),
            tests_hash=seal.tests_hash,
            solution_hash=seal.solution_hash,
            compared=seal.compared,
            extra=rest,
        )
        yield builder.imported(name)


IMPORTER = Problems()


def _statement(rest: Obj) -> str | None:
    request = obj(rest.get("responses_create_params"))
    asked = request.get("input")
    if isinstance(asked, str) or (isinstance(asked, list) and all(isinstance(m, dict) for m in asked)):
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else [dict(m) for m in asked]
        texts = [take_content(m) for m in messages if m.get("role", "user") == "user"]
        rest["responses_create_params"] = {**request, "input": [m for m in messages if set(m) - {"role", "type"}]}
        return "\n\n".join(t for t in texts if t) or None
    said = ("problem_statement", "prompt", "text", "question", "question_content", "description")
    return next((t for t in (take_text(rest, k) for k in said if rest.get(k)) if t), None)


def _name(rest: Obj) -> str | None:
    for key in _NAMES:
        value = rest.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(rest.pop(key))
    return None


def _seconds(rest: Obj) -> float | None:
    """The time limit: a number of seconds, or as CodeContests writes it."""
    limit = rest.get("time_limit")
    if isinstance(limit, dict) and set(limit) <= {"seconds", "nanos"} and {*map(type, limit.values())} == {int}:
        del rest["time_limit"]
        return float(limit.get("seconds", 0) + limit.get("nanos", 0) / 1e9)
    return take_float(rest, "time_limit")
