"""Mask rules: which steps a trajectory is learnt from, decided from verdicts and outcomes and recorded as mask events.

Belongs here: the rules and running them over what is new. Does not belong here: judging steps (critics), labels of
tokens (datasets). A mask is an event; rules with different parameters coexist, as their id carries them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.kinds import LABELS
from stepwell.data_settings import Mask
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog, holding_again, in_order, live, taken_back

COLUMNS = (
    "event_id", "corpus", "trajectory_id", "step", "kind", "policy", "recorded_at", "turn", "verdict", "outcome", "mask",
    "retraction",
)  # fmt: skip
"""Columns of `events` that `decide` reads."""

KINDS = ("action", "verdict", "outcome", "retraction")
"""Kinds of events that make a trajectory worth deciding again."""
RESOLVED = ("full", "judged")
PEOPLE, MAJORITY = "human/", "majority"
"""How the policies of people begin, and the critic that is all of them."""
_ID = re.compile(r"^(\w+)@1(?:\((.*)\))?$")


@dataclass(frozen=True)
class MaskRule:
    """A rule and its parameters.

    `critic` is the policy whose verdicts count; `mask` the labels that get weight 0; `resolved` whether resolved
    trajectories are learnt from in `full` or `judged` like the others; `seed` belongs to `random`. For `human` the critic is
    an annotator, `human/NAME`, or `majority`, the label that most annotators give a step. Raises UnknownName.
    """

    name: str = "srft"
    critic: str = "rules@1"
    mask: tuple[str, ...] = ("mistake",)
    resolved: str = "full"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise UnknownName("mask rule", self.name, RULES, "Name one of these in the recipe.")
        if self.resolved not in RESOLVED:
            raise UnknownName("treatment of resolved trajectories", self.resolved, RESOLVED, "Choose one of these.")
        if set(self.critic) & set(",()="):
            raise UsageError(f"critic {self.critic!r} has one of `,()=`; name it without, as it becomes part of an id.")
        if self.name == "human" and self.critic != MAJORITY and not self.critic.startswith(PEOPLE):
            raise UsageError(f"critic {self.critic!r} is nobody; allowed: {PEOPLE}NAME, {MAJORITY}. Name one of these.")
        for label in self.mask:
            if label not in LABELS:
                raise UnknownName("label to mask", label, LABELS, "Choose among these.")
        object.__setattr__(self, "mask", tuple(label for label in LABELS if label in self.mask))

    @property
    def id(self) -> str:
        """Canonical identity with every parameter that matters; the `mask_rule` and policy of its events."""
        if self.name in ("all", "student"):
            return f"{self.name}@1"
        parameters = f"critic={self.critic},mask={'+'.join(self.mask)},resolved={self.resolved}"
        return f"{self.name}@1({parameters}{f',seed={self.seed}' if self.name == 'random' else ''})"

    @classmethod
    def parse(cls, text: str) -> MaskRule:
        """The rule of an id; raises UsageError when the text is not one."""
        found = _ID.match(text)
        pairs = dict(p.partition("=")[::2] for p in (found[2] or "").split(",") if p) if found else {}
        if found is None or not pairs.keys() <= {"critic", "mask", "resolved", "seed"}:
            raise UsageError(f"mask rule {text!r} is none; write it like {cls().id!r} or 'all@1'.")
        values: dict[str, Any] = dict(pairs)
        if "mask" in values:
            values["mask"] = tuple(v for v in values["mask"].split("+") if v)
        if "seed" in values:
            values["seed"] = int(values["seed"])
        return cls(found[1], **values)

    def __str__(self) -> str:
        return self.id


def rule_of(mask: Mask) -> MaskRule:
    """The rule a recipe asks for."""
    return MaskRule(mask.rule, mask.critic, tuple(mask.labels), mask.resolved)


@dataclass(frozen=True)
class Decision:
    """The weight of one step, why, the events it rests on (never empty) and the one it answers."""

    weight: float
    reason: str
    evidence: tuple[str, ...]
    cause: str


@dataclass(frozen=True)
class Stream:
    """What a rule sees of a trajectory: action ids by step, verdicts of its critic, the last grading, and who acted."""

    trajectory_id: str
    actions: dict[int, str]
    verdicts: dict[int, tuple[tuple[str, ...], str | None]]
    outcome: tuple[str, bool] | None
    turns: dict[int, tuple[str, str]] = field(default_factory=dict)


Decisions = dict[int, Decision]


def _srft(stream: Stream, rule: MaskRule) -> Decisions:
    """Resolved: everything counts. Else a step whose label is in the mask, or unreadable, or missing, does not."""
    if rule.resolved == "full" and stream.outcome is not None and stream.outcome[1]:
        evidence = stream.outcome[0]
        return {step: Decision(1.0, "resolved", (evidence,), evidence) for step in stream.actions}
    if not stream.verdicts:
        return {}
    decisions = {}
    for step, action in stream.actions.items():
        verdicts, label = stream.verdicts.get(step, ((action,), None))
        if label is None:
            unclear = "tie" if len(verdicts) > 1 else "unparseable"
            decisions[step] = Decision(0.0, unclear if step in stream.verdicts else "unjudged", verdicts, verdicts[0])
        else:
            reason = "human_label" if rule.name == "human" else "critic_label"
            decisions[step] = Decision(0.0 if label in rule.mask else 1.0, reason, verdicts, verdicts[0])
    return decisions


def _random(stream: Stream, rule: MaskRule) -> Decisions:
    """As many steps masked as `srft` masks in this trajectory, chosen by a hash of seed, trajectory and step."""
    like = _srft(stream, rule)
    masked = [d for d in like.values() if d.weight == 0]
    evidence = tuple(sorted({e for d in masked or like.values() for e in d.evidence}))
    ranked = sorted(like, key=lambda step: digest("random mask", rule.seed, stream.trajectory_id, step))
    chosen = set(ranked[: len(masked)])
    return {step: Decision(float(step not in chosen), "random", evidence, like[step].cause) for step in like}


def _all(stream: Stream, rule: MaskRule) -> Decisions:
    """Every step counts."""
    return {step: Decision(1.0, "all", (action,), action) for step, action in stream.actions.items()}


def _student(stream: Stream, rule: MaskRule) -> Decisions:
    """The teacher's turns count, the student's do not (OEC, METHODS.md 4); who acted must be known of every turn."""
    if not stream.turns.keys() >= stream.actions.keys():
        return {}
    decisions = {}
    for step in stream.actions:
        event, chosen = stream.turns[step]
        reason = "student_turn" if chosen == "agent" else "teacher_turn"
        decisions[step] = Decision(float(chosen == "teacher"), reason, (event,), event)
    return decisions


RULES: dict[str, Callable[[Stream, MaskRule], Decisions]] = {
    "srft": _srft,
    "random": _random,
    "all": _all,
    "student": _student,
    "human": _srft,
}


@dataclass(frozen=True)
class Report:
    """What masking did: trajectories decided, masks written and superseded, version of `events` decided from."""

    rule: str
    n_trajectories: int
    n_masks: int
    n_superseded: int
    events_version: int | None

    def counts(self) -> dict[str, int]:
        """The figures by name."""
        return {"trajectories": self.n_trajectories, "masks": self.n_masks, "superseded": self.n_superseded}


def decide(events: pa.Table, rule: MaskRule) -> list[Event]:
    """Events of whole trajectories, in any order (columns COLUMNS) -> one mask a step, by trajectory and step.

    A trajectory the rule cannot decide (no grading and no verdict of its critic) gets no masks.
    """
    return [mask for rows in _streams(events) for mask in _masks(rows, rule)]


def mask_new(lake: Lake, rule: MaskRule, size: int = 500) -> Report:
    """Decide the trajectories that changed since this rule last ran; masks of an earlier state are superseded."""
    done = EventLog(lake).derive(rule.id, "mask", KINDS, COLUMNS, lambda rows: _new(rows, rule), size)
    return Report(rule.id, done.n_trajectories, done.n_new, done.n_superseded, done.events_version)


def masks_hash(lake: Lake, rule: MaskRule, corpora: Sequence[str]) -> str:
    """Digest of the masks of a rule that hold in these corpora: their data version."""
    columns = ["event_id", "trajectory_id", "kind", "policy", "retraction"]
    rows = live(EventLog(lake).read(corpora=corpora, kinds=["mask", "retraction"], columns=columns))
    mine = pc.and_(pc.equal(rows.column("kind"), "mask"), pc.equal(rows.column("policy"), rule.id))
    return digest(sorted(rows.filter(mine).column("event_id").to_pylist()))


def _new(events: pa.Table, rule: MaskRule) -> tuple[list[Event], list[Event]]:
    """Masks that are not in these rows yet, and retractions of those that no longer hold."""
    masks, stale = [], []
    for rows in _streams(events):
        decided = {e.event_id: e for e in holding_again(_masks(rows, rule), taken_back(rows, rule.id))}
        at = {e.step: e.event_id for e in decided.values()}
        gone = _gone(rows)
        known = [r for r in rows if r["kind"] == "mask" and r["policy"] == rule.id]
        masks += [e for i, e in decided.items() if i not in {r["event_id"] for r in known}]
        for old in known:
            if old["event_id"] not in decided and old["event_id"] not in gone:
                new = at.get(old["step"])
                payload = {"target_event": old["event_id"], "action": "supersede", "replacement": new}
                payload |= {"reason": "verdicts or outcome changed and the rule decided again"}
                where = (old["trajectory_id"], old["corpus"], "system", payload, old["step"], rule.id)
                stale.append(Event("retraction", *where, caused_by=new))
    return masks, stale


def _streams(events: pa.Table) -> Iterator[list[dict[str, Any]]]:
    kinds = pa.array(["turn", "action", "verdict", "outcome", "mask", "retraction"])
    rows = in_order(events.select(COLUMNS).filter(pc.is_in(events.column("kind"), kinds))).to_pylist()
    for _, group in groupby(rows, key=lambda row: str(row["trajectory_id"])):
        yield list(group)


def _gone(rows: Sequence[dict[str, Any]]) -> set[str | None]:
    """Ids retracted; None among them when the whole trajectory is taken down."""
    return {r["retraction"]["target_event"] for r in rows if r["kind"] == "retraction"}


def _masks(rows: Sequence[dict[str, Any]], rule: MaskRule) -> Iterator[Event]:
    gone = _gone(rows)
    if None in gone:
        return
    live = [r for r in rows if r["event_id"] not in gone and r["kind"] in ("turn", "action", "verdict", "outcome")]
    actions = {r["step"]: r["event_id"] for r in live if r["kind"] == "action" and r["step"] is not None}
    said: dict[int, dict[str, tuple[str, str | None]]] = {}
    for r in sorted(live, key=lambda r: ((r["verdict"] or {}).get("candidate") or 0, r["event_id"]), reverse=True):
        verdict = r["verdict"]
        if verdict and _believed(rule, r["policy"] or "") and verdict["scope"] == "step" and r["step"] in actions:
            readable = verdict["label"] in LABELS and verdict["parse_status"] != "unparseable"
            label = verdict["label"] if readable else None
            said.setdefault(r["step"], {})[r["policy"]] = (r["event_id"], label)
    verdicts = {step: _most(votes) for step, votes in said.items()}
    graded = [r for r in live if r["outcome"] and (r["outcome"]["subject"] or "trajectory") == "trajectory"]
    last = max(graded, key=lambda r: (r["outcome"]["rerun"] or 0, r["recorded_at"], r["event_id"])) if graded else None
    outcome = None if last is None else (last["event_id"], bool(last["outcome"]["resolved"]))
    turns = {r["step"]: (r["event_id"], r["turn"]["chosen"]) for r in live if r["kind"] == "turn"}
    stream = Stream(rows[0]["trajectory_id"], actions, verdicts, outcome, turns)
    judged = {s: (ids[0] if len(ids) == 1 else ids, label) for s, (ids, label) in verdicts.items()}
    inputs = digest(sorted(actions.items()), sorted(judged.items()), outcome)
    for step, d in sorted(RULES[rule.name](stream, rule).items()):
        payload = {"mask_rule": rule.id, "weight": d.weight, "reason": d.reason, "evidence": list(d.evidence)}
        where = (stream.trajectory_id, rows[0]["corpus"], "system", payload, step, rule.id)
        yield Event("mask", *where, caused_by=d.cause, discriminator="" if rule.name in ("all", "student") else inputs)


def _believed(rule: MaskRule, policy: str) -> bool:
    return policy.startswith(PEOPLE) if rule.critic == MAJORITY and rule.name == "human" else policy == rule.critic


def _most(votes: dict[str, tuple[str, str | None]]) -> tuple[tuple[str, ...], str | None]:
    """The verdicts on a step, one a critic, and the label that more of them give than any other; None where none is."""
    counted = Counter(label for _, label in votes.values()).most_common(2)
    alone = len(counted) == 1 or counted[0][1] > counted[1][1]
    return tuple(event for _, (event, _) in sorted(votes.items())), counted[0][0] if alone else None
