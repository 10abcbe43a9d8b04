"""Collecting rollouts into the log: scripted policies here, any batch policy handed in by a job.

A rollout's identity is known before it is run, so collecting again runs only what is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow.compute as pc

from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Collect, World
from stepwell.recipe import Policy as PolicySettings
from stepwell.rollout.batch import BatchPolicy, run_batch
from stepwell.rollout.environment import RepairEnvironment
from stepwell.rollout.episode import run_episode
from stepwell.rollout.families import EVAL_FAMILIES, TRAIN_FAMILIES
from stepwell.rollout.policies import NoisyPolicy, OraclePolicy, Policy
from stepwell.rollout.record import record, rollout_id
from stepwell.rollout.repair import Difficulty, RepairTask, make_task
from stepwell.rollout.sandbox import Sandbox

Progress = Callable[[int, int], None]
_COMMIT = 128
_WORKERS = 2
T = TypeVar("T")


def tasks_of(world: World, split: str, n: int, seed: int) -> Iterator[RepairTask]:
    """`n` distinct tasks of a split ("train" or "eval"), the same for the same arguments; families never overlap."""
    families = TRAIN_FAMILIES if split == "train" else EVAL_FAMILIES
    difficulty = Difficulty(**world.model_dump(exclude={"max_turns"}))
    known: set[str] = set()
    for number in range(seed * 1_000_003, seed * 1_000_003 + 50 * n):
        if len(known) == n:
            return
        task = make_task(number, families, difficulty)
        if task.task_id not in known:
            known.add(task.task_id)
            yield task


def scripted(settings: PolicySettings) -> Policy:
    """The scripted policy the settings describe."""
    if settings.kind == "oracle":
        return OraclePolicy()
    return NoisyPolicy(mistake_rate=settings.mistake_rate, recover_rate=settings.recover_rate)


def collect(lake: Lake, collecting: Collect, world: World, progress: Progress | None = None) -> list[str]:
    """Roll every scripted policy out on its train tasks; returns the trajectory ids, recorded now or before."""
    total = sum(p.n_tasks for p in collecting.policies)
    ids: list[str] = []
    for number, settings in enumerate(collecting.policies):
        policy = scripted(settings)
        seed = collecting.seed + number
        where = settings.world or world
        tasks = list(tasks_of(where, "train", settings.n_tasks, seed))
        wanted = {rollout_id(collecting.corpus, policy.name, t.task_id, seed): t for t in tasks}
        missing = _missing(lake, collecting.corpus, list(wanted))

        def run(
            stream: str,
            wanted: dict[str, RepairTask] = wanted,
            settings: PolicySettings = settings,
            seed: int = seed,
            max_turns: int = where.max_turns,
        ) -> list[Event]:
            task = wanted[stream]
            chance = random.Random(f"{collecting.seed}/{task.task_id}").getrandbits(63)
            with RepairEnvironment(task, Sandbox()) as environment:
                episode = run_episode(environment, scripted(settings), max_turns=max_turns, seed=chance)
            return record(
                task, episode, corpus=collecting.corpus, policy=episode.turns[0].actor, run_id=collecting.corpus,
                split="train", seed=seed, max_turns=max_turns,
            )  # fmt: skip

        done = len(ids) + len(wanted) - len(missing)
        for chunk in _chunks(missing, _COMMIT):
            with ThreadPoolExecutor(_WORKERS) as pool:
                events = [e for part in pool.map(run, chunk) for e in part]
            EventLog(lake).append(events, f"rollout:{collecting.corpus}")
            done += len(chunk)
            if progress:
                progress(done, total)
        ids += wanted
    return ids


def collect_batched(
    lake: Lake, policy: BatchPolicy, world: World, *, corpus: str, run_id: str, split: str, n_tasks: int, attempts: int,
    seed: int, batch_size: int, progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Roll a batch policy out `attempts` times on each task; returns the trajectory ids, recorded now or before."""
    tasks = list(tasks_of(world, split, n_tasks, seed))
    pairs = [(task, attempt) for attempt in range(attempts) for task in tasks]
    wanted = {rollout_id(corpus, policy.name, t.task_id, seed, a): (t, a) for t, a in pairs}
    missing = _missing(lake, corpus, list(wanted))
    done = len(wanted) - len(missing)
    for chunk in _chunks(missing, batch_size):
        todo = [wanted[stream] for stream in chunk]
        episodes = run_batch([t for t, _ in todo], _open, policy, max_turns=world.max_turns, workers=_WORKERS)
        about: dict[str, Any] = {
            "corpus": corpus,
            "policy": policy.name,
            "run_id": run_id,
            "split": split,
            "seed": seed,
        }
        events = [
            event
            for (task, attempt), episode in zip(todo, episodes, strict=True)
            for event in record(task, episode, attempt=attempt, max_turns=world.max_turns, **about)
        ]
        EventLog(lake).append(events, f"rollout:{run_id}")
        done += len(chunk)
        if progress:
            progress(done, len(wanted))
    return list(wanted)


def _open(task: RepairTask) -> RepairEnvironment:
    return RepairEnvironment(task, Sandbox())


def _missing(lake: Lake, corpus: str, wanted: Sequence[str]) -> list[str]:
    where = (pc.field("corpus") == corpus) & (pc.field("kind") == "outcome")
    known = set(lake.read("events", columns=["trajectory_id"], filters=where).column(0).to_pylist())
    return [w for w in wanted if w not in known]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
