"""What a recipe asks to be rolled out, as rollouts wanted and the setting they share.

Belongs here: tasks, identities and policies from settings. Does not belong here: running them (`collect`), and policies
that need a model in this process: `jobs` hands in how they are made.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import orjson

from schemas.kinds import UNFINISHED
from stepwell.batching import Crowd
from stepwell.chat import OpenAIBackend
from stepwell.conversation import REPLAYED, prompts
from stepwell.errors import BadInput, UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.collect import Report, Wanted, collect
from stepwell.rollout.environments import Environment
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.environments.repository import RepositoryEnvironment, RepositoryTask, tasks_from
from stepwell.rollout.families import EVAL_FAMILIES, TRAIN_FAMILIES
from stepwell.rollout.playing import Replayed, Setting
from stepwell.rollout.policies import Policy, Reply, Scripted
from stepwell.rollout.policies.endpoint import Endpoint
from stepwell.rollout.policies.scripted import NoisyPolicy, OraclePolicy
from stepwell.rollout.record import rollout_id, run_again
from stepwell.rollout.repair import Difficulty, RepairTask, make_task
from stepwell.rollout.sandbox import Sandbox
from stepwell.rollout.scaffolds import Scaffold
from stepwell.rollout.scaffolds.bash import BashScaffold
from stepwell.rollout.scaffolds.tools import ToolScaffold
from stepwell.rollout.steering import Steered, Steering
from stepwell.settings import Collect, Steer, Tasks, World
from stepwell.settings import Critic as CriticSettings
from stepwell.settings import Policy as PolicySettings
from stepwell.spending import Prices
from stepwell.supervision import Supervisor

Maker = Callable[[PolicySettings, Crowd], Policy]
REVIEWED = ("live", "shadow", "placebo")
"""Arms of steered rollouts in which a critic is asked."""
SCAFFOLDS: dict[str, Callable[[], Scaffold]] = {"bash": BashScaffold, "tools": ToolScaffold}


def tasks_of(world: World, split: str, n: int, seed: int) -> Iterator[RepairTask]:
    """`n` distinct tasks of a split ("train" or "eval"), the same for the same arguments; families never overlap."""
    families = TRAIN_FAMILIES if split == "train" else EVAL_FAMILIES
    difficulty = Difficulty(**world.model_dump(exclude={"max_turns", "scaffold"}))
    known: set[str] = set()
    for number in range(seed * 1_000_003, seed * 1_000_003 + 50 * n):
        if len(known) == n:
            return
        task = make_task(number, families, difficulty)
        if task.task_id not in known:
            known.add(task.task_id)
            yield task


def repairs(
    world: World, split: str, n_tasks: int, seed: int, *, corpus: str, policy: str, run_id: str, attempts: int = 1,
    arm: str | None = None, chance: int | None = None,
) -> list[Wanted]:  # fmt: skip
    """Rollouts on embedded repair tasks, attempt after attempt; `chance` seeds scripted policies (default: `seed`).

    Arms share the draws of each task and attempt: what differs between them is not chance.
    """
    sandbox = Sandbox()
    wanted = []
    tasks = list(tasks_of(world, split, n_tasks, seed))
    for attempt in range(attempts):
        for task in tasks:

            def opened(task: RepairTask = task) -> Environment:
                return RepairEnvironment(task, sandbox, split)

            again = f"/{attempt}" if attempt else ""
            drawn = random.Random(f"{seed if chance is None else chance}/{task.task_id}{again}").getrandbits(63)
            start = {"attempt": attempt, "run_id": run_id, "seed": seed, "arm": arm}
            identity = rollout_id(corpus, policy, task.task_id, seed, attempt, arm)
            key = rollout_id(corpus, policy, task.task_id, seed, attempt)
            wanted.append(Wanted(identity, opened, drawn, start, key))
    return wanted


def repositories(
    tasks: Tasks, n_tasks: int, seed: int, *, corpus: str, policy: str, run_id: str, attempts: int = 1
) -> list[Wanted]:
    """Rollouts on the first `n_tasks` tasks of a file (0: all), attempt after attempt; BadInput where two have one id."""
    found = list(tasks_from(tasks.path, tasks.suite, tasks.split))[: n_tasks or None]
    if twice := [name for name, n in Counter(task.task_id for task in found).items() if n > 1]:
        raise BadInput(
            "malformed", f"{tasks.path!r} has several rows of {', '.join(sorted(twice)[:5])}; give each task one row."
        )
    wanted = []
    for attempt in range(attempts):
        for task in found:

            def opened(task: RepositoryTask = task) -> Environment:
                given = tasks.environment
                return RepositoryEnvironment(task, given, unsafe=tasks.unsafe, state_command=tasks.state_command)

            start = {"attempt": attempt, "run_id": run_id, "seed": seed}
            identity = rollout_id(corpus, policy, task.task_id, seed, attempt)
            wanted.append(Wanted(identity, opened, seed, start))
    return wanted


def policy_of(settings: PolicySettings, crowd: Crowd) -> Policy:
    """A policy that needs no model in this process; raises UsageError for one that does."""
    if settings.kind == "oracle":
        return Scripted(OraclePolicy())
    if settings.kind == "noisy":
        return Scripted(NoisyPolicy(mistake_rate=settings.mistake_rate, recover_rate=settings.recover_rate))
    if settings.kind == "endpoint" and settings.model:
        backend = OpenAIBackend(
            settings.model, settings.base_url, key_env=settings.key_env, concurrency=settings.concurrency
        )
        prices = None if settings.prices is None else Prices(**settings.prices.model_dump())
        return Endpoint(
            backend, settings.name or settings.model, temperature=settings.temperature, top_p=settings.top_p,
            max_tokens=settings.max_new_tokens, prices=prices,
        )  # fmt: skip
    raise UsageError(
        f"policy {settings.kind!r} with model {settings.model!r} cannot be made here: an endpoint needs `model`, and a model "
        "directory is loaded by `python -m jobs.rollout`."
    )


def require_prices(max_cost: float | None, asked: Iterable[PolicySettings | CriticSettings]) -> None:
    """Raise UsageError for a limit on cost that cannot be kept, as nobody knows what a server asks for its replies."""
    blind = sorted({str(s.model) for s in asked if s.kind == "endpoint" and s.prices is None})
    if max_cost is not None and blind:
        raise UsageError(
            f"a limit of {max_cost} US dollars cannot be kept without prices of {', '.join(blind)}; add `prices: {{input, "
            "cached, output}` to it in the recipe (0 for a server of your own), or leave --max-cost out."
        )


def name_of(settings: PolicySettings) -> str:
    """The name a policy of these settings records its turns under, known before it is made."""
    if settings.kind in ("oracle", "noisy"):
        return policy_of(settings, Crowd()).name
    return settings.name or settings.model or settings.kind


def _of_pool(collecting: Collect, world: World, number: int) -> list[Wanted]:
    """The rollouts of one policy of a pool."""
    settings = collecting.policies[number]
    common = {"corpus": collecting.corpus, "policy": name_of(settings), "run_id": collecting.corpus}
    if collecting.tasks is not None:
        return repositories(collecting.tasks, settings.n_tasks, collecting.seed, attempts=settings.attempts, **common)
    return repairs(
        settings.world or world, "train", settings.n_tasks, collecting.seed + number, attempts=settings.attempts,
        chance=collecting.seed, **common,
    )  # fmt: skip


def collect_pool(
    lake: Lake,
    collecting: Collect,
    world: World,
    *,
    make: Maker = policy_of,
    parallel: int = 16,
    max_cost: float | None = None,
    max_steps: int | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Roll every policy of a pool out on train tasks of its own; the report is of all of them together."""
    require_prices(max_cost, collecting.policies)
    pool = [_of_pool(collecting, world, number) for number in range(len(collecting.policies))]
    whole = Report(n_wanted=sum(map(len, pool)))
    if len({w.identity for wanted in pool for w in wanted}) < whole.n_wanted:
        names = ", ".join(map(name_of, collecting.policies))
        raise UsageError(
            f"policies {names} of corpus {collecting.corpus!r}: those of one name would pass for each other on the same "
            "tasks; give each a `name` of its own in the recipe."
        )
    for settings, wanted in zip(collecting.policies, pool, strict=True):
        where = settings.world or world
        before = Report(**whole.__dict__)

        def setting(crowd: Crowd, settings: PolicySettings = settings, where: World = where) -> Setting:
            return Setting(make(settings, crowd), where.max_turns, SCAFFOLDS[where.scaffold]())

        def told(part: Report, before: Report = before) -> None:
            if progress is not None:
                progress(before.plus(part))

        left = None if max_cost is None else max_cost - whole.cost_usd
        steps = None if max_steps is None else max_steps - whole.n_steps
        part = collect(
            lake, collecting.corpus, wanted, setting, parallel=parallel, max_cost=left, max_steps=steps, progress=told
        )
        whole = before.plus(part)
        if part.stopped:
            break
    return whole


