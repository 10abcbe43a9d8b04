"""Ensembles: what most of several samples of a critic, or of several critics, say; and how much that buys.

Belongs here: votes, verdict events of the majority, the curve of quality over the number of members. Does not belong
here: sampling the members. A majority is a critic like others: masks and audits name its policy. Nothing is decided by
chance or order: a tie is a result of its own, a verdict that is read and has no label (CTRL, 2.3: judgment > n/2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.kinds import LABELS
from stepwell.critics.audit.members import Point, curve
from stepwell.critics.audit.ratings import attempts, outcomes, ratings, verdicts
from stepwell.critics.run import superseding
from stepwell.critics.turns import retracted, superseded
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog, holding_again

COLUMNS = (
    "event_id", "corpus", "trajectory_id", "step", "kind", "policy", "caused_by", "verdict", "retraction",
)  # fmt: skip
"""Columns of `events` that `majority` reads."""
_KINDS = ("verdict", "retraction")
_PLACE = ("scope", "window_from", "window_to")
_VOTED = ("label", "severity", "judgment", "detections", "guidance")
_LEAST = 2
Unit = tuple[str, int | str | None]


@dataclass(frozen=True)
class Ensemble:
    """Which verdicts vote: the first `n` samples (candidates) of every critic. Raises UsageError for fewer than two votes.

    `id` is the policy of its verdicts.
    """

    critics: tuple[str, ...]
    n: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "critics", tuple(dict.fromkeys(self.critics)))
        if self.n < 1 or self.n * len(self.critics) < _LEAST:
            raise UsageError(
                f"an ensemble of {self.n} samples of {', '.join(self.critics) or 'no critic'} has fewer than two votes; "
                "name several critics, or one that was sampled several times."
            )
        if any("+" in critic for critic in self.critics):
            raise UsageError(f"critics {', '.join(self.critics)}: `+` joins the members of an ensemble; name others.")

    @property
    def id(self) -> str:
        """`majority-VOTES/CRITIC+CRITIC`, with none of the characters a mask rule cannot name."""
        return f"majority-{self.n * len(self.critics)}/{'+'.join(self.critics)}"


@dataclass(frozen=True)
class Report:
    """What voting did: verdicts written and superseded, and how many of those written are ties or rest on no vote."""

    policy: str
    n_trajectories: int
    n_verdicts: int
    n_ties: int
    n_unparseable: int
    n_superseded: int
    events_version: int | None


def majority(events: pa.Table, ensemble: Ensemble) -> list[Event]:
    """Events of whole trajectories (columns COLUMNS) -> one verdict for everything at least two members judged.

    Label, severity and judgment are each voted on by the members that state them; the most votes win, a draw for the most
    is a tie and null. `confidence` is the winner's share of the votes, or that of `correct` for a judgment. A category is
    detected when more than half of the readable members do, and names them. Guidance is that of one agreeing member, by
    a hash. `extra` names all members and the votes; where no member is readable, neither is the majority.
    """
    return list(_verdicts(_members(events, ensemble), ensemble))


def judge_new(lake: Lake, ensemble: Ensemble, size: int = 500) -> Report:
    """Vote on the trajectories whose verdicts changed since this ensemble last ran; stale majorities are superseded."""
    written: list[Event] = []

    def new(rows: pa.Table) -> tuple[list[Event], list[Event]]:
        fresh, stale = _new(rows, ensemble)
        written.extend(fresh)
        return fresh, stale

    done = EventLog(lake).derive(ensemble.id, "majority", _KINDS, COLUMNS, new, size)
    ties = sum(orjson.loads(e.extra or "{}")["tie"] for e in written)
    unread = sum(e.payload["parse_status"] == "unparseable" for e in written)
    streams = len({e.trajectory_id for e in written})
    return Report(ensemble.id, streams, done.n_new, ties, unread, done.n_superseded, done.events_version)


def label_curve(events: pa.Table, ensemble: Ensemble, truth: str, draws: int = 1000, seed: int = 0) -> list[Point]:
    """Quality of step labels over the number of members, on steps that `truth` labels; `events` as for an audit."""
    true = ratings(verdicts(events), [truth]).filter(pl.col("class") < len(LABELS))
    labels = dict(zip(zip(true["trajectory_id"], true["first"], strict=True), true["class"], strict=True))
    votes = _ballots(events, ensemble, "label", {label: i for i, label in enumerate(LABELS)})
    return _curve(votes, labels, len(LABELS), draws, seed)


def judgment_curve(events: pa.Table, ensemble: Ensemble, draws: int = 1000, seed: int = 0) -> list[Point]:
    """Maj@k: quality of judgments (correct, incorrect) against outcomes over the number of members."""
    answered = attempts(events)
    cause = dict(zip(answered["subject"], answered["caused_by"], strict=True))
    graded = outcomes(events)
    resolved = {
        (stream, cause.get(subject)): int(not ok)
        for stream, subject, ok in graded.iter_rows()
        if subject == "trajectory" or subject in cause
    }
    return _curve(_ballots(events, ensemble, "judgment", {True: 0, False: 1}), resolved, 2, draws, seed)


def curves(events: pa.Table, critic: str, truth: str, draws: int = 1000, seed: int = 0) -> dict[str, list[Point]]:
    """The curves over the samples of one critic: of its labels, and Maj@k of its judgments; those it has data for."""
    samples = verdicts(events).filter(pl.col("policy") == critic)["candidate"].max()
    if not isinstance(samples, int) or samples < 1:
        return {}
    ensemble = Ensemble((critic,), samples + 1)
    found = {
        "labels": label_curve(events, ensemble, truth, draws, seed),
        "judgments": judgment_curve(events, ensemble, draws, seed),
    }
    return {name: points for name, points in found.items() if points}


def _curve(votes: dict[Unit, list[int]], truth: dict[Unit, int], n_classes: int, draws: int, seed: int) -> list[Point]:
    units = sorted((u for u in votes if u in truth), key=str)
    if not units:
        return []
    _, groups = np.unique([u[0] for u in units], return_inverse=True)
    table = np.array([votes[u] for u in units], np.int64)
    return curve(table, np.array([truth[u] for u in units], np.int64), groups, n_classes, draws=draws, seed=seed)


def _ballots(events: pa.Table, ensemble: Ensemble, what: str, classes: Mapping[Any, int]) -> dict[Unit, list[int]]:
    """The votes of every seat on every step, trajectory or attempt judged; -1 where a seat gave none, none if nobody did."""
    cells: dict[Unit, list[int]] = {}
    for members in _members(events, ensemble):
        for m in members:
            place = {"step": m["step"], "trajectory": None, "attempt": m["caused_by"]}
            if m["scope"] in place:
                row = cells.setdefault((m["trajectory_id"], place[m["scope"]]), [-1] * _seats(ensemble))
                row[m["seat"]] = classes.get(m[what], -1)
    return cells if any(vote >= 0 for row in cells.values() for vote in row) else {}


def _seats(ensemble: Ensemble) -> int:
    return ensemble.n * len(ensemble.critics)


def _members(events: pa.Table, ensemble: Ensemble) -> Iterator[list[dict[str, Any]]]:
    """The verdicts that vote on one thing, by seat; things in order."""
    gone, down = retracted(events)
    of_critic = pc.is_in(events.column("policy"), pa.array(ensemble.critics))
    rows = events.filter(pc.and_(pc.equal(events.column("kind"), "verdict"), of_critic)).sort_by("event_id")
    things: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = {}
    for row in rows.to_pylist():
        verdict = row.pop("verdict")
        candidate = verdict["candidate"] or 0
        if row["event_id"] in gone or row["trajectory_id"] in down or not 0 <= candidate < ensemble.n:
            continue
        if verdict["scope"] == "pair":
            continue  # of two attempts, and counted by order: `evaluation.pairwise`
        seat = ensemble.critics.index(row["policy"]) * ensemble.n + candidate
        readable = verdict if verdict["parse_status"] != "unparseable" else verdict | dict.fromkeys(_VOTED)
        answered = row["caused_by"] if verdict["scope"] == "attempt" else None
        key = (row["trajectory_id"], row["step"], *(verdict[p] for p in _PLACE), answered)
        things.setdefault(key, {}).setdefault(seat, row | readable | {"seat": seat})
    for key in sorted(
        things, key=lambda k: tuple((v is not None, v or 0 if isinstance(v, int) else str(v)) for v in k)
    ):
        yield [things[key][seat] for seat in sorted(things[key])]


def _verdicts(things: Iterator[list[dict[str, Any]]], ensemble: Ensemble) -> Iterator[Event]:
    for members in things:
        if len(members) < _LEAST:
            continue
        first = members[0]
        said = {what: [m[what] for m in members if m[what] is not None] for what in ("label", "severity", "judgment")}
        won = {what: _winner(votes) for what, votes in said.items()}
        readable = [m for m in members if m["parse_status"] != "unparseable"]
        decided = next((what for what in ("label", "judgment", "severity") if said[what]), None)
        winner = won[decided] if decided else None
        share = True if decided == "judgment" else winner
        ids = [m["event_id"] for m in members]
        agreeing = [m for m in readable if decided and m[decided] == winner and m["guidance"]]
        spokes = min(agreeing, key=lambda m: digest(ensemble.id, m["event_id"]), default=None)
        payload = {
            **{p: first[p] for p in _PLACE},
            **won,
            "detections": _detected(readable) if any(m["detections"] is not None for m in readable) else None,
            "guidance": spokes["guidance"] if spokes else None,
            "confidence": said[decided].count(share) / len(said[decided]) if decided and share is not None else None,
            "parse_status": "ok" if readable else "unparseable",
            "taxonomy_id": first["taxonomy_id"] if len({m["taxonomy_id"] for m in members}) == 1 else None,
        }
        votes = {what: [m[what] for m in members] for what in said if said[what]}
        tie = bool(decided) and winner is None
        yield Event(
            "verdict", first["trajectory_id"], first["corpus"], "critic", payload, first["step"], ensemble.id,
            caused_by=first["caused_by"],
            extra=orjson.dumps({"members": ids, "votes": votes, "tie": tie}).decode(),
            discriminator=digest(*ids),
        )  # fmt: skip


def _winner(votes: Sequence[Any]) -> Any:
    """What most votes are for; None for a tie or without a vote."""
    ranked = Counter(votes).most_common(2)
    alone = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][1] > ranked[1][1])
    return ranked[0][0] if alone else None


def _detected(readable: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for m in readable:
        for d in {d["category"]: d for d in m["detections"] or [] if d["category"]}.values():
            found.setdefault(d["category"], []).append(d | {"by": m["event_id"]})
    return [
        {
            "category": category,
            "evidence": f"{len(by)} of {len(readable)} members: {', '.join(d['by'] for d in by)}",
            "recovery": by[0]["recovery"],
        }
        for category, by in sorted(found.items())
        if 2 * len(by) > len(readable)
    ]


def _new(rows: pa.Table, ensemble: Ensemble) -> tuple[list[Event], list[Event]]:
    """Majorities that are not in these rows yet, and retractions of those that no longer hold."""
    voted = {e.event_id: e for e in holding_again(majority(rows, ensemble), superseded(rows, ensemble.id))}
    gone, down = retracted(rows)
    own = rows.filter(pc.and_(pc.equal(rows.column("kind"), "verdict"), pc.equal(rows.column("policy"), ensemble.id)))
    known = own.select(["event_id", "trajectory_id", "corpus", "step", "caused_by"]).to_pylist()
    at = {(e.trajectory_id, e.step, e.caused_by): e.event_id for e in voted.values()}
    stale = []
    for old in known:
        if old["event_id"] not in voted and old["event_id"] not in gone and old["trajectory_id"] not in down:
            stale.append(superseding(old, ensemble.id, at.get((old["trajectory_id"], old["step"], old["caused_by"]))))
    before = {r["event_id"] for r in known}
    return [e for i, e in voted.items() if i not in before], stale
