"""Learning to criticise: a critic's replies under what it was asked (critic_sft), and outcomes as answers (verifier).

Belongs here: rows of one reply each, with the loss on that reply alone (STEER, METHODS.md 1.3; SWE-Gym's verifier, METHODS.md
5). Does not belong here: making the requests (an `Asker`), critiques guided by hints (`guided`), pairs (`preferences`).
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.asking import Asked, Said
from stepwell.conversation import said
from stepwell.datasets.cases import Case, Dropped, Parts, Sample

UNREADABLE = "unreadable reply"
YES, NO = "YES", "NO"


def critic_sft(case: Case) -> Parts:
    """One row a readable reply of the teacher: exactly what it read, then what it said."""
    if (why := unfit(case)) is not None:
        return why
    if not case.said:
        return Dropped("no verdict of the critic")
    return [_learnt(case, reply) for reply in case.said]


def _learnt(case: Case, reply: Said) -> Sample | Dropped:
    if not reply.readable:
        return Dropped(UNREADABLE)
    if reply.hinted:
        return Dropped("asked with a hint")
    if reply.asked is None or reply.why:
        return Dropped(reply.why)
    return learnt(case, reply.asked, reply)


def verifier(case: Case) -> Parts:
    """One row a graded trajectory: all of it, and whether tests found it right; the loss is on the answer alone."""
    if case.resolved is None:
        return Dropped("not graded")
    graded = [o for o in case.rows.get("outcome", ()) if (o["subject"] or "trajectory") == "trajectory"]
    if not graded or not case.asked:
        return Dropped("no steps to show" if graded else "no grading of the trajectory")
    (asked,) = case.asked
    if isinstance(asked, str):
        return Dropped(asked)
    outcome = next(o["event_id"] for o in reversed(graded) if o["resolved"] == case.resolved)
    answer = YES if case.resolved else NO
    return [replied(case, asked, answer, outcome, asked.steps[-1], judgment=case.resolved)]


def unfit(case: Case) -> Dropped | None:
    """Why no critique of a trajectory is learnt: the option to keep resolved ones only."""
    if not case.settings.critiques.resolved_only or case.resolved:
        return None
    return Dropped("not graded" if case.resolved is None else "not resolved")


def learnt(case: Case, asked: Asked, reply: Said, evidence: Sequence[str] = ()) -> Sample:
    """A request and a reply to it as a row; further verdicts of the reply are evidence."""
    evidence = [*reply.verdicts[1:], *evidence]
    return replied(case, asked, reply.text, reply.verdicts[0], reply.step, evidence, reply.facts["judgment"])


def replied(
    case: Case, asked: Asked, text: str, event: str, step: int, evidence: Sequence[str] = (), judgment: bool | None = None
) -> Sample:  # fmt: skip
    """Messages with a last one that alone is in the loss."""
    return Sample(
        [*asked.messages, said(text, ())],
        [*asked.steps, step],
        [*(0.0 for _ in asked.steps), 1.0],
        [*asked.event_ids, event],
        list(evidence),
        shortens=asked.shortens if case.settings.critiques.too_long == "shorten" else None,
        judgment=judgment,
    )