def collect_steered(
    lake: Lake,
    steer: Steer,
    world: World,
    supervisor: Callable[[], Supervisor],
    *,
    make: Maker = policy_of,
    parallel: int = 16,
    max_cost: float | None = None,
    progress: Callable[[str, Report], None] | None = None,
) -> dict[str, Report]:
    """Roll the agent out in every arm on the same tasks with the same chance; a report for each arm run.

    Corpora are called CORPUS/ARM. The arm `off` comes first, as others may begin with its steps.
    """
    reviewed = any(arm in REVIEWED for arm in steer.arms)
    require_prices(max_cost, [steer.agent, *([steer.critic] if reviewed else [])])
    reports: dict[str, Report] = {}
    for arm in sorted(steer.arms, key=lambda a: a != "off"):
        corpus = f"{steer.corpus}/{arm}"
        wanted = repairs(
            world, steer.split, steer.n_tasks, steer.seed, corpus=steer.corpus, policy=name_of(steer.agent),
            run_id=steer.corpus, attempts=steer.attempts, arm=arm,
        )  # fmt: skip
        if steer.prefix and arm != "off":
            bases = repairs(
                world, steer.split, steer.n_tasks, steer.seed, corpus=steer.corpus, policy=name_of(steer.agent),
                run_id=steer.corpus, attempts=steer.attempts, arm="off",
            )  # fmt: skip
            wanted = replayed(lake, f"{steer.corpus}/off", wanted, bases, steer.prefix)
        critic = supervisor() if arm in REVIEWED else None
        steering = Steering(arm, steer.k, steer.notice_from, steer.dedup, steer.history_chars)

        def setting(crowd: Crowd, steering: Steering = steering, critic: Supervisor | None = critic) -> Setting:
            agent, scaffold = make(steer.agent, crowd), SCAFFOLDS[world.scaffold]()
            closing = () if critic is None else (critic,)
            companions = lambda: (Steered(steering, critic),)  # noqa: E731
            return Setting(agent, world.max_turns, scaffold, companions=companions, closing=closing)

        left = None if max_cost is None else max_cost - sum(r.cost_usd for r in reports.values())
        reports[arm] = collect(
            lake, corpus, wanted, setting, parallel=parallel, max_cost=left,
            progress=None if progress is None else partial(progress, arm),
        )  # fmt: skip
        if reports[arm].stopped:
            break
    return reports


