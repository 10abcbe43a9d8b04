"""Learning from pairs (critic_dpo): of several replies to one request, the better and the worse (STEER v2, METHODS.md 1.3).

Belongs here: ranking candidates by what the log holds. Two ways: the reward recorded for each (CTRL's groups: whose revision
passed; or a judge's or a person's ranking, recorded as rewards), or agreement with a reference (tests, people). Does not
belong here: asking anybody for a ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from stepwell.asking import Asked, Said
from stepwell.conversation import said
from stepwell.datasets.cases import Case, Dropped, Parts, Row, Sample
from stepwell.datasets.critiques import learnt, unfit
from stepwell.datasets.guided import graded
from stepwell.ids import canonical

OUTCOME = "outcome"


@dataclass(frozen=True)
class Ranked:
    """A candidate, its worth and the events that say so."""

    reply: Said
    asked: Asked
    worth: float
    evidence: tuple[str, ...]


def critic_dpo(case: Case) -> Parts:
    """Pairs of readable candidates for the same request; with rewards an unreadable one may be the worse."""
    if (why := unfit(case)) is not None:
        return why
    states: dict[bytes, list[Ranked]] = {}
    parts: list[Sample | Dropped] = []
    rank = _rewarded if case.settings.preference.rank == "reward" else _agreeing
    for reply in case.said:
        if reply.asked is None or reply.why or reply.hinted:
            parts.append(Dropped(reply.why or "asked with a hint"))
            continue
        found = rank(case, reply, reply.asked)
        if isinstance(found, Dropped):
            parts.append(found)
        else:
            states.setdefault(canonical([reply.asked.cause, list(reply.asked.messages)]), []).append(found)
    for candidates in states.values():
        parts += _pairs(case, candidates)
    return parts or Dropped("no verdict of the critic")


def _pairs(case: Case, candidates: Sequence[Ranked]) -> list[Sample | Dropped]:
    if len(candidates) == 1:
        return [Dropped("a single candidate")]
    ranked = sorted(_distinct(candidates), key=lambda c: (-c.worth, c.reply.verdicts))
    wanted = [(ranked[0], ranked[-1])] if case.settings.preference.pairs == "best_worst" else combinations(ranked, 2)
    margin = case.settings.preference.margin
    differ = [(one, other) for one, other in wanted if one.worth - other.worth > margin and one.reply.readable]
    return [_pair(case, *pair) for pair in differ] or [Dropped("candidates rank alike")]


def _distinct(candidates: Sequence[Ranked]) -> list[Ranked]:
    """Replies of the same words are one candidate, worth their mean: what was made of them differs by chance."""
    same: dict[str, list[Ranked]] = {}
    for candidate in candidates:
        same.setdefault(candidate.reply.text, []).append(candidate)
    return [
        replace(of[0], worth=sum(c.worth for c in of) / len(of), evidence=tuple(e for c in of for e in c.evidence))
        for of in same.values()
    ]


def _pair(case: Case, better: Ranked, worse: Ranked) -> Sample:
    evidence = dict.fromkeys([*worse.reply.verdicts, *better.evidence, *worse.evidence])
    row = learnt(case, better.asked, better.reply, list(evidence))
    return replace(row, rejected=said(worse.reply.text, ()))


def _rewarded(case: Case, reply: Said, asked: Asked) -> Ranked | Dropped:
    ranker = case.settings.preference.ranker
    found = [
        r for r in case.rows.get("reward", ())
        if r["critique_id"] in reply.verdicts and r["reward"] is not None and ranker in (None, r["policy"])
    ]  # fmt: skip
    if not found:
        return Dropped("no reward is recorded")
    worth = sum(r["reward"] for r in found) / len(found)
    return Ranked(reply, asked, worth, tuple(r["event_id"] for r in found))


def _agreeing(case: Case, reply: Said, asked: Asked) -> Ranked | Dropped:
    if not reply.readable:
        return Dropped("unreadable reply")
    wanted = case.settings.preference.reference
    if wanted == OUTCOME:
        subject = next(
            (a["attempt_id"] for a in case.rows.get("attempt", ()) if a["event_id"] == asked.cause), "trajectory"
        )
        outcome = graded(case, subject)
        if outcome is None or outcome["resolved"] is None or reply.facts["judgment"] is None:
            return Dropped("no grading to agree with, or no judgment")
        return Ranked(reply, asked, float(reply.facts["judgment"] == outcome["resolved"]), (outcome["event_id"],))
    reference = [v for v in case.rows.get("verdict", ()) if v["policy"] == wanted]
    if reply.labels:
        steps = {v["step"]: v for v in reference if v["label"] is not None and v["step"] in reply.labels}
        if not steps:
            return Dropped("no reference verdict")
        same = sum(reply.labels[step] == v["label"] for step, v in steps.items()) / len(steps)
        return Ranked(reply, asked, same, tuple(v["event_id"] for v in steps.values()))
    about = [v for v in reference if v["caused_by"] == asked.cause and v["scope"] == reply.facts["scope"]]
    if not about:
        return Dropped("no reference verdict")
    worth = sum(agreement(reply.facts, v) for v in about) / len(about)
    return Ranked(reply, asked, worth, tuple(v["event_id"] for v in about))


def agreement(one: Mapping[str, Any], other: Row) -> float:
    """Mean over what both state: judgments equal, severity near (1 less half the distance), shared share of categories."""
    parts = []
    if one["judgment"] is not None and other["judgment"] is not None:
        parts.append(float(one["judgment"] == other["judgment"]))
    if one["severity"] is not None and other["severity"] is not None:
        parts.append(1 - abs(one["severity"] - other["severity"]) / 2)
        a, b = ({d["category"] for d in v["detections"] or () if d["category"]} for v in (one, other))
        parts.append(len(a & b) / len(a | b) if a | b else 1.0)
    return sum(parts) / len(parts) if parts else 0.0
