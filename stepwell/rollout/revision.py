"""Critique-revision loops of a recipe: which trees there are, and playing those that are missing.

Belongs here: problems, identities and arms from settings, many trees in flight. Does not belong here: what happens in a tree
(`revising`); model critics and models in this process, which callers hand in.

A tree is one problem, one initial sample and one arm; its identity is known before it is played, so only what is missing
is played, and unfinished trees of a dead run are ended as aborted and played again, as `collect` does for rollouts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.batching import Crowd
from stepwell.errors import RecipeError
from stepwell.ids import canonical, digest
from stepwell.lake import Lake
from stepwell.rollout import drawn_problems
from stepwell.rollout.collect import Report, Run
from stepwell.rollout.drafts import Drafts, Known
from stepwell.rollout.families import Function
from stepwell.rollout.playing import Closing
from stepwell.rollout.policies import Policy
from stepwell.rollout.policies import Scripted as ScriptedReplies
from stepwell.rollout.problems import Problem, load, unique
from stepwell.rollout.reviewers import Placebo, Reviewer, Scripted
from stepwell.rollout.revising import Arm, Attempts, Loop, Tree
from stepwell.rollout.rewards import Results, place
from stepwell.rollout.runs import policy_of, require_prices
from stepwell.rollout.sandbox import Sandbox
from stepwell.rollout.solutions import Tester
from stepwell.rollout.writer import Writer
from stepwell.settings import Policy as PolicySettings
from stepwell.settings import Problems, Revision, RevisionArm
from stepwell.spending import Purse

Maker = Callable[[PolicySettings, Crowd], Policy]
ReviewerMaker = Callable[[RevisionArm, PolicySettings, Crowd], Reviewer]
NOT_IDENTITY = {"n_tasks", "attempts", "concurrency", "base_url", "key_env", "prices", "world"}
"""Settings of a model that decide nothing about what it says."""


@dataclass(frozen=True)
class Planned:
    """One tree to play."""

    identity: str
    problem: Problem
    sample: int
    arm: RevisionArm
    start: Mapping[str, Any]


@dataclass
class Done:
    """What a run did; `n_run` solutions were tested and `n_known` found in the cache; `left_out` are records of the file
    that are no problems, with the reason."""

    report: Report
    n_run: int = 0
    n_known: int = 0
    left_out: list[str] = field(default_factory=list)


def problems_of(settings: Revision) -> tuple[list[Problem], dict[str, Function], list[str]]:
    """Problems of a recipe, the functions of embedded ones by task id, and records that are no problems."""
    return problems_in(settings.problems)


def problems_in(wanted: Problems) -> tuple[list[Problem], dict[str, Function], list[str]]:
    """The same from the settings of problems alone."""
    if wanted.path is None:
        made = list(drawn_problems.problems(wanted.split, wanted.n, wanted.seed))
        return [p for p, _ in made], {p.task_id: f for p, f in made}, []
    found, wrong = load(wanted.path, wanted.split, wanted.max_tests)
    return list(unique(found))[: wanted.n], {}, wrong


def plan(settings: Revision, problems: Sequence[Problem]) -> list[Planned]:
    """Every tree of a recipe: arms side by side, so that a run that is stopped has them in step."""
    names = [arm.name for arm in settings.arms]
    if len(set(names)) < len(names) or not names:
        raise RecipeError(f"arms of `revision` are named {names}; give each a name of its own.")
    for arm in settings.arms:
        if arm.answer == "each" and settings.rounds > 1:
            raise RecipeError(f"arm {arm.name!r} answers each critique over {settings.rounds} rounds; it has one only.")
    shared: dict[str, Any] = {name: getattr(settings, name) for name in ("rounds", "rule", "reveal", "reruns")}
    shared["generator"] = settings.generator.model_dump(exclude=NOT_IDENTITY)
    trees = []
    for sample in range(settings.samples):
        for problem in problems:
            for arm in settings.arms:
                config = {**shared, **arm.model_dump(exclude={"settings"})}
                if arm.critic in ("model", "self"):
                    config["settings"] = arm.settings.model_dump(exclude=NOT_IDENTITY)
                what = (settings.corpus, settings.seed, problem.task_id, problem.tests_hash, sample, config)
                start = {"run_id": settings.corpus, "config": canonical(config).decode()}
                trees.append(Planned(digest("revision", *what), problem, sample, arm, start))
    return trees


def generator_of(
    generator: PolicySettings, functions: Mapping[str, Function], make: Maker, crowd: Crowd, temperature: float
) -> Policy:
    """A generator at a temperature; raises RecipeError for the scripted one without the functions it knows."""
    if generator.kind not in ("oracle", "noisy"):
        return make(generator.model_copy(update={"temperature": temperature}), crowd)
    if not functions:
        raise RecipeError("the scripted writer knows the embedded problems only; name a model or an endpoint.")
    return ScriptedReplies(Writer(functions, generator.mistake_rate if generator.kind == "noisy" else 0.0))


def scripted_reviewer(arm: RevisionArm, problems: Mapping[str, Problem]) -> Reviewer | None:
    """The reviewer of an arm that needs no model; None where the arm has none or wants a model."""
    if arm.critic == "placebo":
        return Placebo()
    if arm.critic == "oracle":
        return Scripted(problems)
    if arm.critic == "noisy":
        return Scripted(problems, f"noisy-critic(w={arm.wrong:g};v={arm.vague:g})", arm.wrong, arm.vague)
    return None


def revise(
    lake: Lake,
    settings: Revision,
    make_reviewer: ReviewerMaker,
    *,
    make: Maker = policy_of,
    parallel: int = 16,
    max_cost: float | None = None,
    max_steps: int | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Done:
    """Play the trees that are not finished yet, `parallel` at a time.

    `make_reviewer` makes model critics and `make` the generator. `max_cost` (US dollars, generators and critics together)
    and `max_steps` (solutions) hold for this call. Raises RecipeError for settings that do not fit, LakeError while
    another process plays this corpus.
    """
    critics = [arm.settings for arm in settings.arms if arm.critic == "model"]
    require_prices(max_cost, [settings.generator, *critics])
    problems, functions, left_out = problems_of(settings)
    if not problems:
        raise RecipeError(f"`revision.problems` gives none; {len(left_out)} records were left out: {left_out[:3]}")
    trees = plan(settings, problems)
    by_id = {p.task_id: p for p in problems}

    def policy(crowd: Crowd, temperature: float) -> Policy:
        return generator_of(settings.generator, functions, make, crowd, temperature)

    def arm_of(arm: RevisionArm, crowd: Crowd) -> Arm:
        reviewer = scripted_reviewer(arm, by_id)
        if arm.critic in ("model", "self"):
            reviewer = make_reviewer(arm, settings.generator, crowd)
        kind = arm.critic if arm.critic in ("execution", "none") else "critic"
        return Arm(
            arm.name, kind, reviewer, arm.guided, arm.critiques, arm.answer == "each", arm.stop
        )  # fmt: skip

    with lake.alone(f"rollout-{settings.corpus}", f"playing {settings.corpus}"), Results(place(lake)) as results:
        run = Trees(lake, settings, results, parallel, max_cost, max_steps, progress, policy, arm_of)
        asyncio.run(run.run(trees))
    return Done(run.report, run.tester.n_run, run.tester.n_known, left_out)


class Trees(Run):
    """`collect`'s driver over trees in place of episodes."""

    tester: Tester

    def __init__(
        self, lake: Lake, settings: Revision, results: Results, parallel: int, max_cost: float | None,
        max_steps: int | None, progress: Callable[[Report], None] | None, policy: Callable[[Crowd, float], Policy],
        arm_of: Callable[[RevisionArm, Crowd], Arm],
    ) -> None:  # fmt: skip
        super().__init__(
            lake, settings.corpus, self._setting, parallel, Purse(max_cost), max_steps, progress or (lambda _: None)
        )
        self.settings, self.policy, self.arm_of = settings, policy, arm_of
        self.threads = ThreadPoolExecutor(settings.sandboxes)
        self.tester = Tester(Sandbox(), self.threads, settings.sandboxes, results)

    async def run(self, wanted: Sequence[Any]) -> None:
        """Play what is missing."""
        try:
            await super().run(wanted)
        finally:
            self.threads.shutdown()

    def _setting(self, crowd: Crowd) -> Any:
        s = self.settings
        self.loop = Loop(
            self.policy(crowd, s.generator.temperature), self.policy(crowd, 0.0), self.tester, s.rounds, s.rule, s.reveal,
            s.reruns, s.seed,
        )  # fmt: skip
        self.arms = {arm.name: self.arm_of(arm, crowd) for arm in s.arms}
        of = digest(self.loop.first.name, s.generator.model_dump(exclude=NOT_IDENTITY))
        self.drafts = self._drafts(crowd, of)
        return self

    def _drafts(self, crowd: Crowd, of: str) -> Drafts:
        return Drafts(crowd, of, self._known())

    async def close(self) -> None:
        """Close what generator and critics opened."""
        reviewers = [arm.reviewer for arm in self.arms.values() if arm.reviewer is not None]
        closing: list[Closing] = [self.loop.first, self.loop.reviser, *reviewers]
        for one in closing:
            await one.close()

    def _known(self) -> dict[str, Known]:
        """Initial solutions in the log, by what decided them."""
        columns = ["event_id", "kind", "attempt", "usage", "extra"]
        found = {}
        for row in self.log.read(corpora=[self.corpus], kinds=["attempt"], columns=columns).to_pylist():
            extra = orjson.loads(row["extra"] or "{}")
            if "draw" in extra and "same_as" not in extra:
                usage = {k: v for k, v in (row["usage"] or {}).items() if v is not None}
                text = extra.get("reply", f"```python\n{row['attempt']['code']}\n```")
                found[extra["draw"]] = Known(row["event_id"], text, usage)
        return found

    async def _one(self, wanted: Any, stream: str, setting: Any, executor: ThreadPoolExecutor) -> None:
        planned: Planned = wanted
        record = self.live[stream] = Attempts(stream, planned.identity, self.corpus)
        tree = Tree(
            planned.problem, planned.sample, self.arms[planned.arm.name], self.loop, record, self.drafts, self.purse,
            self._halt, self._took,
        )  # fmt: skip
        await tree.play(planned.start)
        self._count(record)
        self.done.append(self.live.pop(stream))
        await self._write()