def replayed(lake: Lake, corpus: str, wanted: Sequence[Wanted], bases: Sequence[Wanted], steps: int) -> list[Wanted]:
    """The rollouts wanted, each beginning with the first `steps` turns of its base (in the same order), from the log.

    Raises UsageError for a base that is not finished there.
    """
    log = EventLog(lake)
    ends = log.read(corpora=[corpus], kinds=["end"], columns=["trajectory_id", "end"]).to_pylist()
    finished = {r["trajectory_id"] for r in ends if r["end"]["exit_status"] not in UNFINISHED}
    found = []
    for w, base in zip(wanted, bases, strict=True):
        rerun = 0
        while (stream := run_again(base.identity, rerun)) not in finished and rerun < len(ends):
            rerun += 1
        if stream not in finished:
            raise UsageError(f"{corpus} has no finished rollout of {base.identity}; run the arm `off` first.")
        turns = []
        for prompt in prompts(log.read(trajectory_ids=[stream], columns=list(REPLAYED))):
            if prompt.step < steps:
                action = prompt.rows["action"][0]
                calls = tuple(orjson.loads(action["action"]["tool_calls"] or "[]"))
                shown = prompt.rows["observation"][0]["observation"]["rendered"]
                turns.append(Replayed(Reply(action["action"]["text"], tool_calls=calls), action["policy"], shown))
        start = {**w.start, "parent_trajectory": stream, "fork_step": len(turns)}
        found.append(replace(w, prefix=turns, start=start))
    return found
