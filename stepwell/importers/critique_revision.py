"""Critique-revision files (Reflexion, LLMDebugger): one record is one problem, the solutions tried on it round by round, what
the tests or the model said of each, and whether the last one passes the hidden tests.

Kept where: solution i is the `attempt` of round i and step i, a revision names the attempt and the critique it answers; a
reflection is a `verdict` on its attempt, by the model itself; the tests the model was shown are the attempt's outcome by
"visible tests" (failed when the feedback names a test, else undecided), and `is_solved` is that of the last attempt, and of
the trajectory, by "hidden tests". A file with reflections but without the solutions they speak of tells how many rounds there
were: their attempts have no code. `prompt` is the statement, `solution` the submission.

In `extra`: test feedback in full (of the outcome), the seed program (of the first attempt), entry point, visible tests and all
else of the problem (of `task`), counters, and `is_passing`, which is about the visible tests alone (of `end`).
Never logged: hidden tests and the reference solution, only their hashes.
Not in the format: the model's replies (the solutions are what was cut out of them), prompts, model, cost, times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.event import Event
from stepwell.importers.attempts import HIDDEN, VISIBLE, conclude, grade, submit
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_text
from stepwell.importers.sealed import Seal

TESTS = ("test", "tests", "test_list", "hidden_tests")
SOLUTIONS = ("canonical_solution", "reference_solution")
_SHOWN = ("given_tests", "generated_test", "generated_tests")
_OF_THE_RUN = ("is_passing", "is_solved", "debug_iter", "token_nums", "solution")


class CritiqueRevision:
    """Reads critique-revision records; one record is one trajectory of attempts."""

    name = "critique-revision"
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
        """Solutions with the word of hidden tests on them."""
        tried = next((k for k in ("implementations", "solution") if k in record), None)
        return f"`is_solved`, `{tried}`" if tried and "is_solved" in record and "messages" not in record else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A record -> one trajectory, or one reject when it holds no solution."""
        rest = obj(data)
        if isinstance(rest.get("implementations"), list) or isinstance(rest.get("solution"), str):
            yield _read(rest, source)
        else:
            yield Rejected("malformed", "neither a list of `implementations` nor a `solution`.")


IMPORTER = CritiqueRevision()


def _read(rest: Obj, source: SourceFile) -> Imported:
    seal = Seal(TESTS, SOLUTIONS)
    rounds = {
        k: rest.pop(k) for k in ("implementations", "reflections", "test_feedback") if isinstance(rest.get(k), list)
    }
    codes, reflections = rounds.get("implementations") or [], rounds.get("reflections") or []
    feedback, solution = rounds.get("test_feedback") or [], take_text(rest, "solution")
    run = {k: rest.pop(k) for k in _OF_THE_RUN if k in rest}
    seed, statement = take_text(rest, "seed"), take_text(rest, "prompt")
    shown = {k: rest.pop(k) for k in _SHOWN if isinstance(rest.get(k), list)}
    name = take_text(rest, "task_id") or take_text(rest, "name")
    agent = "LLMDebugger" if "debug_iter" in run else "Reflexion" if "reflections" in rounds else "critique-revision"
    builder = Builder.of(source, CritiqueRevision.name, name, agent)

    visible: list[Any] = next(iter(shown.values()), [])
    about = seal.strip(rest) | shown
    builder.task(
        name, statement, about, tests_hash=seal.tests_hash, solution_hash=seal.solution_hash, compared=seal.compared
    )
    builder.start({"task_id": name})
    attempt: Event | None = None
    critique: Event | None = None
    n = max(len(codes), len(reflections) + 1)
    for i in range(n):
        code = codes[i] if i < len(codes) else solution if i == n - 1 else None
        extra: Obj = {"seed": seed} if seed is not None and i == 0 else {}
        extra |= {} if isinstance(code, str | None) else {"implementation": code}
        code = code if isinstance(code, str) else None
        attempt = submit(builder, i, i, code, parent=attempt, critique=critique, extra=extra)
        if i < len(feedback):
            _visible(builder, attempt, visible, feedback[i])
        critique = _critique(builder, attempt, reflections[i]) if i < len(reflections) else None
    builder.n_steps = n
    left = {"test_feedback": feedback[n:]} if len(feedback) > n else {}
    builder.end({"submission": solution}, {**run, **left})
    solved = run.get("is_solved")
    if isinstance(solved, bool) and attempt is not None:
        grade(builder, attempt, HIDDEN, solved, rerun=1)
        conclude(builder, HIDDEN, solved, next(e for e in reversed(builder.events) if e.kind == "end"))
    return builder.imported(name)


def _visible(builder: Builder, attempt: Event, visible: list[Any], feedback: Any) -> None:
    """The outcome of the tests the model was shown: each that the feedback names failed."""
    said = [f for f in feedback if isinstance(f, str)] if isinstance(feedback, list) else []
    names = dict.fromkeys(t for t in visible if isinstance(t, str))
    failed = {name: f for f in said for name in _named(f)}
    tests: list[Obj] = [{"name": t, "group": "visible", "passed": t not in failed} for t in names]
    unnamed = [_named(f)[-1] for f in said if not any(name in names for name in _named(f))]
    tests += [{"name": name, "group": "visible", "passed": False} for name in unnamed]
    told = isinstance(feedback, list)
    extra = {"feedback": feedback} if feedback else {}
    grade(builder, attempt, VISIBLE, False if said else None, tests=tests if told else None, extra=extra)


def _named(feedback: str) -> tuple[str, str, str]:
    """What the failed test of a feedback may be called: all of it, or what stands before a comment with its output."""
    return feedback, feedback.rpartition(" #")[0], feedback.partition(" #")[0]


def _critique(builder: Builder, attempt: Event, reflection: Any) -> Event | None:
    """The verdict on an attempt; what is no text is kept with it, unread."""
    text = reflection if isinstance(reflection, str) else None
    payload = {"scope": "attempt", "guidance": text, "raw": text}
    extra = {} if text is not None else {"reflection": reflection}
    return builder.add(
        "verdict",
        "critic",
        payload,
        step=attempt.step,
        policy="self-reflection",
        caused_by=attempt.event_id,
        extra=extra,
    )
