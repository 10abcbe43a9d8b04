"""What steering did, from the log: each arm with its figures, and every arm against the unsteered one on the same tasks.

Belongs here: METHODS.md K20 (did what the critic said matter, or that it said something) and K21 (did a replayed prefix see
what it saw before). Does not belong here: running the arms (`rollout`). An arm is the corpus CORPUS/ARM.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from schemas.kinds import UNFINISHED
from stepwell.bootstrap import Figure, figures, ratio
from stepwell.errors import UsageError
from stepwell.evaluation.attempts import STUCK, longest_repeat
from stepwell.evaluation.intervals import mcnemar, minimum_detectable, wilson
from stepwell.gradings import WHOLE, results
from stepwell.lake import Lake
from stepwell.log import EventLog, live

BASE = "off"
_COLUMNS = (
    "event_id", "trajectory_id", "corpus", "kind", "step", "policy", "recorded_at", "start", "action", "verdict",
    "feedback", "end", "outcome", "usage", "extra", "retraction",
)  # fmt: skip
_KINDS = ("start", "action", "verdict", "feedback", "end", "outcome", "retraction")


@dataclass
class Run:
    """One finished rollout; `critiques` are those that feedback names, shown or not."""

    arm: str
    task_id: str = ""
    attempt: int = 0
    resolved: bool = False
    exit_status: str = ""
    commands: list[str] = field(default_factory=list)
    critiques: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    modes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unparseable: int = 0
    agent_usd: float = 0.0
    critic_usd: float = 0.0
    critic_tokens: int = 0
    same: list[bool] = field(default_factory=list)

    @property
    def stuck(self) -> bool:
        """Whether the same command came three times in a row."""
        return longest_repeat(self.commands) >= STUCK


@dataclass(frozen=True)
class ArmReport:
    """Figures of an arm; those against the base are None for the base itself and without shared tasks.

    `resolved` with its Wilson interval, or that of the bootstrap over tasks where any was attempted more than once;
    `difference` to the base in share resolved, by the bootstrap over tasks. First attempts alone give the exact McNemar
    `p_value` and the smallest difference that so many tasks could have shown.
    `critiques` and what critics cost are of those at the wheel: verdicts made afterwards do not count.
    `compliance`: of the categories a critique named, the share the next one no longer named. `replay_same`: share of
    replayed steps answered as before; `first_divergence` the mean step of the first that was not.
    """

    arm: str
    n: int
    resolved: Figure
    submitted: float
    steps: Figure
    stuck: Figure
    critiques: int
    modes: dict[str, int]
    unparseable: int
    compliance: Figure
    agent_usd: float
    critic_usd: float
    critic_tokens: int
    replay_same: float | None
    first_divergence: float | None
    difference: Figure | None = None
    p_value: float | None = None
    detectable: float | None = None

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def steering_report(lake: Lake, corpus: str) -> list[ArmReport]:
    """Every arm of a steered corpus, the base first; raises UsageError when there is none."""
    runs = _runs(lake, corpus)
    arms = sorted({r.arm for r in runs}, key=lambda a: (a != BASE, a))
    if not arms:
        raise UsageError(f"no finished rollout in {corpus}/...; run: stepwell steer RECIPE")
    base = {(r.task_id, r.attempt): r for r in runs if r.arm == BASE}
    return [_arm(arm, [r for r in runs if r.arm == arm], {} if arm == BASE else base) for arm in arms]


def _runs(lake: Lake, corpus: str) -> list[Run]:
    log = EventLog(lake)
    names = {
        n for n in lake.read("events", columns=["corpus"]).column(0).unique().to_pylist() if n.startswith(f"{corpus}/")
    }
    rows = live(log.read(corpora=sorted(names), kinds=list(_KINDS), columns=list(_COLUMNS))).to_pylist()
    told = [row for row in rows if row["kind"] == "feedback"]
    # A review leaves feedback at its step whether or not there was anything to say; verdicts without it were made afterwards.
    wheel, named = {_place(row) for row in told}, {row["feedback"]["verdict_id"] for row in told}
    runs: dict[str, Run] = {}
    for row in rows:
        run = runs.setdefault(row["trajectory_id"], Run(row["corpus"].removeprefix(f"{corpus}/")))
        if row["kind"] != "verdict":
            _take(run, row)
        elif _place(row) in wheel:
            _judged(run, row, row["event_id"] in named)
    for (stream, about), resolved in results(rows).items():
        if about == WHOLE:
            runs[stream].resolved = bool(resolved)
    return [r for r in runs.values() if r.exit_status and r.exit_status not in UNFINISHED]


def _place(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["trajectory_id"], row["step"], row["policy"]


def _judged(run: Run, row: Mapping[str, Any], named: bool) -> None:
    """Take what a critic at the wheel said: one of its candidates, or the one that feedback names."""
    usage, said = row["usage"] or {}, row["verdict"]
    run.critic_usd += usage.get("cost_usd") or 0.0
    run.critic_tokens += sum(usage.get(n) or 0 for n in ("tokens_in", "tokens_out"))
    run.unparseable += said["parse_status"] == "unparseable"
    if named:
        run.critiques.append((row["step"], frozenset(d["category"] for d in said["detections"] or () if d["category"])))


def _take(run: Run, row: Mapping[str, Any]) -> None:
    kind, payload = row["kind"], row[row["kind"]]
    if kind == "start":
        run.task_id, run.attempt = payload["task_id"], payload["attempt"] or 0
    elif kind == "action":
        run.commands.append(payload["command"] or "")
        run.agent_usd += (row["usage"] or {}).get("cost_usd") or 0.0
    elif kind == "feedback":
        run.modes[payload["mode"]] += 1
    elif kind == "end":
        run.exit_status = payload["exit_status"] or ""
        run.same = json.loads(row["extra"] or "{}").get("replayed_same", [])


def _arm(arm: str, runs: Sequence[Run], base: Mapping[tuple[str, int], Run]) -> ArmReport:
    tasks = sorted({r.task_id for r in runs})
    place = {task: i for i, task in enumerate(tasks)}
    names = ("n", "resolved", "steps", "stuck", "named", "gone", "pairs", "better")
    sums = {name: np.zeros(len(tasks)) for name in names}
    firsts = only_base = only_arm = 0
    for r in runs:
        i = place[r.task_id]
        named, gone = _followed(r)
        values = (1, r.resolved, len(r.commands), r.stuck, named, gone)
        for name, value in zip(names, values, strict=False):
            sums[name][i] += value
        other = base.get((r.task_id, r.attempt))
        if other is not None:
            sums["pairs"][i] += 1
            sums["better"][i] += int(r.resolved) - int(other.resolved)
            firsts += r.attempt == 0
            only_arm += r.attempt == 0 and r.resolved and not other.resolved
            only_base += r.attempt == 0 and other.resolved and not r.resolved
    found = figures(
        sums,
        {
            "resolved": lambda s: ratio(s["resolved"], s["n"]),
            "steps": lambda s: ratio(s["steps"], s["n"]),
            "stuck": lambda s: ratio(s["stuck"], s["n"]),
            "compliance": lambda s: ratio(s["gone"], s["named"]),
            "difference": lambda s: ratio(s["better"], s["pairs"]),
        },
    )
    resolved = sum(r.resolved for r in runs)
    same = [s for r in runs for s in r.same]
    diverged = [r.same.index(False) for r in runs if False in r.same]
    modes: dict[str, int] = defaultdict(int)
    for r in runs:
        for mode, count in r.modes.items():
            modes[mode] += count
    return ArmReport(
        arm=arm,
        n=len(runs),
        resolved=(
            Figure(resolved / len(runs), *wilson(resolved, len(runs)), len(runs))
            if len(runs) == len(tasks)
            else found["resolved"]
        ),
        submitted=sum(r.exit_status == "submitted" for r in runs) / len(runs),
        steps=found["steps"],
        stuck=found["stuck"],
        critiques=sum(len(r.critiques) for r in runs),
        modes=dict(modes),
        unparseable=sum(r.unparseable for r in runs),
        compliance=found["compliance"],
        agent_usd=sum(r.agent_usd for r in runs),
        critic_usd=sum(r.critic_usd for r in runs),
        critic_tokens=sum(r.critic_tokens for r in runs),
        replay_same=sum(same) / len(same) if same else None,
        first_divergence=float(np.mean(diverged)) if diverged else None,
        difference=found["difference"] if sums["pairs"].any() else None,
        p_value=mcnemar(only_base, only_arm) if firsts else None,
        detectable=minimum_detectable((only_base + only_arm) / firsts, firsts) if firsts else None,
    )


def _followed(run: Run) -> tuple[int, int]:
    """Categories named by a critique that another follows, and how many of them the next one no longer names."""
    named = gone = 0
    for (_, now), (_, following) in zip(run.critiques, run.critiques[1:], strict=False):
        named += len(now)
        gone += len(now - following)
    return named, gone
