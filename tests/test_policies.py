"""The oracle repairs whatever it is given, the noisy policy sometimes fails, and labels follow from the environment."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from jailed import sandbox

from stepwell.errors import UsageError
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.environments.truth import failed, label_step, still_outstanding
from stepwell.rollout.episode import Episode, EpisodeRunner, run_episode
from stepwell.rollout.families import EVAL_FAMILIES, TRAIN_FAMILIES
from stepwell.rollout.policies import Reply, ScriptedPolicy, View
from stepwell.rollout.policies.scripted import NoisyPolicy, OraclePolicy, next_command, say, spoil
from stepwell.rollout.repair import Difficulty, RepairTask, make_task
from stepwell.rollout.scaffolds import render
from stepwell.rollout.scaffolds.bash import format_action

HARD = Difficulty(5, 1, 3, 0.6, "line")
MESSES = (
    "rm mod.py",
    "echo garbage >> mod.py",
    "echo 'def (' > mod.py",
    "sed -i 's/  #.*//' mod.py",
    "sed -i 2d mod.py",
    "sed -i '1i import os' mod.py",
    "printf '\\377\\000' > mod.py",
    "sed -i 's/return/return  /' mod.py",
    "tac mod.py > x && mv x mod.py",
    "sed -i '2s/return .*  #/return 0  #/' mod.py",
    "sed -i 's/ + / - /; s/return (/return ((/' mod.py",
    "rm mod.py && mkdir mod.py",
    "rm mod.py && ln -s /etc/passwd mod.py",
)


def play(policy: ScriptedPolicy, seed: int, difficulty: Difficulty = HARD, max_turns: int = 24) -> Episode:
    with RepairEnvironment(make_task(seed, TRAIN_FAMILIES, difficulty), sandbox()) as env:
        return run_episode(env, policy, max_turns=max_turns, seed=seed)


def test_the_oracle_resolves_any_mess() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        task = make_task(seed, (*TRAIN_FAMILIES, *EVAL_FAMILIES), HARD)
        with RepairEnvironment(task, sandbox()) as env:
            runner = EpisodeRunner(env, max_turns=60)
            for _ in range(rng.randint(0, 6)):
                if rng.random() < 0.4:
                    runner.advance(format_action("Mess.", rng.choice(MESSES)))
                    continue
                text = NoisyPolicy(0.9, 0.1, 0.0).act(runner.view())
                if "submit" not in text:
                    runner.advance(text)
            messed = len(runner.turns)
            while not runner.finished:
                runner.advance(OraclePolicy().act(runner.view()))
            episode = runner.finish()
        assert episode.exit_status == "submitted"
        assert episode.grade.resolved, task.task_id
        assert {turn.label for turn in episode.turns[messed:]} <= {"good", "recover"}, (seed, task.task_id)


def test_the_oracle_needs_no_states() -> None:
    with RepairEnvironment(make_task(1, TRAIN_FAMILIES, HARD), sandbox()) as env:
        runner = EpisodeRunner(env, max_turns=20)
        while not runner.finished:
            view = runner.view()
            bare = View(view.messages, turns=view.turns, task=view.task, source=view.source, rng=view.rng)
            assert OraclePolicy().act(bare) == OraclePolicy().act(view)
            runner.advance(OraclePolicy().act(bare))
        assert runner.finish().grade.resolved


def test_noise_costs() -> None:
    shares = {}
    for rate in (0.15, 0.4):
        policy = NoisyPolicy(rate)
        episodes = [play(policy, seed) for seed in range(24)]
        shares[rate] = sum(episode.grade.resolved for episode in episodes) / len(episodes)
        labels = Counter(turn.label for episode in episodes for turn in episode.turns)
        assert set(labels) == {"good", "unnecessary", "mistake", "recover"}
    assert 0 < shares[0.4] < shares[0.15] < 1


def test_an_episode_follows_from_its_seed_even_when_one_policy_plays_many() -> None:
    policy = NoisyPolicy(0.4)
    alone = [_replayable(play(policy, seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: _replayable(play(policy, seed)), range(8)))
    assert alone == together


def _replayable(episode: Episode) -> list[tuple[object, ...]]:
    return [(t.text, t.shown, t.prompt_hash, t.state_before, t.state_after, t.label) for t in episode.turns]


def test_a_turn_is_complete() -> None:
    for seed in range(10):
        episode = play(NoisyPolicy(0.5), seed)
        assert [turn.index for turn in episode.turns] == list(range(len(episode.turns)))
        for turn in episode.turns:
            assert (turn.parsed.command is None) == (turn.parsed.error is not None) == (turn.observation is None)
            assert turn.shown == (render(turn.observation).text if turn.observation else turn.parsed.error)
            assert [m["content"] for m in turn.messages] == [turn.shown]
        for before, after in zip(episode.turns, episode.turns[1:], strict=False):
            assert before.state_after == after.state_before
        assert ("---" in episode.submission) == (episode.turns[0].state_before != episode.turns[-1].state_after)


def test_text_does_not_tell_the_label() -> None:
    thoughts: dict[str, set[str]] = {}
    for seed in range(25):
        for turn in play(NoisyPolicy(0.5), seed).turns:
            thought = turn.text.split("\n")[0].rstrip(".0123456789 ")
            thoughts.setdefault(thought, set()).add("mistake" if turn.label == "mistake" else "other")
    assert 3 <= len(thoughts) <= 7
    assert all(labels == {"mistake", "other"} for thought, labels in thoughts.items() if "files" not in thought)


def test_the_runner_can_be_stopped() -> None:
    with RepairEnvironment(make_task(1, TRAIN_FAMILIES, HARD), sandbox()) as env:
        runner = EpisodeRunner(env, max_turns=3)
        turn = runner.advance(Reply("nothing", usage={"tokens_in": 3, "tokens_out": 1}))
        assert (turn.label, turn.usage) == ("mistake", {"tokens_in": 3, "tokens_out": 1})
        runner.stop("context")
        runner.stop("other")
        with pytest.raises(UsageError, match="context"):
            runner.advance("more")
        episode = runner.finish()
    assert (episode.exit_status, episode.grade.resolved, len(episode.turns)) == ("context", False, 1)


def test_the_turn_limit_ends_an_episode() -> None:
    class Idle:
        name = "idle"

        def act(self, view: View) -> str:
            return say("ls")

    episode = play(Idle(), 0, max_turns=3)
    assert (episode.exit_status, len(episode.turns), episode.grade.resolved) == ("turn_limit", 3, False)
    assert [turn.label for turn in episode.turns] == ["unnecessary"] * 3


STILL = {"exit_code": 0, "submitted": False, "changed": False, "outstanding": False, "repeated": False}


@pytest.mark.parametrize(
    ("label", "command", "before", "after", "rest"),
    [
        ("mistake", None, 1, 1, {"exit_code": None}),
        ("mistake", "sub 2 '+' '-'", 1, 2, {"changed": True}),
        ("mistake", "sub 2 '+' '-'", 1, 1, {"changed": True}),
        ("mistake", "sub 2 '+' '-'", 1, 1, {"exit_code": 1}),
        ("mistake", "sleep 99", 1, 1, {"exit_code": None}),
        ("mistake", "submit", 1, 1, {"submitted": True}),
        ("recover", "sub 2 '+' '-'", 2, 1, {"changed": True, "outstanding": True}),
        ("good", "sub 2 '+' '-'", 2, 1, {"changed": True}),
        ("unnecessary", "view", 1, 1, {"repeated": True}),
        ("unnecessary", "check", 1, 1, {"repeated": True, "exit_code": 1}),
        ("unnecessary", "ls -la", 1, 1, {}),
        ("good", "view", 1, 1, {"outstanding": True}),
        ("good", "check", 1, 1, {"exit_code": 1}),
        ("good", "grep zzz mod.py", 1, 1, {"exit_code": 1}),
        ("good", "submit", 0, 0, {"submitted": True}),
    ],
)
def test_labels(label: str, command: str | None, before: int, after: int, rest: dict[str, bool]) -> None:
    arguments = {**STILL, **rest}
    assert label == label_step(command=command, distance_before=before, distance_after=after, **arguments)  # type: ignore[arg-type]


def test_a_mistake_is_outstanding_until_made_good() -> None:
    assert still_outstanding(False, "mistake", 3, 2)
    assert still_outstanding(True, "good", 3, 2)
    assert still_outstanding(True, "recover", 3, 2)
    assert not still_outstanding(True, "recover", 2, 2)
    assert not still_outstanding(False, "good", 2, 2)


def test_failures() -> None:
    assert not failed("check", 1)
    assert failed("check", 2)
    assert failed("check", None)
    assert failed("sub 1 a b", 1)
    assert not failed("view", 0)


def test_spoiled_lines_differ() -> None:
    rng = random.Random(0)
    line = "    return cost - fee  # cost minus fee"
    spoiled = spoil(line, rng, avoid=line)
    assert spoiled is not None
    assert spoiled != line
    assert spoiled.endswith("  # cost minus fee")
    assert spoil("    return cost  # cost", rng, avoid="") is None
    task: RepairTask = make_task(0, TRAIN_FAMILIES, HARD)
    view = View((), task=task, source=task.source, rng=rng)
    assert next_command(view) == "view"
