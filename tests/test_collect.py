"""Rollouts get into the log once each, whatever kills the run, and every prompt can be rebuilt from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from stepwell import invariants
from stepwell.batching import Crowd
from stepwell.chat import prompt_hash
from stepwell.conversation import REPLAYED, prompts
from stepwell.errors import LakeError, SandboxError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.collect import Report, collect
from stepwell.rollout.environments import Observation
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.mixing import Mixing, Schedule
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched, Free, Listed, Reply, Scripted, View
from stepwell.rollout.policies.scripted import NoisyPolicy, OraclePolicy
from stepwell.rollout.runs import SCAFFOLDS, collect_pool, repairs
from stepwell.settings import Collect, Policy, World
from stepwell.spending import Prices

ROOT = Path(__file__).parent.parent
WORLD = World(functions=1, bugs_max=1, max_turns=8)
NOISY = Policy(kind="noisy", n_tasks=12, mistake_rate=0.4)


def noisy(crowd: Crowd) -> Setting:
    return Setting(Scripted(NoisyPolicy(0.4)), WORLD.max_turns)


def wanted(n: int = 6, **options: Any) -> list[Any]:
    return repairs(WORLD, "train", n, 7, corpus="rollouts/t", policy="p", run_id="t", **options)


def facts(lake: Lake) -> list[dict[str, Any]]:
    return (
        EventLog(lake)
        .read(columns=["trajectory_id", "kind", "step", "action", "end", "usage", "label", "turn"])
        .to_pylist()
    )


def ends(lake: Lake) -> Counter[str]:
    return Counter(r["end"]["exit_status"] for r in facts(lake) if r["kind"] == "end")


def test_a_pool_is_collected_once(lake: Lake) -> None:
    pool = Collect(corpus="rollouts/pool", policies=(NOISY, Policy(kind="oracle", n_tasks=5)))
    first = collect_pool(lake, pool, WORLD)
    assert (first.n_wanted, first.n_done, first.complete) == (17, 17, True)
    version = lake.version("events")
    again = collect_pool(lake, pool, WORLD)
    assert (again.n_known, again.n_done, again.trajectories) == (17, 0, first.trajectories)
    assert lake.version("events") == version
    for rule in invariants.EVENTS.values():
        assert not list(rule(lake))


@pytest.mark.parametrize("scaffold", ["bash", "tools"])
def test_every_prompt_is_rebuilt_from_the_log(lake: Lake, scaffold: str) -> None:
    collect(lake, "rollouts/t", wanted(), lambda _: Setting(Scripted(NoisyPolicy(0.4)), 8, SCAFFOLDS[scaffold]()))
    n = 0
    for prompt in prompts(EventLog(lake).read(columns=list(REPLAYED))):
        (action,) = prompt.rows["action"]
        assert prompt_hash(prompt.messages) == action["usage"]["prompt_hash"]
        n += 1
    assert n == sum(r["kind"] == "action" for r in facts(lake)) > 20


def test_a_prompt_that_cannot_be_rebuilt_breaks_the_invariant(lake: Lake) -> None:
    collect(lake, "rollouts/t", wanted(3), noisy)
    assert not list(invariants.agents_saw_what_is_logged(lake))
    log = EventLog(lake)
    row = log.read(kinds=["observation"], columns=["event_id", "trajectory_id", "corpus", "step"]).to_pylist()[0]
    gone = {"target_event": row["event_id"], "action": "redact", "reason": "test"}
    log.append([Event("retraction", row["trajectory_id"], row["corpus"], "system", gone)], "b")
    found = list(invariants.agents_saw_what_is_logged(lake))
    assert found
    assert all(row["trajectory_id"] in problem for problem in found)


def test_scaffolds_differ_in_words_only(lake: Lake, tmp_path: Path) -> None:
    commands = []
    for scaffold in ("bash", "tools"):
        other = Lake(tmp_path / scaffold)
        collect(
            other, "rollouts/t", wanted(), lambda _, s=scaffold: Setting(Scripted(NoisyPolicy(0.4)), 8, SCAFFOLDS[s]())
        )
        commands.append(
            sorted((r["trajectory_id"], r["step"], r["action"]["command"]) for r in facts(other) if r["action"])
        )
    assert commands[0] == commands[1]


def test_mixing_labels_every_state_and_draws_what_it_says(lake: Lake) -> None:
    mixing = Mixing(Schedule("constant", start=0.5))

    def setting(crowd: Crowd) -> Setting:
        return Setting(Scripted(NoisyPolicy(0.4)), 8, teacher=Scripted(OraclePolicy()), mixing=mixing)

    collect(lake, "rollouts/t", wanted(20), setting)
    rows = facts(lake)
    turns = {(r["trajectory_id"], r["step"]): r["turn"] for r in rows if r["kind"] == "turn"}
    labels = {(r["trajectory_id"], r["step"]): r["label"] for r in rows if r["kind"] == "label"}
    actions = {(r["trajectory_id"], r["step"]): r["action"] for r in rows if r["kind"] == "action"}
    assert labels.keys() == turns.keys() == actions.keys()
    for key, label in labels.items():
        turn = turns[key]
        assert (turn["chosen"] == "teacher") == (turn["draw"] < turn["beta"] == 0.5)
        assert label["source"] == ("executed" if turn["chosen"] == "teacher" else "queried")
        assert label["state_hash"] == actions[key]["state_hash"] == turn["state_hash"]
        if label["source"] == "executed":
            assert label["text"] == actions[key]["text"]
    assert {turn["chosen"] for turn in turns.values()} == {"agent", "teacher"}
    assert any(labels[k]["text"] != actions[k]["text"] for k in labels)
    assert not list(invariants.labels_fit_states(lake))


class Flaky(Free):
    """The oracle behind a server that is away for some tasks until it is mended."""

    name, backend, mended = "flaky", "test", False

    async def reply(self, view: View) -> Reply:
        if not self.mended and view.sampling_seed % 3 == 0 and len(view.turns) == 2:
            return Reply(None, "connection", detail="refused")
        return await Scripted(OraclePolicy()).reply(view)


def test_a_server_that_fails_ends_only_those_it_failed_and_they_are_run_again(lake: Lake) -> None:
    policy = Flaky()
    first = collect(lake, "rollouts/t", wanted(12), lambda _: Setting(policy, 8))
    assert 0 < first.n_failed < 12
    assert first.n_done + first.n_failed == 12
    policy.mended = True
    second = collect(lake, "rollouts/t", wanted(12), lambda _: Setting(policy, 8))
    assert (second.n_known, second.n_done, second.complete) == (first.n_done, first.n_failed, True)
    assert ends(lake) == {"submitted": 12, "model_unavailable": first.n_failed}


class Priced(Scripted):
    """The oracle at a tenth of a dollar a reply."""

    async def reply(self, view: View) -> Reply:
        return replace(await super().reply(view), usage={"cost_usd": 0.1, "tokens_in": 1, "tokens_out": 1})

    def most_cost(self, view: View) -> float:
        return 0.2


def test_cost_stays_below_its_limit_and_the_rest_is_run_later(lake: Lake) -> None:
    setting = lambda _: Setting(Priced(OraclePolicy()), 8)  # noqa: E731
    first = collect(lake, "rollouts/t", wanted(12), setting, max_cost=2.05)
    assert first.cost_usd <= 2.05
    assert "2.05" in (first.stopped or "")
    second = collect(lake, "rollouts/t", wanted(12), setting)
    assert second.complete
    assert ends(lake)["submitted"] == 12
    paid = sum(r["usage"]["cost_usd"] for r in facts(lake) if r["kind"] == "action")
    assert paid == pytest.approx(first.cost_usd + second.cost_usd), "what an aborted run paid for is in the log too"


def test_steps_stay_below_their_limit(lake: Lake) -> None:
    first = collect(lake, "rollouts/t", wanted(12), noisy, max_steps=10, parallel=4)
    assert 10 <= first.n_steps <= 14
    assert collect(lake, "rollouts/t", wanted(12), noisy).complete


def test_a_cost_limit_of_one_trajectory_ends_it(lake: Lake) -> None:
    collect(lake, "rollouts/t", wanted(2), lambda _: Setting(Priced(OraclePolicy()), 8, cost_limit_usd=0.25))
    assert ends(lake) == {"cost_limit": 2}
    assert sum(r["kind"] == "action" for r in facts(lake)) == 6


def test_no_more_replies_is_an_end_of_its_own(lake: Lake) -> None:
    report = collect(lake, "rollouts/t", wanted(2), lambda _: Setting(Listed(["THOUGHT: x\n\n```bash\nview\n```"]), 8))
    assert (report.complete, ends(lake)) == (True, {"no_more_replies": 2})


class Breaking(RepairEnvironment):
    """A sandbox that breaks at the third command."""

    count = 0

    def execute(self, command: str) -> Observation:
        self.count += 1
        if self.count == 3:
            raise SandboxError("broken")
        return super().execute(command)


def test_an_environment_that_breaks_ends_one_trajectory(lake: Lake) -> None:
    todo = wanted(4)
    broken = todo[1].open()
    todo[1] = replace(todo[1], open=lambda: Breaking(broken.task, broken.sandbox))
    report = collect(lake, "rollouts/t", todo, lambda _: Setting(Scripted(OraclePolicy()), 8))
    assert (report.n_done, report.n_failed) == (3, 1)
    assert ends(lake) == {"submitted": 3, "environment_error": 1}


class Counting:
    """The oracle, answering many at once and counting how many."""

    name, backend = "counting", "test"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def act_many(self, views: Sequence[View]) -> list[Reply]:
        self.sizes.append(len(views))
        return [Reply(OraclePolicy().act(view)) for view in views]


def test_calls_are_batched_over_the_environments(lake: Lake) -> None:
    policy = Counting()
    collect(lake, "rollouts/t", wanted(16), lambda crowd: Setting(Batched(policy, crowd, 64, 5.0), 8), parallel=16)
    assert sum(policy.sizes) / len(policy.sizes) > 8
    assert max(policy.sizes) == 16


def test_one_process_collects_a_corpus_at_a_time(lake: Lake) -> None:
    with lake.alone("rollout-rollouts/t", "collecting"), pytest.raises(LakeError, match="wait for it"):
        collect(lake, "rollouts/t", wanted(1), noisy)


SLOW = """
import sys, time
from stepwell.lake import Lake
from stepwell.rollout.collect import collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Scripted
from stepwell.rollout.policies.scripted import OraclePolicy
from stepwell.settings import World
from stepwell.rollout.runs import repairs
import stepwell.rollout.collect as c
c._SECONDS = 0.05

