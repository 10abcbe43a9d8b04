"""Rollouts through a server that speaks the OpenAI protocol: what it fails ends one trajectory, what it costs is counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from chat_server import ChatServer, Fault
from vllm_server import Server

from jobs.model_policy import TransformersPolicy
from stepwell.batching import Crowd
from stepwell.chat import OpenAIBackend
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.collect import Report, collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched
from stepwell.rollout.policies.endpoint import Endpoint
from stepwell.rollout.revision import revise
from stepwell.rollout.runs import SCAFFOLDS, collect_pool, collect_steered, name_of, policy_of, repairs
from stepwell.rollout.scaffolds.bash import format_action
from stepwell.settings import Collect, Critic, Policy, Prices, Revision, RevisionArm, Steer, World

WORLD = World(functions=1, bugs_max=1, max_turns=3)
LOOK = format_action("Look.", "view")


def play(lake: Lake, server: ChatServer, n: int = 6, scaffold: str = "bash", **options: Any) -> Report:
    wanted = repairs(WORLD, "train", n, 7, corpus="rollouts/e", policy="m", run_id="e")

    def setting(crowd: Crowd) -> Setting:
        backend = OpenAIBackend("m", server.url, tries=2, pause=0.01, timeout=2.0)
        return Setting(Endpoint(backend, "m", max_tokens=50, **options), 3, SCAFFOLDS[scaffold]())

    return collect(lake, "rollouts/e", wanted, setting)


def rows(lake: Lake, kind: str) -> list[dict[str, Any]]:
    columns = ["trajectory_id", "step", "usage", "action", "observation", "end", "extra"]
    return EventLog(lake).read(kinds=[kind], columns=columns).to_pylist()


def test_replies_and_what_they_cost_are_recorded(lake: Lake) -> None:
    prices = {
        "kind": "endpoint",
        "model": "m",
        "name": "mine",
        "n_tasks": 3,
        "prices": Prices(input=1, cached=0.1, output=2),
    }
    with ChatServer(lambda body: LOOK) as server:
        report = collect_pool(
            lake, Collect(corpus="rollouts/e", policies=(Policy(**prices, base_url=server.url),)), WORLD
        )
    assert (report.complete, report.n_steps) == (True, 9)
    usages = [r["usage"] for r in rows(lake, "action")]
    assert sum(u["cost_usd"] for u in usages) == pytest.approx(report.costs["agent"]) == pytest.approx(report.cost_usd)
    assert {u["price_policy"] for u in usages} == {"usd-per-mtok:1/0.1/2"}
    assert all(u["tokens_in"] and u["cache_read"] and u["call_id"] and u["latency_s"] > 0 for u in usages)
    assert {b["messages"][0]["content"].splitlines()[1] for b in server.bodies} == {
        "Reply with a THOUGHT and one bash block."
    }


def test_what_a_server_does_not_meter_counts_in_full_against_the_limit(lake: Lake) -> None:
    policy = Policy(
        kind="endpoint", model="m", n_tasks=6, max_new_tokens=1000, prices=Prices(input=0, cached=0, output=1)
    )
    answer = {"choices": [{"message": {"role": "assistant", "content": LOOK}}]}
    with ChatServer() as server:
        server.fault_of = lambda body: Fault(body=json.dumps(answer).encode())
        wanted = Collect(corpus="rollouts/e", policies=(policy.model_copy(update={"base_url": server.url}),))
        report = collect_pool(lake, wanted, WORLD, max_cost=0.0045)
    assert (len(server.bodies), report.cost_usd) == (4, pytest.approx(0.004))
    assert report.stopped is not None
    assert {r["usage"]["cost_usd"] for r in rows(lake, "action")} == {None}, "what is not known is not made up"


def test_a_limit_on_cost_without_prices_is_refused(lake: Lake) -> None:
    policy = Policy(kind="endpoint", model="m", base_url="http://127.0.0.1:1/v1", n_tasks=1)
    with pytest.raises(UsageError, match="without prices of m"):
        collect_pool(lake, Collect(corpus="rollouts/e", policies=(policy,)), WORLD, max_cost=1.0)
    steer = Steer(
        corpus="s", agent=Policy(kind="oracle"), critic=Critic(kind="endpoint", model="judge"), arms=("live",)
    )
    with pytest.raises(UsageError, match="without prices of judge"):
        collect_steered(lake, steer, WORLD, lambda: pytest.fail("nothing is begun"), max_cost=1.0)
    revision = Revision(corpus="r", generator=policy, arms=(RevisionArm(name="a", critic="execution"),))
    with pytest.raises(UsageError, match="without prices of m"):
        revise(lake, revision, lambda *_: pytest.fail("nothing is begun"), max_cost=1.0)


def test_sampling_seeds_follow_from_the_turn(lake: Lake, tmp_path: Any) -> None:
    with ChatServer(lambda body: LOOK) as server:
        play(lake, server, temperature=0.7, top_p=0.9)
        first = sorted(b["seed"] for b in server.bodies)
        server.bodies.clear()
        play(Lake(tmp_path / "other"), server, temperature=0.7, top_p=0.9)
    assert sorted(b["seed"] for b in server.bodies) == first
    assert len(set(first)) == 18
    assert {b["top_p"] for b in server.bodies} == {0.9}


def test_a_server_that_fails_some_fails_only_those(lake: Lake) -> None:
    with ChatServer(lambda body: LOOK) as server:
        chosen: set[int] = set()

        def fault(body: dict[str, Any]) -> Fault | None:
            # Every second trajectory meets a server that answers nonsense from its second turn on.
            if len(body["messages"]) == 4:
                chosen.add(len(chosen))
                return Fault(body=b"not json") if len(chosen) % 2 else None
            return None

        server.fault_of = fault
        first = play(lake, server)
        assert 0 < first.n_done < 6
        assert first.n_done + first.n_failed == 6
        details = [json.loads(r["extra"])["detail"] for r in rows(lake, "end") if r["extra"]]
        assert all(d.startswith("garbage") for d in details)
        server.fault_of = lambda body: None
        second = play(lake, server)
    assert (second.complete, second.n_known) == (True, first.n_done)
    ends = Counter(r["end"]["exit_status"] for r in rows(lake, "end"))
    assert ends == {"turn_limit": 6, "model_unavailable": first.n_failed}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(400, b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'), "context"),
        (Fault(422, b'{"error": {"message": "unknown field"}}'), "model_unavailable"),
        (Fault(500), "model_unavailable"),
        (Fault(drop=True), "model_unavailable"),
        (Fault(delay=5.0), "model_unavailable"),
    ],
)
def test_every_failure_has_an_end_of_its_own(lake: Lake, fault: Fault, status: str) -> None:
    with ChatServer(lambda body: LOOK) as server:
        server.fault_of = lambda body: fault
        report = play(lake, server, n=2)
    assert Counter(r["end"]["exit_status"] for r in rows(lake, "end")) == {status: 2}
    assert report.complete == (status != "model_unavailable")


def test_a_refusal_is_the_policys_only_where_its_server_takes_other_calls(lake: Lake) -> None:
    calls = iter([None])
    with ChatServer(lambda body: LOOK) as server:
        server.fault_of = lambda body: next(calls, Fault(400, b'{"error": {"message": "content filter"}}'))
        assert play(lake, server, n=1).complete
    assert [r["end"]["exit_status"] for r in rows(lake, "end")] == ["refused"]


def test_tools_are_offered_called_and_answered(lake: Lake) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "view"}'}}
    with ChatServer(lambda body: "") as server:
        server.extra = {
            "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            "finish_reason": "tool_calls",
        }
        assert play(lake, server, n=1, scaffold="tools").complete
    assert [b["tools"][0]["function"]["name"] for b in server.bodies] == ["bash"] * 3
    last = server.bodies[-1]["messages"]
    assert [m["role"] for m in last[2:]] == ["assistant", "tool", "assistant", "tool"]
    assert last[3]["tool_call_id"] == "c1"
    assert "def " in last[3]["content"]
    assert {r["action"]["command"] for r in rows(lake, "action")} == {"view"}
    assert json.loads(rows(lake, "action")[0]["action"]["tool_calls"]) == [call]


def test_a_policy_that_needs_a_job_is_refused_with_its_name() -> None:
    with pytest.raises(UsageError, match=r"jobs\.rollout"):
        policy_of(Policy(kind="model", model="jobs/base"), Crowd())
    assert name_of(Policy(kind="model", model="jobs/base")) == "jobs/base"
    assert name_of(Policy(kind="noisy", mistake_rate=0.3, recover_rate=0.6)) == "noisy-0.3-0.6"


@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_server_plays_what_transformers_plays(tmp_path: Any, vllm_server: Server) -> None:
    wanted = repairs(WORLD, "eval", 4, 7, corpus="rollouts/e", policy="base", run_id="e")
    base = TransformersPolicy("jobs/base", "base", temperature=0, max_new_tokens=48, seed=0)
    settings = {
        "server": lambda crowd: Setting(
            Endpoint(OpenAIBackend("base", vllm_server.url + "/v1"), "base", max_tokens=48), 3
        ),
        "here": lambda crowd: Setting(Batched(base, crowd, 16), 3),
    }
    said = {}
    for name, setting in settings.items():
        lake = Lake(tmp_path / name)
        assert collect(lake, "rollouts/e", wanted, setting).complete
        said[name] = [(r["trajectory_id"], r["step"], r["action"]["text"]) for r in rows(lake, "action")]
    assert said["server"] == said["here"]
