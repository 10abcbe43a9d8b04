"""Judges on pairs: what is asked, in both orders, what of it is in the log, and figures against counting them out."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import lakes
import orjson
import pytest
import torch
from chat_server import ChatServer, Fault
from lakes import Step
from transformers import AutoModelForCausalLM

from jobs import evaluate_judge, pairwise
from jobs.pairwise import Asking
from jobs.report import Reporter
from stepwell.bootstrap import Figure
from stepwell.critics import prompts
from stepwell.critics.ensemble import Ensemble
from stepwell.critics.ensemble import judge_new as vote_new
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.pairing import judge_pairs
from stepwell.critics.rerendering import reproduced, rerender
from stepwell.critics.run import judge_new
from stepwell.errors import StepwellError, UsageError
from stepwell.evaluation.pairwise import Answers, compared, majority
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.pairs import Graded, Pair, drawn
from stepwell.rendering import Renderer
from stepwell.spending import Prices

HUSH = Reporter(None, silent=True)
BASE = Path(__file__).parent.parent / "jobs" / "base"
GOOD = "sub 2 + -"
Reply = Callable[[dict[str, Any]], str]


def attempt(name: str, task: str, right: bool, steps: int = 2) -> list[Event]:
    """A trajectory that looks around and then edits; what it edits tells whether it is right."""
    turns = [Step(f"view {name} {i}", f"{i} def f(x): {name}") for i in range(steps)]
    turns += [Step(GOOD if right else "sub 2 + +", "ok", truth="good" if right else "mistake"), Step("submit", "bye")]
    return lakes.trajectory(name, turns, task_id=task, resolved=right, corpus="rollouts/p")


@pytest.fixture
def tried(lake: Lake) -> Lake:
    """Three tasks with a right and two wrong attempts, and two with nothing to compare."""
    events = [e for t in range(3) for i in range(3) for e in attempt(f"t{t}-{i}", f"task-{t}", i == t % 3)]
    events += attempt("alone", "task-8", False) + attempt("nameless", "", True) + attempt("nameless-2", "", False)
    EventLog(lake).append(events, "b")
    return lake


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda body: "BETTER: A") as running:
        yield running


def shown(body: dict[str, Any]) -> tuple[str, str, str]:
    """What stands before the attempts, and both."""
    before, _, rest = str(body["messages"][1]["content"]).partition("# Attempt A")
    first, _, rest = rest.partition("# Attempt B")
    return before, first.strip(), rest.partition("# Your judgment")[0].strip()


def knowing(body: dict[str, Any]) -> str:
    return "BETTER: A" if GOOD in shown(body)[1] else "BETTER: B"


def asked(lake: Lake, server: ChatServer, most: int = 2, **options: Any) -> dict[str, Any]:
    asking = Asking("endpoint", server.url, **({"concurrency": 2} | options))
    return pairwise.ask(lake, pairwise.pairs_of(lake, most, corpora=["rollouts/p"]), asking, "judge", "judge", HUSH)


def value(told: dict[str, Any], name: str) -> float:
    return float(told[name].partition(" ")[0])


def test_pairs_are_of_one_task_and_follow_from_the_seed(tried: Lake) -> None:
    every = pairwise.pairs_of(tried, 9, corpora=["rollouts/p"])
    assert sorted((p.right.id, p.wrong.id) for p in every) == sorted(
        (f"t{t}-{t}", f"t{t}-{i}") for t in range(3) for i in range(3) if i != t
    )
    assert all(p.right.task == p.wrong.task for p in every)
    one, other = (pairwise.pairs_of(tried, 1, seed, corpora=["rollouts/p"]) for seed in (0, 3))
    assert [p.right.task for p in one] == ["task-0", "task-1", "task-2"]
    assert one != other
    assert set(one) <= set(every)
    with pytest.raises(UsageError, match="both a right and a wrong attempt among the 0 graded"):
        pairwise.pairs_of(tried, 1, corpora=["elsewhere"])


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (lambda body: "BETTER: A", {"accuracy": 0.5, "right_first": 1, "right_second": 0, "first": 1, "consistent": 0}),
        (lambda body: "**Better: attempt B**", {"accuracy": 0.5, "right_first": 0, "right_second": 1, "first": 0}),
        (knowing, {"accuracy": 1, "first": 0.5, "consistent": 1, "consistent_accuracy": 1, "undecided": 0}),
        (lambda body: "I like both.", {"accuracy": 0, "undecided": 1, "consistent": 0}),
        (lambda body: "BETTER: tie", {"accuracy": 0, "undecided": 1}),
    ],
    ids=["first", "second", "knowing", "unreadable", "tie"],
)
def test_habits_of_judges_are_told_from_knowledge(
    tried: Lake, server: ChatServer, reply: Reply, wanted: dict[str, float]
) -> None:
    server.reply = reply
    told = asked(tried, server)
    assert {name: value(told, f"{name}@1") for name in wanted} == wanted
    assert (told["pairs"], told["tasks"], told["replies"], told["calls_now"]) == (6, 3, 12, 12)
    said = reply({"messages": [{}, {"content": ""}]})
    assert told["unreadable"] == (12 if said.startswith("I like") else 0)
    assert told["ties"] == (12 if "tie" in said else 0)
    if told["undecided@1"].startswith("1"):
        assert "decided_accuracy@1" not in told, "there is nothing to be right about"


def test_both_orders_are_asked_and_differ_by_the_order_alone(tried: Lake, server: ChatServer) -> None:
    asked(tried, server)
    seen = [shown(body) for body in server.bodies]
    assert len(seen) == len(set(seen)) == 12
    for before, first, second in seen:
        assert (before, second, first) in seen
        assert (GOOD in first) != (GOOD in second)
    assert {b["messages"][0]["content"] for b in server.bodies} == {prompts.load("pairwise").system}


def test_every_reply_is_a_verdict_of_what_was_shown_first(tried: Lake, server: ChatServer) -> None:
    server.reply = knowing
    told = asked(tried, server, prices=Prices(1.0, 1.0, 4.0))
    rows = [r for r in EventLog(tried).read(kinds=["verdict"]).to_pylist() if r["policy"] == told["critic"]]
    assert len(rows) == told["replies"] == 12
    for row in rows:
        extra, verdict = orjson.loads(row["extra"]), row["verdict"]
        assert (verdict["scope"], extra["first"], row["step"]) == ("pair", row["trajectory_id"], None)
        assert verdict["judgment"] == (extra["first"] in ("t0-0", "t1-1", "t2-2"))
    assert told["tokens_in"] == sum(r["usage"]["tokens_in"] for r in rows)
    assert told["cost_usd"] == pytest.approx(sum(r["usage"]["cost_usd"] for r in rows))
    assert told["cost_usd"] == pytest.approx(told["cost_now_usd"])
    found = reproduced(EventLog(tried))
    assert (found.n, found.problems) == (12, ())


def test_more_samples_decide_by_majority_and_only_they_are_asked(tried: Lake, server: ChatServer) -> None:
    server.reply = lambda body: knowing(body) if body["seed"] != 1 else "BETTER: A"
    first = asked(tried, server, temperature=0.7, samples=1)
    assert value(first, "accuracy@1") == 1
    told = asked(tried, server, temperature=0.7, samples=3)
    assert (len(server.bodies), told["calls_now"], told["replies"]) == (36, 24, 36)
    assert value(told, "accuracy@1") == pytest.approx(1 - 1 / 6, abs=1e-3), (
        "a third of the answers is wrong in one order"
    )
    assert value(told, "undecided@2") == pytest.approx(1 / 3, abs=1e-3), "two of three differ in two of three pairs"
    assert value(told, "accuracy@3") == 1
    assert value(told, "first@3") == 0.5
    assert asked(tried, server, temperature=0.7, samples=3) == {**told, "calls_now": 0}
    assert len(server.bodies) == 36
    assert vote_new(tried, Ensemble((told["critic"],), 3)).n_verdicts == 0, (
        "answers about pairs are no votes on trajectories"
    )


def test_a_run_that_was_stopped_goes_on_and_its_cost_has_a_limit(tried: Lake, server: ChatServer) -> None:
    server.reply = knowing
    server.fault_of = lambda body: Fault(status=401) if len(server.bodies) > 5 else None
    with pytest.raises(StepwellError, match="Run it again to go on"):
        asked(tried, server, concurrency=1)
    server.fault_of = lambda body: None
    before = len(server.bodies)
    told = asked(tried, server)
    assert told["replies"] == 12
    assert len(server.bodies) - before == told["calls_now"] == 7
    with pytest.raises(StepwellError, match="could exceed the limit"):
        asked(tried, server, temperature=1.0, prices=Prices(1.0, 1.0, 1.0), max_cost=1e-6)
    assert len(server.bodies) - before == 7


def test_long_attempts_lose_the_same_number_of_turns_and_are_made_again_from_the_log(
    lake: Lake, server: ChatServer
) -> None:
    events = attempt("right", "task", True, steps=30) + attempt("wrong", "task", False, steps=12)
    EventLog(lake).append(events, "b")
    told = asked(lake, server, max_tokens=16, context=950)
    assert told["compared"] == 1
    _, first, second = min((shown(b) for b in server.bodies), key=lambda s: s[1].count("[step"), default=("", "", ""))
    n = first.count("[step")
    assert n == second.count("[step") < 14
    left = {f"The first {total - n} of its {total} turns" in text for total in (32, 14) for text in (first, second)}
    assert left == {True, False}
    (extra, _) = [orjson.loads(r["extra"]) for r in EventLog(lake).read(kinds=["verdict"]).to_pylist() if r["extra"]]
    assert extra["omitted"] == 32 - n
    found = reproduced(EventLog(lake))
    assert (found.n, found.problems) == (2, ())
    assert asked(lake, server, max_tokens=16, context=250)["reasons"].count("do not fit 234 tokens") == 1


def test_solutions_of_one_task_are_compared_by_their_code(lake: Lake, server: ChatServer) -> None:
    events = []
    for tree in ("x", "y"):
        events += [
            Event("start", tree, "rollouts/p", "system", {"task_id": "add"}),
            Event("instruction", tree, "rollouts/p", "system", {"position": 0, "role": "user", "content": "Add."}),
        ]
        for i, (code, right) in enumerate((("a - b", False), (f"a + b  # {tree}", True))):
            said = {"attempt_id": f"{tree}/{i}", "round": i, "code": f"return {code}"}
            result = {"subject": f"{tree}/{i}", "grader": "g", "rule": "all", "resolved": right}
            events += [Event("attempt", tree, "rollouts/p", "agent", said, i),
                       Event("outcome", tree, "rollouts/p", "grader", result, i)]  # fmt: skip
        events.append(Event("outcome", tree, "rollouts/p", "grader", {"subject": "trajectory", "resolved": True}))
    EventLog(lake).append(events, "b")
    server.reply = lambda body: "BETTER: A" if "a + b" in shown(body)[1] else "BETTER: B"
    told = asked(lake, server, most=9)
    assert (told["pairs"], told["tasks"], value(told, "accuracy@1")) == (4, 1, 1)
    assert "[" not in told["accuracy@1"], "one task gives no interval"
    assert {s[0] for s in map(shown, server.bodies)} == {"Add.\n\n"}
    assert reproduced(EventLog(lake)).problems == ()


def test_scores_in_the_log_compare_without_asking(tried: Lake) -> None:
    pairs = pairwise.pairs_of(tried, 2, corpora=["rollouts/p"])
    told = pairwise.recorded(tried, pairs, "ground-truth@1", HUSH)
    assert (value(told, "accuracy"), told["compared"]) == (1, 6)
    judge_new(tried, "leaks@1")
    told = pairwise.recorded(tried, pairs, "leaks@1", HUSH)
    assert (value(told, "accuracy"), value(told, "undecided")) == (0, 1), "it finds nothing in either"
    assert not {"first", "consistent"} & told.keys(), "scores have no order"
    with pytest.raises(UsageError, match="stepwell judge --critic rules@1"):
        pairwise.recorded(tried, pairs, "rules@1", HUSH)


def test_prompts_that_compare_and_prompts_that_do_not_are_kept_apart(tried: Lake, server: ChatServer) -> None:
    with pytest.raises(UsageError, match="evaluate_judge --pairs"):
        judge(tried, ModelCritic(prompts.load("pairwise"), "m"), pytest.fail)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="of kind verifier"):
        judge_pairs(tried, ModelCritic(prompts.load("verifier"), "m"), pytest.fail, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_majority_of_k_is_what_every_choice_of_k_comes_to(k: int) -> None:
    for counts in ((3, 1, 0), (1, 1, 2), (0, 4, 0), (2, 2, 1), (0, 0, 5)):
        votes = [1] * counts[0] + [-1] * counts[1] + [0] * counts[2]
        sums = [sum(chosen) for chosen in combinations(votes, k)]
        wanted = [sum(s > 0 for s in sums), sum(s < 0 for s in sums), sum(s == 0 for s in sums)]
        assert majority(counts, k) == pytest.approx([n / len(sums) for n in wanted])


def test_figures_are_shares_of_all_ways_to_ask() -> None:
    rng, samples = random.Random(4), 3
    answers = []
    for i in range(20):
        right, wrong = (Graded(f"{i}{x}", f"{i}{x}", f"task {i % 7}", x == "r") for x in "rw")
        drawn_ = [[rng.choice((1, 1, -1, 0)) for _ in range(samples)] for _ in range(2)]
        one, two = ((v.count(1), v.count(-1), v.count(0)) for v in drawn_)
        answers.append(Answers(Pair(right, wrong), (one, two)))
    found = compared(answers, samples, draws=300)
    for k in (1, 2, 3):
        tally: dict[str, list[float]] = {name: [] for name in ("accuracy", "decided_accuracy", "first", "right_second")}
        agreed: list[tuple[float, float]] = []
        for a in answers:
            sides = []
            for order, counts in enumerate(a.counts):
                votes = [1] * counts[0] + [-1] * counts[1] + [0] * counts[2]
                sums = [sum(c) for c in combinations(votes, k)]
                sides.append(sums)
                tally["accuracy"].append(sum(s > 0 for s in sums) / len(sums))
                tally["right_second"] += [sum(s > 0 for s in sums) / len(sums)] if order else []
            both = [(x, y) for x in sides[0] for y in sides[1]]
            agreed.append(
                (sum(x > 0 and y > 0 for x, y in both) / len(both), sum(x < 0 and y < 0 for x, y in both) / len(both))
            )
            for order, sums in enumerate(sides):
                decided = [s for s in sums if s]
                tally["decided_accuracy"] += [sum(s > 0 for s in decided) / len(sums), len(decided) / len(sums)]
                tally["first"] += [sum((s > 0) != bool(order) for s in decided) / len(sums), len(decided) / len(sums)]
        for name in ("accuracy", "right_second"):
            assert found[f"{name}@{k}"].value == pytest.approx(sum(tally[name]) / len(tally[name]))
        for name in ("decided_accuracy", "first"):
            assert found[f"{name}@{k}"].value == pytest.approx(sum(tally[name][::2]) / sum(tally[name][1::2]))
        both_right, both_wrong = (sum(x) for x in zip(*agreed, strict=True))
        assert found[f"consistent@{k}"].value == pytest.approx((both_right + both_wrong) / len(answers))
        assert found[f"consistent_accuracy@{k}"].value == pytest.approx(both_right / (both_right + both_wrong))
    figure: Figure = found["accuracy@2"]
    assert figure.n == 40
    assert figure.low is not None
    assert figure.low < (figure.value or 0) < (figure.high or 0)
    assert compared([]) == {}


def test_a_real_model_compares_by_the_chance_of_either_letter(tried: Lake, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    pairs = pairwise.pairs_of(tried, 1, corpora=["rollouts/p"])
    told = pairwise.ask(tried, pairs, Asking(), str(BASE), "base", HUSH)
    assert (told["compared"], told["unreadable"], told["ties"]) == (3, 0, 0)
    rows = [r for r in EventLog(tried).read(kinds=["verdict"]).to_pylist() if r["policy"] == told["critic"]]
    by_order = {tuple(orjson.loads(r["extra"])[k] for k in ("first", "second")): r["verdict"] for r in rows}
    firsts = [v["judgment"] for v in by_order.values()]
    assert value(told, "first@1") == pytest.approx(sum(firsts) / 6, abs=1e-3)
    same = sum(
        by_order[p.right.id, p.wrong.id]["judgment"] != by_order[p.wrong.id, p.right.id]["judgment"] for p in pairs
    )
    assert value(told, "consistent@1") == pytest.approx(same / 3, abs=1e-3)
    renderer, model = Renderer.load(BASE), AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    row = rows[0]
    score = []
    for letter in "AB":
        reply = {"role": "assistant", "content": f"BETTER: {letter}"}
        one = renderer.encode([*rerender(EventLog(tried), row), reply], [1.0])
        likely = model(torch.tensor([one.input_ids])).logits[0, :-1].log_softmax(-1).detach()
        score.append(sum(likely[i, t] for i, t in enumerate(one.labels[1:]) if t != -100))
    assert row["verdict"]["confidence"] == pytest.approx(float(torch.softmax(torch.stack(score), 0)[0]), abs=1e-4)
    assert row["verdict"]["judgment"] == (row["verdict"]["confidence"] > 0.5)
    drawn_ = pairwise.ask(tried, pairs, Asking(samples=3, temperature=50.0), str(BASE), "base", HUSH)
    assert drawn_["replies"] == 18
    texts = {
        r["verdict"]["raw"]
        for r in EventLog(tried).read(kinds=["verdict"]).to_pylist()
        if r["policy"] == drawn_["critic"]
    }
    assert texts == {"BETTER: A", "BETTER: B"}, "nearly even odds are drawn from, not rounded"


def test_the_command_prints_one_document_and_refuses_what_does_not_go_together(
    tried: Lake, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEPWELL_JSON", "0")

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["evaluate_judge", "--lake", tried.uri, *words])
        evaluate_judge.main()

    server.reply = knowing
    endpoint = ["--model", "judge", "--backend", "endpoint", "--base-url", server.url]
    priced = ["--price-in", "1", "--price-out", "2"]
    run("--pairs", "2", "--corpus", "rollouts/p", *endpoint, *priced, "--samples", "2", "--temperature", "1", "--json")
    told = orjson.loads(capfd.readouterr().out)
    assert told["accuracy@2"].startswith("1.000 [1.000,1.000]")
    assert told["made"] == told["evaluation_id"]
    assert told["cost_usd"] > 0
    run("--pairs", "1", "--corpus", "rollouts/p", "--critic", "ground-truth@1", "--json")
    assert orjson.loads(capfd.readouterr().out)["pairs"] == 3
    for words, problem in (
        (["--recipe", "verifier", "--samples", "2"], "--samples belong to pairs"),
        (["--pairs", "1"], "either a --recipe or"),
        (["--pairs", "1", "--corpus", "c"], "who compares"),
        (["--pairs", "1", "--corpus", "c", "--model", "m", "--critic", "c"], "one of both"),
        (["--pairs", "0", "--corpus", "c", "--model", "m"], "at least 1"),
        (["--pairs", "1", "--corpus", "c", "--model", "m", "--price-in", "1"], "both --price-in and --price-out"),
    ):
        with pytest.raises(UsageError, match=problem):
            run(*words)


def test_a_trajectory_that_has_solutions_is_no_attempt() -> None:
    one, other = Graded("a", "a", "t", True), Graded("b", "b", "t", False)
    tree = [Graded("s", "a", "t", False), one, other]
    assert drawn(tree, 5) == [], "a trajectory with solutions is no attempt beside them, nor beside a trajectory"
    assert drawn([one, other], 5) == [Pair(one, other)]