class Slow(Scripted):
    async def reply(self, view):
        import asyncio
        await asyncio.sleep(0.05)
        return await super().reply(view)

todo = repairs(World(functions=1, bugs_max=1, max_turns=8), "train", 24, 7, corpus="rollouts/t", policy="p", run_id="t")
report = collect(Lake(sys.argv[1]), "rollouts/t", todo, lambda _: Setting(Slow(OraclePolicy()), 8), parallel=4)
print(report.stopped)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_goes_on_and_counts_nothing_twice(lake: Lake, how: signal.Signals) -> None:
    reports: list[Report] = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, lake.uri], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        before = lake.version("events") or 0
        limit = time.monotonic() + 60
        while (lake.version("events") or 0) < before + 3 and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, how)
        said = process.communicate()[0]
        assert process.returncode == (-how if how == signal.SIGKILL else 0)
        if how == signal.SIGINT:
            assert said == "interrupted\n"
    reports.append(collect(lake, "rollouts/t", wanted(24), lambda _: Setting(Scripted(OraclePolicy()), 8)))
    rows = facts(lake)
    status = {r["trajectory_id"]: r["end"]["exit_status"] for r in rows if r["kind"] == "end"}
    started = [r["trajectory_id"] for r in rows if r["kind"] == "start"]
    assert len(started) == len(set(started))
    assert set(started) == set(status), "every trajectory has an end"
    counted = Counter(status.values())
    assert counted["submitted"] == 24
    assert counted["aborted"] > 0
    assert set(counted) == {"submitted", "aborted"}
    assert reports[-1].complete
    assert {status[t] for t in reports[-1].trajectories} == {"submitted"}
    for rule in invariants.EVENTS.values():
        assert not list(rule(lake))


