"""A critic at the wheel: exactly one piece of feedback is shown, every prompt can be rebuilt, and the arms are controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from chat_server import ChatServer, critique
from hypothesis import given
from hypothesis import strategies as st

from stepwell.batching import Crowd
from stepwell.chat import OpenAIBackend, prompt_hash
from stepwell.conversation import REPLAYED, prompts
from stepwell.critics import judging
from stepwell.critics.live import LiveModel, LiveRules, supervisor_of
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.prompts import load
from stepwell.critics.rerendering import reproduced
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.collect import collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Listed, Reply, Scripted, View
from stepwell.rollout.policies.scripted import NoisyPolicy
from stepwell.rollout.runs import collect_steered, repairs
from stepwell.rollout.scaffolds.bash import format_action
from stepwell.rollout.steering import Steered, Steering, filler, similarity, worded
from stepwell.settings import Critic, Policy, Steer, World
from stepwell.spending import Prices
from stepwell.supervision import Critique, Supervisor

WORLD = World(functions=2, bugs_max=2, max_turns=12)
AGENT = Policy(kind="noisy", mistake_rate=0.5, recover_rate=0.4)


def steer(lake: Lake, arm: Steering, supervisor: Supervisor | None, n: int = 6) -> list[dict[str, Any]]:
    wanted = repairs(WORLD, "train", n, 5, corpus="rollouts/s", policy="p", run_id="s", arm=arm.mode)

    def setting(crowd: Crowd) -> Setting:
        closing = (supervisor,) if supervisor else ()
        agent = Scripted(NoisyPolicy(0.5, 0.4))
        return Setting(agent, 12, companions=lambda: (Steered(arm, supervisor),), closing=closing)

    assert collect(lake, f"rollouts/s/{arm.mode}", wanted, setting).complete
    return events(lake, arm.mode)


def events(lake: Lake, arm: str) -> list[dict[str, Any]]:
    columns = [
        "event_id",
        "trajectory_id",
        "kind",
        "step",
        "actor",
        "feedback",
        "notice",
        "verdict",
        "action",
        "usage",
        "end",
    ]
    return EventLog(lake).read(corpora=[f"rollouts/s/{arm}"], columns=columns).to_pylist()


def of(rows: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r for r in rows if r["kind"] == kind]


class Numbered:
    """Says which review it is."""

    name = "numbered"

    async def review(self, events: Sequence[Event]) -> Critique:
        last = [e for e in events if e.kind == "action"][-1]
        n = sum(e.kind == "verdict" and e.policy == self.name for e in events) + 1
        payload = {"scope": "window", "severity": 1, "guidance": f"review {n} " + "word " * 500, "parse_status": "ok"}
        verdict = Event(
            "verdict", last.trajectory_id, last.corpus, "critic", payload, step=last.step, policy=self.name,
            caused_by=last.event_id, usage={"cost_usd": 0.01},
        )  # fmt: skip
        return Critique((verdict,), verdict.event_id, payload["guidance"], "", 0.01)

    def most_cost(self, events: Sequence[Event]) -> float:
        return 0.02

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("mode", ["live", "shadow", "placebo", "notice", "off"])
def test_every_prompt_is_rebuilt_and_shows_at_most_one_feedback(lake: Lake, mode: str) -> None:
    rows = steer(lake, Steering(mode, k=3, notice_from=0.5), Numbered())  # type: ignore[arg-type]
    told = Counter(r["feedback"]["mode"] for r in of(rows, "feedback"))
    assert set(told) == {"live": {"delivered"}, "shadow": {"shadow"}, "placebo": {"placebo"}}.get(mode, set())
    assert bool(of(rows, "notice")) == (mode != "off")
    seen = Counter[str]()
    for prompt in prompts(EventLog(lake).read(columns=list(REPLAYED))):
        assert prompt_hash(prompt.messages) == prompt.rows["action"][0]["usage"]["prompt_hash"]
        shown = [m["content"] for m in prompt.messages if m["content"].startswith("SUPERVISOR FEEDBACK")]
        assert len(shown) == int(mode in ("live", "placebo") and prompt.step >= 3)
        seen["feedback"] += len(shown)
        if shown:
            now = shown[0].rpartition("Feedback after step ")[2]
            assert int(now.split(":")[0]) == prompt.step // 3 * 3
            assert ("review" in now) == (mode == "live")
        seen["notices"] += sum(m["content"].count("<important_notice>") for m in prompt.messages)
    assert (seen["feedback"] > 5) == (mode in ("live", "placebo"))
    assert (seen["notices"] > 5) == (mode != "off")


def test_shadow_does_not_touch_the_run(lake: Lake) -> None:
    said = {
        mode: [
            r["action"]["text"] for r in of(steer(lake, Steering(mode, k=3, notice_from=None), Numbered()), "action")
        ]  # type: ignore[arg-type]
        for mode in ("off", "shadow")
    }
    assert sorted(said["off"]) == sorted(said["shadow"])


def test_placebo_has_the_length_and_nothing_else() -> None:
    assert filler(300).startswith("This is a routine message")
    assert abs(len(filler(1234)) - 1234) <= 2
    assert filler(0) == ""


def test_earlier_feedback_is_cut_and_this_one_is_not() -> None:
    text = worded("now " * 1000, 9, [(3, "a" * 2000), (6, "short")], 1500)
    assert "(after step 3) " + "a" * 1500 + "..." in text
    assert "a" * 1501 not in text
    assert "(after step 6) short" in text
    assert text.endswith("Feedback after step 9:\n" + "now " * 1000)


def test_the_same_again_is_suppressed_and_the_old_one_stays(lake: Lake) -> None:
    rows = steer(lake, Steering("live", k=2, dedup=0.9), Numbered())
    modes = Counter(r["feedback"]["mode"] for r in of(rows, "feedback"))
    assert modes["suppressed"] > modes["delivered"] > 0
    for row in of(rows, "feedback"):
        if row["feedback"]["mode"] == "suppressed":
            assert row["feedback"]["similarity"] >= 0.9
    for prompt in prompts(EventLog(lake).read(columns=list(REPLAYED))):
        assert prompt_hash(prompt.messages) == prompt.rows["action"][0]["usage"]["prompt_hash"]


@given(st.text(min_size=3), st.text(min_size=3))
def test_similarity_is_one_for_equals_and_symmetric(a: str, b: str) -> None:
    assert similarity(a, a) == pytest.approx(1, abs=1e-5)
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1 + 1e-6


def live_model(server: ChatServer, **options: Any) -> LiveModel:
    critic = ModelCritic(load("steer-concise"), "m", k=3, context=16_000, max_tokens=500, **options)
    return LiveModel(critic, OpenAIBackend("m", server.url, tries=2, pause=0.01))


def test_a_model_at_the_wheel_is_asked_what_it_would_be_asked_afterwards(lake: Lake) -> None:
    with ChatServer(lambda body: critique(f"Advice {len(body['messages'])}.", "Needs correction")) as server:
        critic = live_model(server)
        rows = steer(lake, Steering("live", k=3), critic)
        n = len(server.bodies)
        report = judging.judge(lake, critic.critic, OpenAIBackend("m", server.url))
    verdicts = [r for r in of(rows, "verdict") if r["actor"] == "critic"]
    assert len(verdicts) == n == len(of(rows, "feedback")) > 5
    asked = {prompt_hash(body["messages"]) for body in server.bodies[:n]}
    assert asked == {r["usage"]["prompt_hash"] for r in verdicts}
    assert all("Advice" in r["feedback"]["text"] for r in of(rows, "feedback"))
    # A last window that ends with the trajectory is not reviewed live: there is no next action.
    last = {r["trajectory_id"]: r["step"] for r in of(rows, "action")}
    again = reproduced(EventLog(lake))
    assert (again.n, list(again)) == (n + report.n_calls, [])
    assert report.n_known == n
    assert report.n_calls == sum((step + 1) % 3 == 0 for step in last.values())


def test_a_critic_that_is_away_or_speaks_nonsense_leaves_the_agent_alone(lake: Lake) -> None:
    with ChatServer(lambda body: "view\n") as server:
        rows = steer(lake, Steering("live", k=3), live_model(server), n=3)
    assert {r["feedback"]["mode"] for r in of(rows, "feedback")} == {"suppressed"}
    assert {r["feedback"]["reason"] for r in of(rows, "feedback")} == {"unparseable"}
    assert {r["verdict"]["parse_status"] for r in of(rows, "verdict") if r["actor"] == "critic"} == {"unparseable"}
    gone = Lake(lake.uri + "-2")
    rows = steer(gone, Steering("live", k=3), live_model(server), n=3)  # the server is stopped
    assert {r["feedback"]["mode"] for r in of(rows, "feedback")} == {"suppressed"}
    assert all("connection" in r["feedback"]["reason"] for r in of(rows, "feedback"))
    assert all(r["end"]["exit_status"] in ("submitted", "turn_limit") for r in of(rows, "end"))


def test_of_several_candidates_the_shortest_is_delivered(lake: Lake) -> None:
    with ChatServer(lambda body: critique("long " * (1 + body["seed"] % 3))) as server:
        critic = live_model(server, samples=3, temperature=0.7, seed=2)
        critic.select = "shortest"
        rows = steer(lake, Steering("live", k=3), critic, n=3)
    assert all(r["feedback"]["text"].endswith("Guidance: long") for r in of(rows, "feedback"))
    assert len([r for r in of(rows, "verdict") if r["actor"] == "critic"]) == 3 * len(of(rows, "feedback"))


def test_what_agent_and_critic_cost_is_kept_apart(lake: Lake) -> None:
    wanted = repairs(WORLD, "train", 4, 5, corpus="rollouts/s", policy="p", run_id="s")
    setting = lambda _: Setting(  # noqa: E731
        Scripted(NoisyPolicy(0.5, 0.4)), 12, companions=lambda: (Steered(Steering("live", k=3), Numbered()),)
    )
    report = collect(lake, "rollouts/s/live", wanted, setting)
    n = len(of(events(lake, "live"), "feedback"))
    assert report.costs == {"agent": 0.0, "critic": pytest.approx(0.01 * n)}
    short = Lake(lake.uri + "-2")
    stopped = collect(short, "rollouts/s/live", wanted, setting, max_cost=0.025)
    assert stopped.cost_usd <= 0.025
    assert "0.025" in (stopped.stopped or "")


def test_the_last_review_is_in_the_cost_though_no_turn_follows_it(lake: Lake) -> None:
    wanted = repairs(WORLD, "train", 2, 5, corpus="rollouts/s", policy="p", run_id="s")
    one_turn = Listed([format_action("Look.", "view")])
    steered = lambda: (Steered(Steering("live", k=1), Numbered()),)  # noqa: E731
    report = collect(lake, "rollouts/s/live", wanted, lambda _: Setting(one_turn, 12, companions=steered))
    assert report.cost_usd == report.costs["critic"] == pytest.approx(0.02)


def test_a_recipe_steers_in_all_arms_after_a_replayed_prefix(lake: Lake) -> None:
    recipe = Steer(corpus="rollouts/s", agent=AGENT, n_tasks=4, split="train", seed=5, k=2, prefix=3)
    reports = collect_steered(lake, recipe, WORLD, lambda: supervisor_of(recipe.critic, recipe.k))
    assert list(reports) == ["off", "live", "shadow", "placebo", "notice"]
    assert all(r.complete for r in reports.values())
    columns = ["trajectory_id", "kind", "step", "start", "turn", "action", "extra", "end"]
    off = EventLog(lake).read(corpora=["rollouts/s/off"], columns=columns).to_pylist()
    texts = {(r["trajectory_id"], r["step"]): r["action"]["text"] for r in of(off, "action")}
    rows = EventLog(lake).read(corpora=["rollouts/s/live"], columns=columns).to_pylist()
    parents = {r["trajectory_id"]: r["start"]["parent_trajectory"] for r in of(rows, "start")}
    replays = [r for r in of(rows, "turn") if r["turn"]["rule"] == "replay"]
    assert {r["step"] for r in replays} <= {0, 1, 2}
    assert len(replays) >= 4
    said = {(r["trajectory_id"], r["step"]): r["action"]["text"] for r in of(rows, "action")}
    for r in replays:
        assert said[r["trajectory_id"], r["step"]] == texts[parents[r["trajectory_id"]], r["step"]]
    assert all('"replayed_same":[true' in r["extra"] for r in of(rows, "end"))
    again = collect_steered(lake, recipe, WORLD, lambda: supervisor_of(recipe.critic, recipe.k))
    assert all(r.n_done == 0 for r in again.values())


def test_rules_at_the_wheel_say_what_they_found(lake: Lake) -> None:
    rows = steer(lake, Steering("live", k=3), LiveRules(3), n=12)
    verdicts = [r["verdict"] for r in of(rows, "verdict") if r["actor"] == "critic"]
    assert {v["severity"] for v in verdicts} >= {0, 1}
    found = next(v for v in verdicts if v["severity"])
    assert found["detections"]
    text = next(r["feedback"]["text"] for r in of(rows, "feedback") if "needs correction" in r["feedback"]["text"])
    assert "Do:" in text


class Sampling(Scripted):
    """Draws what it says from the key of the turn, as a model that samples does."""

    async def reply(self, view: View) -> Reply:
        words = ("view", "check", "ls")
        return Reply(format_action("So.", words[view.sampling_seed % 3]))


def test_arms_share_their_draws(lake: Lake) -> None:
    recipe = Steer(corpus="rollouts/s", agent=AGENT, n_tasks=4, split="train", seed=5, k=2, notice_from=None)
    make = lambda settings, crowd: Sampling(NoisyPolicy())  # noqa: E731
    collect_steered(lake, recipe, WORLD, lambda: supervisor_of(recipe.critic, recipe.k), make=make)
    said = {
        arm: sorted((r["step"], r["action"]["text"]) for r in of(events(lake, arm), "action")) for arm in recipe.arms
    }
    assert said["off"] == said["shadow"] == said["notice"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UnknownName):
        Steering("loud")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Steering(k=0)
    with pytest.raises(UsageError, match="model"):
        supervisor_of(Critic(kind="endpoint"), 5)
    with pytest.raises(UsageError, match=r"jobs\.steer"):
        supervisor_of(Critic(kind="model", model="somewhere"), 5)


def test_the_most_a_review_costs_counts_every_candidate(lake: Lake) -> None:
    with ChatServer() as server:
        one, three = (live_model(server, samples=n, temperature=0.7, prices=Prices(1, 1, 1)) for n in (1, 3))
        steer(lake, Steering("off"), None, n=1)
        rows = EventLog(lake).read().to_pylist()
        made = [
            Event(r["kind"], r["trajectory_id"], r["corpus"], r["actor"], r[r["kind"]], step=r["step"]) for r in rows
        ][:14]
        assert three.most_cost(made) == pytest.approx(3 * one.most_cost(made))
        assert one.most_cost(made) > 0
