"""Graded generations (LiveCodeBench submissions): one record is one problem with the samples drawn for it and their grades.

Kept where: samples are independent, so each is a trajectory of one step: the reply as it came (`output_list`) is its action,
the code cut out of it (`code_list`) its attempt and submission, `graded_list` its outcome, with a result per test where the
source has a list of them. The problem is the statement and, since the prompt around it is not in the source, the one
instruction; the contest's date is when the task was created.
In `extra`: what the grader said of a sample (of the outcome), all else of the problem (of `task`), rates over all samples and
lists that do not match the samples (of `end`).
Never logged: inputs and expected outputs of hidden tests, which the grader quotes, only their hashes.
Not in the format: model, prompts, cost, times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from stepwell.importers.attempts import HIDDEN, conclude, grade, submit
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_text
from stepwell.importers.sealed import Seal

TESTS = ("inputs", "expected", "private_test_cases", "input_output")
SOLUTIONS = ("canonical_solution", "reference_solution")
_SAMPLES = ("output_list", "code_list", "graded_list", "metadata")


class GradedGenerations:
    """Reads graded generations; every sample of a record is one trajectory."""

    name = "code-generations-graded"
    versions = ("",)
    unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "yes",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "no",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def tells(self, record: Obj) -> str:
        """Samples and their grades."""
        both = isinstance(record.get("code_list"), list) and isinstance(record.get("graded_list"), list)
        return "`code_list`, `graded_list`" if both else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A record -> one trajectory a sample, or one reject when it holds none."""
        rest = obj(data)
        n = len(rest["code_list"]) if isinstance(rest.get("code_list"), list) else 0
        samples = {k: rest.pop(k) for k in _SAMPLES if isinstance(rest.get(k), list) and len(rest[k]) == n}
        if not n:
            yield Rejected("malformed", "no sample: `code_list` is empty or no list.")
        for i in range(n):
            yield _sample(dict(rest), {k: v[i] for k, v in samples.items()}, i, source)


IMPORTER = GradedGenerations()


def _sample(rest: Obj, sample: Obj, i: int, source: SourceFile) -> Imported:
    seal = Seal(TESTS, SOLUTIONS)
    said = seal.strip(sample.pop("metadata")) if "metadata" in sample else None
    name, statement = take_text(rest, "question_id"), take_text(rest, "question_content")
    rest = seal.strip(rest)
    rates = {k: rest.pop(k) for k in (*_SAMPLES, *rest) if k in rest and (k in _SAMPLES or k.startswith("pass@"))}
    within = replace(source, identity=f"{source.identity}/{i}")
    builder = Builder.of(within, GradedGenerations.name, name, "code generation")
    builder.task(
        name,
        statement,
        suite=take_text(rest, "platform"),
        created_at=take_text(rest, "contest_date"),
        solution_hash=seal.solution_hash,
        compared=seal.compared,
        extra=rest,
    )
    builder.start({"task_id": name, "attempt": i})
    if statement is not None:
        builder.instruction(0, "user", statement, False, {"not_in_source": "the prompt around the problem"})
    text, code, grades = take_text(sample, "output_list"), take_text(sample, "code_list"), sample.get("graded_list")
    left = {k: v for k, v in sample.items() if k != "graded_list"}
    action = builder.action({"text": code if text is None else text}, usage={}, policy=None, extra=left)
    attempt = submit(builder, 0, 0, code, cause=action)
    builder.end({"submission": code}, rates)
    end, (resolved, tests) = builder.events[-1], _graded(grades)
    if grades is not None or said is not None:
        known = isinstance(grades, bool) or tests is not None
        extra = {**({} if said is None else {"metadata": said}), **({} if known else {"graded": grades})}
        grade(builder, attempt, HIDDEN, resolved, tests=tests, extra=extra)
    if resolved is not None:
        conclude(builder, HIDDEN, resolved, end)
    return builder.imported(name)


def _graded(grades: Any) -> tuple[bool | None, list[Obj] | None]:
    """The result of a sample, and of its tests where there is one each: true and 1 passed, anything else failed."""
    if isinstance(grades, bool):
        return grades, None
    if not isinstance(grades, list) or not grades or not all(isinstance(g, int) for g in grades):
        return None, None
    tests = [{"name": str(k), "group": "hidden", "passed": g in (True, 1)} for k, g in enumerate(grades)]
    return all(t["passed"] for t in tests), tests