@pytest.mark.parametrize("at", ["__enter__", "execute"])
def test_every_environment_is_closed_however_many_are_interrupted(lake: Lake, at: str) -> None:
    opened, closed, under_way = list[str](), list[str](), threading.Barrier(4)

    def wait() -> None:
        under_way.wait(20)
        time.sleep(0.2 * opened.index(threading.current_thread().name) if at == "execute" else 0.2)

    class Slow(RepairEnvironment):
        def __enter__(self) -> Self:
            opened.append(threading.current_thread().name)
            if at == "__enter__":
                wait()
            return super().__enter__()

        def execute(self, command: str) -> Observation:
            wait()
            return super().execute(command)

        def __exit__(self, *how: Any) -> None:
            closed.append("closed")
            super().__exit__(*how)

    def interrupt() -> None:
        under_way.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    todo = [replace(w, open=partial(Slow, e.task, e.sandbox)) for w in wanted(3) for e in [w.open()]]
    threading.Thread(target=interrupt).start()
    report = collect(lake, "rollouts/t", todo, lambda _: Setting(Scripted(OraclePolicy()), 8), parallel=3)
    assert (report.stopped, len(opened), len(closed)) == ("interrupted", 3, 3)


def test_what_has_not_begun_when_it_is_interrupted_is_closed_and_leaves_nothing(lake: Lake) -> None:
    happened = []

    class Opening:
        def __enter__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            happened.append("opened")

        def __exit__(self, *_: object) -> None:
            happened.append("closed")

    todo = [replace(w, open=Opening) for w in wanted(2)]
    report = collect(lake, "rollouts/t", todo, noisy, parallel=1)
    assert (report.stopped, happened) == ("interrupted", ["opened", "closed"])
    assert not facts(lake)


def test_more_from_the_cache_than_in_the_prompt_never_costs_less_than_nothing() -> None:
    assert Prices(1.0, 0.1, 2.0).cost(10, 50, 5) == pytest.approx((50 * 0.1 + 5 * 2.0) / 1e6)


def test_prices_make_the_most_a_call_can_cost() -> None:
    from stepwell.chat import BatchBackend
    from stepwell.rollout.policies.endpoint import Endpoint

    priced = Endpoint(BatchBackend(lambda calls: []), "m", max_tokens=10, prices=Prices(1.0, 0.1, 2.0))
    cost = priced.most_cost(View([{"role": "user", "content": "x" * 1000}]))
    assert 1000e-6 + 20e-6 < cost < 1100e-6 + 20e-6
