"""Attempts of evaluations with what the log knows of each: commands that repeat, tokens by who spent them, verdicts.

Belongs here: rows of `evaluations` joined with their trajectories' events. Does not belong here: any figure over them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.kinds import UNFINISHED
from stepwell.lake import Lake
from stepwell.log import EventLog, live

STUCK = 3
"""Identical commands in a row from which on a run counts as stuck (METHODS.md 1.4)."""
_KINDS = ("task", "start", "action", "verdict", "feedback", "retraction")
_COLUMNS = (
    "event_id", "trajectory_id", "step", "kind", "actor", "policy", "usage", "task", "start", "action", "verdict", "feedback",
    "retraction",
)  # fmt: skip
_TOKENS = ("tokens_in", "tokens_out", "cache_read", "cache_write")
_BATCH = 500


@dataclass
class Spent:
    """What one model was asked in one role: calls, those without a token count or a cost, tokens, and the cost recorded
    (None: never).

    `policies` are the price policies the cost was recorded under.
    """

    calls: int = 0
    unmetered: int = 0
    unpriced: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost_usd: float | None = None
    policies: set[str] = field(default_factory=set)

    def add(self, usage: dict[str, Any]) -> None:
        """Count one call."""
        self.calls += 1
        self.unmetered += usage["tokens_in"] is None or usage["tokens_out"] is None
        for name in _TOKENS:
            setattr(self, name, getattr(self, name) + (usage[name] or 0))
        self.unpriced += usage["cost_usd"] is None
        if usage["cost_usd"] is not None:
            self.cost_usd = (self.cost_usd or 0.0) + usage["cost_usd"]
            self.policies.add(usage["price_policy"] or "not said")

    def join(self, other: Spent) -> None:
        """Count the calls of another."""
        for name in ("calls", "unmetered", "unpriced", *_TOKENS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + other.cost_usd
        self.policies |= other.policies


@dataclass
class Told:
    """What the events of one trajectory say beside its outcome.

    `spent` is by (agent or critic, policy); a critic counts as spent on only where it was at the wheel. `said` is what was
    found in its steps by critic: labels and categories; a critic that judged nothing has no entry. `setting` is how it was
    played: scaffold, limits, sampling. `repo` is the task's repository or family.
    """

    commands: list[str] = field(default_factory=list)
    spent: dict[tuple[str, str], Spent] = field(default_factory=lambda: defaultdict(Spent))
    said: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    setting: dict[str, Any] = field(default_factory=dict)
    repo: str = ""

    @property
    def longest_repeat(self) -> int:
        """The most identical consecutive commands; what was not executed interrupts them."""
        return longest_repeat(self.commands)

    def total(self, name: str) -> int:
        """Tokens of one kind, the agent's calls together."""
        return sum(getattr(s, name) for (role, _), s in self.spent.items() if role == "agent")


@dataclass(frozen=True)
class Attempt:
    """One attempt of an evaluation: its row, and what its events tell."""

    evaluation_id: str
    task_id: str
    attempt: int
    resolved: bool
    submitted: bool
    exit_status: str
    n_steps: int
    told: Told

    @property
    def stuck(self) -> bool:
        """Whether the same command came three times in a row."""
        return self.told.longest_repeat >= STUCK


def longest_repeat(commands: Sequence[str]) -> int:
    """The most identical consecutive commands; "" is none."""
    return max((len(list(run)) for command, run in groupby(commands) if command), default=0)


def attempts_of(lake: Lake, evaluation_ids: Sequence[str]) -> tuple[list[Attempt], int]:
    """Attempts of these evaluations by task and number, and how many were left out as their end says nothing of the policy."""
    where = pc.field("evaluation_id").isin(pa.array(list(evaluation_ids), pa.string()))
    rows = lake.read("evaluations", filters=where).to_pylist()
    kept = [r for r in rows if r["exit_status"] not in UNFINISHED]
    told = tell(lake, [r["trajectory_id"] for r in kept])
    names = ("evaluation_id", "task_id", "attempt", "resolved", "submitted", "n_steps")
    found = [
        Attempt(
            **{n: r[n] for n in names}, exit_status=r["exit_status"] or "unknown",
            told=told.get(r["trajectory_id"], Told()),
        )
        for r in kept
    ]  # fmt: skip
    found.sort(key=lambda a: (a.evaluation_id, a.task_id, a.attempt))
    return found, len(rows) - len(kept)


def tell(lake: Lake, trajectory_ids: Sequence[str]) -> dict[str, Told]:
    """What the log says of these trajectories, by id."""
    log, ids = EventLog(lake), sorted(set(trajectory_ids))
    found: dict[str, Told] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found |= of_events(log.read(trajectory_ids=batch, kinds=_KINDS, columns=_COLUMNS))
    return found


def of_events(events: pa.Table) -> dict[str, Told]:
    """Events of whole trajectories in canonical order -> what they tell, by trajectory."""
    payload = pl.col("verdict").struct
    rows = pl.DataFrame(live(events).select(list(_COLUMNS))).select(
        "event_id", "trajectory_id", "step", "kind", "actor", "policy", "usage", "start",
        pl.col("task").struct.field("repo"), pl.col("action").struct.field("command"),
        pl.col("feedback").struct.field("verdict_id"),
        *(payload.field(name) for name in ("scope", "label", "detections")),
    )  # fmt: skip
    found: dict[str, Told] = {}
    for key, stream in rows.group_by("trajectory_id", maintain_order=True):
        found[str(key[0])] = _told(stream.to_dicts())
    return found


def _told(rows: Sequence[dict[str, Any]]) -> Told:
    told = Told()
    heard = {r["verdict_id"] for r in rows if r["kind"] == "feedback"}
    wheel = {(r["step"], r["policy"]) for r in rows if r["kind"] == "feedback" or r["event_id"] in heard}
    for row in rows:
        policy = row["policy"] or "unknown"
        if row["kind"] == "start":
            start = row["start"]
            told.setting |= {k: start[k] for k in ("scaffold", "step_limit", "cost_limit_usd", "context_limit")}
        elif row["kind"] == "task":
            told.repo = row["repo"] or ""
        elif row["kind"] == "action":
            told.commands.append(row["command"] or "")
            _spend(told, "agent", policy, row["usage"])
            sampling = orjson.loads((row["usage"] or {}).get("sampling") or "{}")
            told.setting |= {k: v for k, v in sampling.items() if k != "seed"}
        elif row["kind"] == "verdict" and row["scope"] in ("step", "window"):
            if row["actor"] == "critic" and (row["step"], row["policy"]) in wheel:
                _spend(told, "critic", policy, row["usage"])
            said = told.said[policy]
            said |= {row["label"]} - {None}
            said |= {d["category"] for d in row["detections"] or () if d["category"]}
    return told


def _spend(told: Told, role: str, policy: str, usage: dict[str, Any] | None) -> None:
    """Count a call; what no model was asked for (a scripted policy, a rule) has no usage and costs nothing."""
    if usage is not None and any(usage[n] is not None for n in (*_TOKENS, "cost_usd", "latency_s")):
        told.spent[role, policy].add(usage)
