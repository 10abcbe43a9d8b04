"""Learning from critique-revision loops (CTRL, METHODS.md 2): critiques that were guided by a hint, learnt without it
(ctrl_sft), and solutions to be criticised for a reward (ctrl_rl).

Belongs here: rows of loops. Does not belong here: playing them (`rollout`), what a critique gives away (`leaking`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stepwell import leaking
from stepwell.asking import Asked, Said
from stepwell.datasets.cases import Case, Dropped, Parts, Row, Sample
from stepwell.datasets.critiques import UNREADABLE, learnt, unfit
from stepwell.gradings import WHOLE, standing

_OF_TASK = ("task_id", "suite", "split", "tests_hash", "time_limit_s")
_OF_REWARD = ("event_id", "critique_id", "reward", "format_ok")


def ctrl_sft(case: Case) -> Parts:
    """One row a guided critique that leaks nothing and whose revision passes: the request without the hint, the critique."""
    if not case.rows.get("attempt"):
        return Dropped("no solutions")
    if (why := unfit(case)) is not None:
        return why
    return [_critique(case, reply) for reply in case.said] or Dropped("no verdict of the critic")


def _critique(case: Case, reply: Said) -> Sample | Dropped:
    about = _attempt(case, reply)
    hint = next((h for h in case.rows.get("hint", ()) if about and h["attempt_id"] == about["attempt_id"]), None)
    if not reply.hinted:
        return Dropped("not guided by a hint")
    if not reply.readable:
        return Dropped(UNREADABLE)
    if reply.asked is None or reply.why:
        return Dropped(reply.why)
    if about is None or hint is None:
        return Dropped("not guided by a hint")
    revision = next((a for a in case.rows["attempt"] if a["critique_id"] in reply.verdicts), None)
    outcome = None if revision is None else graded(case, revision["attempt_id"])
    if not case.settings.synthesis.keep_failed:
        if revision is None:
            return Dropped("never answered by a revision")
        if outcome is None or not outcome["resolved"]:
            return Dropped("its revision fails")
    leak = leaks(case, reply, hint, about["code"] or "", (revision or {}).get("code") or "")
    if leak is not None:
        return Dropped(f"leak: {leak}")
    evidence = [r["event_id"] for r in (about, hint, revision, outcome) if r is not None]
    return learnt(case, reply.asked, reply, [e for e in evidence if e not in reply.asked.event_ids])


def leaks(case: Case, reply: Said, hint: Row, attempt: str, revision: str) -> str | None:
    """The first thing a critique gives away that the settings do not let pass, found here or when the tests were at hand."""
    wanted, known = case.settings.synthesis, reply.leaks
    if wanted.hint_leaks == "drop":
        if "hint" in known or leaking.names_hint(reply.text):
            return "it speaks of the hint"
        if "expected" in known or leaking.shows_expected(reply.text, hint["text"] or ""):
            return "an expected result"
    if wanted.solution_leaks == "drop":
        if "code" in known or leaking.has_block(reply.text):
            return "a block of code"
        if leaking.share_shown(reply.text, attempt, revision) >= wanted.similarity:
            return "lines of the revision"
    return None


def ctrl_rl(case: Case) -> Parts:
    """One prompt a solution: the task and the solution, where its tests are, and rewards recorded for critiques of it."""
    if not case.rows.get("attempt"):
        return Dropped("no solutions")
    first_only = case.settings.synthesis.rounds == "first"
    by_event = {a["event_id"]: a for a in case.rows["attempt"]}
    parts: list[Sample | Dropped] = []
    for asked in case.asked:
        if isinstance(asked, str):
            parts.append(Dropped(asked))
        elif (attempt := by_event.get(asked.cause or "")) is not None and not (first_only and attempt["round"]):
            parts.append(_prompt(case, asked, attempt))
    return parts or Dropped("no solution to ask about")


def _prompt(case: Case, asked: Asked, attempt: Row) -> Sample | Dropped:
    rewards = [r for r in case.rows.get("reward", ()) if r["group_id"] == attempt["attempt_id"]]
    task = next(iter(case.rows.get("task", ())), None)
    if task is None or task["tests_hash"] is None:
        return Dropped("no tests are known")
    outcome = graded(case, attempt["attempt_id"])
    problems = case.settings.synthesis.problems
    reference: dict[str, Any] = {k: task[k] for k in _OF_TASK}
    reference |= {
        "task_event": task["event_id"],
        "attempt_event": attempt["event_id"],
        "attempt_id": attempt["attempt_id"],
    }
    reference |= {
        "code": attempt["code"],
        "problems": problems and problems.model_dump(mode="json"),
        "resolved": outcome and outcome["resolved"],
    }
    if (same := json.loads(attempt["extra"] or "{}").get("same_as")) is not None:
        reference["same_as"] = same
    evidence = [task["event_id"], *([outcome["event_id"]] if outcome else ()), *(r["event_id"] for r in rewards)]
    return Sample(
        list(asked.messages), list(asked.steps), [0.0 for _ in asked.steps], list(asked.event_ids), evidence,
        group_id=attempt["attempt_id"], reference=reference,
        rewards=[{k: r[k] for k in _OF_REWARD} for r in rewards] or None,
    )  # fmt: skip


def _attempt(case: Case, reply: Said) -> Row | None:
    """The solution a reply is about."""
    cause = reply.asked.cause if reply.asked else None
    return next((a for a in case.rows.get("attempt", ()) if a["event_id"] == cause), None)


def graded(case: Case, subject: str) -> Mapping[str, Any] | None:
    """The grading of a solution or the `trajectory` that stands, of several (`stepwell.gradings`)."""
    found = [o for o in case.rows.get("outcome", ()) if (o["subject"] or WHOLE) == subject]
    return standing(found) if found else None
