"""Groups of critiques played for their rewards while a critic is trained (CTRL stage II, METHODS.md 2.2).

Belongs here: one solution and the critiques of it as a tree of the log, and what each critique earned. Does not belong here:
sampling critiques (`jobs`), the tree itself (`revising`), advantages (they follow from the rewards of a group).

A group is the tree that an arm with `answer: each` makes, over a solution that is there already: every critique is answered
once, greedily, and tested. What was played before a run died is read from the log, not played again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stepwell.batching import Crowd
from stepwell.chat import Message
from stepwell.errors import StepwellError
from stepwell.ids import canonical, digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.drafts import Drafts, Known
from stepwell.rollout.families import Function
from stepwell.rollout.policies import Policy
from stepwell.rollout.problems import Problem
from stepwell.rollout.reviewers import Reviewer
from stepwell.rollout.revising import Arm, turn_key
from stepwell.rollout.revision import NOT_IDENTITY, Maker, Planned, Trees, generator_of
from stepwell.rollout.rewards import Results, place
from stepwell.rollout.solving import block, first_prompt
from stepwell.settings import Grpo, Problems, Revision, RevisionArm

ARM = "group"


@dataclass(frozen=True)
class Group:
    """One solution, by the event that recorded it first, and critiques of it; `row` numbers it among those trained on."""

    row: int
    problem: Problem
    attempt: str
    code: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Earned:
    """What a critique earned: its reward, whether its judgment was readable, whether the revision passes every test."""

    reward: float
    format_ok: bool
    passed: bool


class Groups:
    """Plays groups of one training run into its corpus; `make` makes the frozen generator.

    `run` names the run (recipe, dataset and seed): another one plays the same critiques anew.
    """

    def __init__(
        self, lake: Lake, settings: Grpo, corpus: str, run: str, problems: Problems, functions: Mapping[str, Function],
        make: Maker,
    ) -> None:  # fmt: skip
        self.lake, self.settings, self.run, self.functions, self.make = lake, settings, run, functions, make
        arm = RevisionArm(name=ARM, critic="model", critiques=settings.group, answer="each")
        self.revision = Revision(
            corpus=corpus, problems=problems, generator=settings.generator, samples=1, rounds=1, arms=(arm,),
            rule=settings.rule, sandboxes=settings.sandboxes,
        )  # fmt: skip
        self.config = canonical(
            settings.model_dump(mode="json", exclude={"generator": NOT_IDENTITY, "sandboxes": True, "engine": True})
        ).decode()
        self.n_failed = 0

    def play(
        self, step: int, groups: Sequence[Group], reviewer: Callable[[Mapping[str, Group]], Reviewer]
    ) -> list[list[Earned | None]]:
        """What each critique earned, group by group; None where a model or a sandbox was not there to tell.

        `reviewer` says the critiques of groups, by trajectory. Raises StepwellError when none of a step could be rewarded.
        """
        (arm,) = self.revision.arms
        planned = []
        for group in groups:
            identity = digest("group", self.run, self.config, step, group.row, list(group.texts))
            start = {"run_id": self.run, "config": self.config, "iteration": step}
            planned.append(Planned(identity, group.problem, group.row, arm, start))
        with (
            self.lake.alone(f"rollout-{self.revision.corpus}", f"playing {self.revision.corpus}"),
            Results(place(self.lake)) as results,
        ):
            trees = _Played(self, results, dict(zip((p.identity for p in planned), groups, strict=True)), reviewer)
            asyncio.run(trees.run(planned))
        if trees.report.stopped:
            raise StepwellError(f"step {step} is not rewarded: {trees.report.stopped}. Run the job again to go on.")
        streams = trees.report.trajectories
        events = EventLog(self.lake).read(
            corpora=[self.revision.corpus], trajectory_ids=streams, kinds=["verdict", "outcome", "reward"]
        )
        found = [
            _earned([r for r in events.to_pylist() if r["trajectory_id"] == s], len(g.texts))
            for s, g in zip(streams, groups, strict=True)
        ]
        self.n_failed += sum(one is None for group in found for one in group)
        if all(one is None for group in found for one in group):
            raise StepwellError(
                f"no critique of step {step} could be rewarded: generator or sandbox failed. The ends of its trajectories in "
                f"{self.revision.corpus} say why. Put it right and run the job again."
            )
        return found


def _earned(rows: Sequence[Mapping[str, Any]], n: int) -> list[Earned | None]:
    """Events of a group -> what each candidate earned."""
    candidates = {r["event_id"]: r["verdict"]["candidate"] for r in rows if r["kind"] == "verdict"}
    passed = {r["outcome"]["subject"]: r["outcome"]["resolved"] for r in rows if r["kind"] == "outcome"}
    found: list[Earned | None] = [None] * n
    for row in rows:
        if row["kind"] == "reward":
            told = row["reward"]
            found[candidates[told["critique_id"]]] = Earned(
                told["reward"], told["format_ok"], passed[told["attempt_id"]]
            )
    return found


class _Played(Trees):
    """Trees whose first solutions are those of the groups, and whose critic says what it is given."""

    def __init__(
        self, groups: Groups, results: Results, by_identity: Mapping[str, Group],
        reviewer: Callable[[Mapping[str, Group]], Reviewer],
    ) -> None:  # fmt: skip
        self.groups, self.by_identity = groups, by_identity
        self.by_stream: dict[str, Group] = {}

        def policy(crowd: Crowd, temperature: float) -> Policy:
            return generator_of(groups.settings.generator, groups.functions, groups.make, crowd, temperature)

        def arm_of(arm: RevisionArm, crowd: Crowd) -> Arm:
            return Arm(arm.name, "critic", reviewer(self.by_stream), False, arm.critiques, True)

        super().__init__(
            groups.lake, groups.revision, results, min(len(by_identity), 64), None, None, None, policy, arm_of
        )

    async def _one(self, wanted: Any, stream: str, setting: Any, executor: ThreadPoolExecutor) -> None:
        self.by_stream[stream] = self.by_identity[wanted.identity]
        await super()._one(wanted, stream, setting, executor)

    def _drafts(self, crowd: Crowd, of: str) -> Drafts:
        drafts = Drafts(crowd, of)
        for group in self.by_identity.values():
            messages: list[Message] = first_prompt(group.problem)
            draw = drafts.draw(f"{turn_key(group.problem, self.settings.seed, group.row)}/0", messages)
            drafts.known[draw] = Known(group.attempt, block(group.code), {})
        return drafts
