"""Comparing arms: what is measured, what is refused, what may be said; on real evaluations of scripted policies."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import CHROMIUM, Browser
from evaluated import evaluated, model_id, once, trained
from rich.console import Console
from typer.testing import CliRunner

from schemas.contamination import CONTAMINATION
from stepwell.batching import Crowd
from stepwell.cli import build_app
from stepwell.errors import StepwellError, UnknownName, UsageError
from stepwell.evaluation.arms import arms, known
from stepwell.evaluation.compare import Comparison, compare
from stepwell.evaluation.intervals import mcnemar, wilson
from stepwell.evaluation.prices import read_prices
from stepwell.evaluation.recorded import compare_all, inconsistent, record
from stepwell.evaluation.report import document, html, markdown, write
from stepwell.evaluation.rows import record_rows, repeats
from stepwell.evaluation.tables import sheets, summary
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.rollout.collect import collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Scripted
from stepwell.rollout.policies.scripted import NoisyPolicy
from stepwell.rollout.runs import repairs
from stepwell.settings import World

WORLD = World(functions=1, bugs_max=1, max_turns=6)
DRAWS = 400


def played(lake: Lake, name: str, mistakes: float, chance: int, attempts: int = 1) -> str:
    """A scripted policy rolled out on 10 held-out tasks in the sandbox, and recorded as an evaluation."""
    identity = model_id(name)
    wanted = repairs(
        WORLD, "eval", 10, 7, corpus="evaluations/small", policy=identity, run_id=name, attempts=attempts, chance=chance
    )

    def setting(crowd: Crowd) -> Setting:
        return Setting(Scripted(NoisyPolicy(mistakes, 0.3)), WORLD.max_turns)

    done = collect(lake, "evaluations/small", wanted, setting)
    record_rows(
        lake, done.trajectories, evaluation_id=f"{identity}@small", suite="small", recipe="any", model_id=identity, seed=7,
        backend="scripted",
    )  # fmt: skip
    return f"{identity}@small"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A fixed base, and a recipe of three seeds that errs far less, on the same tasks."""
    lake = Lake(tmp_path_factory.mktemp("real") / "lake")
    played(lake, "base", 0.85, 1, attempts=2)
    for seed in range(3):
        played(lake, f"good-seed{seed}", 0.05, 10 + seed)
        trained(lake, model_id(f"good-seed{seed}"), "good", seed)
    return lake


def text_of(compared: Comparison) -> str:
    console = Console(width=220, file=io.StringIO())
    for sheet in sheets(compared):
        console.print(sheet.terminal())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_seeds_of_a_recipe_are_one_arm_and_a_gain_is_claimed(real: Lake) -> None:
    assert [(f.name, len(f.evaluations)) for f in known(real)] == [("base", 1), ("good", 3)]
    compared = compare(real, ["base", "good"])
    base, good = compared.arms
    assert (base.fixed, base.n_seeds, base.n_attempts, good.fixed, good.n_seeds, good.n_attempts) == (
        True, 1, 20, False, 3, 30,
    )  # fmt: skip
    rows = real.read("evaluations").to_pylist()
    for arm in compared.arms:
        own = [r for r in rows if r["evaluation_id"] in arm.evaluations]
        for name, column in (("resolved", "resolved"), ("submitted", "submitted"), ("steps", "n_steps")):
            assert arm.figures[name].value == pytest.approx(np.mean([r[column] for r in own])), name
        stuck = np.mean([r["longest_repeat"] >= 3 for r in own])
        assert arm.figures["stuck"].value == pytest.approx(stuck)
    assert good.components is not None
    assert base.components is None
    assert set(base.figures) >= {"pass@1", "pass^1", "pass@2", "pass^2"}
    assert base.figures["pass^2"].value <= base.figures["pass@1"].value <= base.figures["pass@2"].value  # type: ignore[operator]
    pair = compared.pairs[0]
    assert pair.claimable
    assert pair.crossed is not None
    assert pair.crossed.low is not None
    assert pair.crossed.high is not None
    assert pair.crossed.low <= pair.crossed.difference <= pair.crossed.high
    assert pair.p_value == pair.p_adjusted == pair.crossed.p_value < 0.05
    assert "good is better than base on tasks and seeds like these" in pair.sentence
    assert "10 tasks of small" in pair.sentence
    assert "good: 3 seeds" in pair.sentence
    assert any(g.group for g in pair.groups), "repositories are there"
    assert sum(m.a for m in pair.modes if m.mode.startswith("ends: ")) == pytest.approx(1)


def test_the_order_is_the_direction(real: Lake) -> None:
    one, other = (compare(real, ["base", "good"], baseline=b, draws=DRAWS).pairs[0] for b in ("base", "good"))
    assert (one.a, one.b, other.a, other.b) == ("base", "good", "good", "base")
    assert one.difference.value == pytest.approx(-(other.difference.value or 0))
    assert other.p_value == pytest.approx(one.p_value)
    assert "base is worse than good" in other.sentence


def test_a_single_run_claims_nothing_however_large_the_gap(lake: Lake) -> None:
    a = evaluated(lake, "a", once(*[False] * 20))
    b = evaluated(lake, "b", once(*[True] * 20))
    pair = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert (pair.test, pair.p_value) == ("exact McNemar", pytest.approx(mcnemar(0, 20)))
    assert not pair.claimable
    assert pair.sentence.endswith(
        "These very runs differ on tasks like these. A single run cannot tell a recipe from its seed: no gain is claimed."
    )


@pytest.mark.parametrize(("tasks", "p"), [(2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_no_sentence_claims_more_than_the_tasks_allow(lake: Lake, tasks: int, p: float) -> None:
    """All against none, in every seed: nothing varies, so the tasks alone speak, by the exact sign test."""
    for name, resolved in (("a", False), ("b", True)):
        for seed in range(2):
            model = f"{name}{seed}-0123456789ab"
            trained(lake, model, name, seed, data=name * 64)
            evaluated(lake, model, once(*[resolved] * tasks))
    compared = compare(lake, ["a", "b"], draws=DRAWS)
    (pair,) = compared.pairs
    assert (pair.test, pair.p_value, pair.detectable) == ("exact sign test over tasks", p, None)
    assert "95% interval over tasks and seeds unknown" in pair.sentence
    assert ("b is better than a" in pair.sentence) == (p < 0.05)
    assert ("No difference can be claimed" in pair.sentence) == (p > 0.05)
    assert summary(compared)[1].rows[0][2] == "none"
    assert "<svg" in html(compared)
    assert record(lake, compared) == 1
    assert lake.read("comparisons").column("crossed_low").to_pylist() == [None]


def test_shares_that_differ_by_rounding_alone_are_equal(lake: Lake) -> None:
    """Three of fifteen attempts, in one run and over three of them: 0.2 and 0.19999999999999998."""
    runs = [evaluated(lake, "a", [[i < n for i in range(5)]] * 12, sampling_seed=s) for s, n in enumerate((0, 0, 3))]
    trained(lake, model_id("b"), "b")
    evaluated(lake, model_id("b"), [[i < 3 for i in range(15)]] * 12)
    pair = compare(lake, [f"a={','.join(runs)}", "b"], draws=DRAWS).pairs[0]
    assert (pair.only_a, pair.only_b, pair.p_value, pair.test) == (0, 0, 1.0, "sign-flip test over tasks")
    assert "Not even these very runs can be told apart" in pair.sentence


def test_one_seed_of_a_trained_arm_is_no_seed(real: Lake) -> None:
    """Three seeds on one side do not make up for one on the other, unless that one is a checkpoint nobody here trained."""
    trained(real, model_id("base"), "base")
    try:
        pair = compare(real, ["base", "good"], draws=DRAWS).pairs[0]
        assert not pair.claimable
        assert (pair.test, pair.crossed) == ("sign-flip test over tasks", None)
        assert "no gain is claimed" in pair.sentence
    finally:
        handle = real.table("models")
        assert handle is not None
        handle.delete("recipe = 'base'")


def test_no_difference_names_what_could_have_been_seen(lake: Lake) -> None:
    a = evaluated(lake, "a", once(*[True] * 20, *[False] * 20))
    b = evaluated(lake, "b", once(*[True] * 12, *[False] * 8, *[True] * 8, *[False] * 12))
    pair = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert (pair.only_a, pair.only_b, pair.p_value) == (8, 8, 1.0)
    assert pair.detectable is not None
    assert f"A difference of {100 * pair.detectable:.1f} points or more would show on so many tasks" in pair.sentence


def test_intervals_of_single_attempts_are_wilsons(lake: Lake) -> None:
    a, b = evaluated(lake, "a", once(*[True] * 3, *[False] * 7)), evaluated(lake, "b", once(*[True] * 10))
    first = compare(lake, [a, b], draws=DRAWS).arms[0].figures
    assert (first["resolved"].low, first["resolved"].high) == wilson(3, 10)
    assert (first["stuck"].value, first["submitted"].value) == (0.7, 1.0)
    assert first["resolved_on_submitted"].value == pytest.approx(0.3)


def test_many_arms_are_corrected_together(lake: Lake) -> None:
    ids = [evaluated(lake, m, once(*[True] * n, *[False] * (12 - n))) for m, n in (("a", 2), ("b", 9), ("c", 8))]
    compared = compare(lake, ids, draws=DRAWS)
    raw = [p.p_value for p in compared.pairs]
    assert raw == [pytest.approx(mcnemar(0, 7)), pytest.approx(mcnemar(0, 6))]
    assert [p.p_adjusted for p in compared.pairs] == pytest.approx([2 * raw[0], max(2 * raw[0], raw[1])])
    assert all(p.n_family == 2 for p in compared.pairs)
    assert "after Holm's correction for 2 comparisons" in compared.pairs[0].sentence
    every = compare(lake, ids, every_pair=True, draws=DRAWS)
    assert [(p.a, p.b) for p in every.pairs] == [(ids[0], ids[1]), (ids[0], ids[2]), (ids[1], ids[2])]


def test_other_tasks_are_refused_by_name_or_left_out_when_asked(lake: Lake) -> None:
    a = evaluated(lake, "a", once(True, False, True))
    b = evaluated(lake, "b", once(True, True, True), first=1)
    with pytest.raises(UsageError, match=r"2 of 4 in common.*a@x.* lacks task-3; b@x.* lacks task-0.*--on-common"):
        compare(lake, [a, b])
    compared = compare(lake, [a, b], on_common=True, draws=DRAWS)
    assert (compared.n_tasks, compared.pairs[0].rate_a, compared.pairs[0].rate_b) == (2, 0.5, 1.0)
    assert f"{a}: 1 tasks of its own left out, as not all were attempted in every run." in compared.notes
    far = evaluated(lake, "c", once(True), first=50)
    with pytest.raises(UsageError, match="share no task"):
        compare(lake, [a, far], on_common=True)


def test_names_that_are_none_and_suites_that_differ(lake: Lake) -> None:
    evaluated(lake, model_id("a"), once(True, False))
    evaluated(lake, model_id("b"), once(True, False), suite="y")
    with pytest.raises(UnknownName, match=r"unknown recipe, model or evaluation 'z'; allowed: a,"):
        compare(lake, ["a", "z"])
    with pytest.raises(UnknownName, match="unknown evaluation 'lost@x'"):
        compare(lake, ["a", "two=lost@x"])
    with pytest.raises(UsageError, match=r"suite not named.*a: x; b: y.*--suite"):
        compare(lake, ["a", "b"])
    with pytest.raises(UsageError, match="1 arm named"):
        compare(lake, ["a"])
    with pytest.raises(UsageError, match="named twice"):
        compare(lake, ["a", f"other={model_id('a')}@x"])


def test_evaluations_can_be_put_together_and_must_have_been_played_alike(lake: Lake) -> None:
    def warm(events: list[Event]) -> list[Event]:
        return [replace(e, usage={**e.usage, "sampling": '{"temperature":0.7}'}) if e.usage else e for e in events]

    a, b = evaluated(lake, "a", once(True, False, False)), evaluated(lake, "b", once(True, True, False))
    base = evaluated(lake, "base", once(False, False, False))
    compared = compare(lake, [base, f"pool={a},{b}"], draws=DRAWS)
    assert (compared.arms[1].name, compared.arms[1].n_seeds, compared.pairs[0].claimable) == ("pool", 2, True)
    assert compared.pairs[0].rate_b == 0.5

    def cold(events: list[Event]) -> list[Event]:
        return [replace(e, usage={**e.usage, "sampling": '{"temperature":0}'}) if e.usage else e for e in events]

    hot = [evaluated(lake, n, once(True, True, False), change=c) for n, c in (("w", warm), ("v", cold))]
    with pytest.raises(UsageError, match=r"'pool' were not played the same way \(temperature: 0, 0\.7\)"):
        compare(lake, [base, f"pool={','.join(hot)}"])
    assert any("temperature differs" in n for n in compare(lake, hot, draws=DRAWS).notes)
    for seed, change in enumerate((warm, cold)):
        trained(lake, model_id(f"mixed{seed}"), "mixed", seed)
        evaluated(lake, model_id(f"mixed{seed}"), once(True, True, False), change=change)
    whole, left_out = compare_all(lake, DRAWS)
    assert {arm.name for c in whole for arm in c.arms} == {"a", "b", "base", "w", "v"}, "the others are compared"
    (why,) = left_out
    assert why.startswith("mixed on x: ")


def test_of_a_recipe_trained_anew_only_the_new_models_count(lake: Lake) -> None:
    for name, data in (("old", "1" * 64), ("new", "2" * 64)):
        for seed in range(2):
            trained(lake, model_id(f"{name}{seed}"), "srft", seed, data)
            evaluated(lake, model_id(f"{name}{seed}"), once(name == "new", True))
    arm = compare(lake, [f"{model_id('old0')}", "srft"], draws=DRAWS).arms[1]
    assert arm.models == (model_id("new0"), model_id("new1"))
    assert arm.figures["resolved"].value == 1.0


def test_a_seed_that_was_trained_again_is_one_run(lake: Lake) -> None:
    for name in ("old0", "new0"):
        trained(lake, model_id(name), "srft", 0)
    for sampling_seed in range(3):
        evaluated(lake, model_id("old0"), once(True, True), sampling_seed=sampling_seed)
    new = evaluated(lake, model_id("new0"), once(True, False))
    (found,) = known(lake)
    assert found.evaluations == (new,)
    (arm,) = arms(lake, [found])
    assert arm.n_seeds == 1, "two checkpoints of one seed are no two seeds"


def test_a_task_is_dirty_when_a_model_it_began_from_repeated_it(lake: Lake) -> None:
    trained(lake, "base", "first", data="1" * 64)
    trained(lake, "b", "second", data="2" * 64)
    looked_at(lake, "2" * 64, "elsewhere")
    assert repeats(lake, "b", "x")("task-0") == "unknown", "nobody compared the data its base was trained on"
    looked_at(lake, "1" * 64, "task-0")
    assert [repeats(lake, "b", "x")(task) for task in ("task-0", "task-1")] == ["exact", "clean"]
    assert repeats(lake, "nobody", "x")("task-0") == "unknown"
    a, b = evaluated(lake, "a", once(False, False, False)), evaluated(lake, "b", once(True, True, False))
    pair = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert pair.n_dirty == 1
    assert [g.difference.low is None for g in pair.contamination] == [True, False, True], "one task has no spread"


PRICES = """
name: a list
models:
  a: {input: 10, cached: 1, output: 100}
  "b*": {input: 20, cached: 2, cache_write: 25, output: 200}
  judge-1: {input: 1000, cached: 100, output: 1000}
"""


def with_critic(events: list[Event], read: bool = True) -> list[Event]:
    """Cache use on every call; a critic at the wheel after step 1 (`read`: its reply), another that judged afterwards."""
    found: list[Event] = []
    for e in events:
        found.append(replace(e, usage={**e.usage, "cache_read": 60, "cache_write": 30}) if e.kind == "action" else e)
        if e.kind == "action" and e.step == 1:
            usage = {"tokens_in": 1000, "tokens_out": 10, "cost_usd": 0.5}
            for policy in ("judge-1", "afterwards-1"):
                said = {"scope": "window", "parse_status": "ok", "detections": [{"category": f"by {policy}"}]}
                heard = replace(e, kind="verdict", actor="critic", payload=said, policy=policy, usage=usage)
                found.append(heard)
                if policy == "judge-1":
                    told = {"mode": "delivered", "text": "x", "role": "user", "verdict_id": heard.event_id}
                    told = (
                        told if read else {"mode": "suppressed", "reason": "its reply cannot be read", "role": "user"}
                    )
                    found.append(replace(e, kind="feedback", actor="critic", payload=told, policy=policy, usage=None))
    return found


@pytest.mark.parametrize("read", [True, False])
def test_costs_are_recomputed_from_usage_by_one_list(lake: Lake, tmp_path: Path, read: bool) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES)
    prices = read_prices(file)
    a = evaluated(lake, "a", once(True, True, False, True), change=partial(with_critic, read=read))
    b = evaluated(lake, "b-2", once(True, True, True, True))
    compared = compare(lake, [a, b], prices=prices, draws=DRAWS)
    first, second = (arm.figures for arm in compared.arms)
    # good_repair: 5 calls of 100..104 tokens in, 10 out; looping: 6 calls of 100..105
    tokens_in, calls = 3 * 510 + 615, 21
    model = ((tokens_in - 60 * calls) * 10 + 60 * calls * 1 + 10 * calls * 100) / 1e6 / 4
    assert first["model_usd"].value == pytest.approx(model), "tokens written to the cache cost as input unless said"
    assert first["critic_usd"].value == pytest.approx((1000 * 1000 + 10 * 1000) / 1e6), "the one at the wheel alone"
    whole = model + 1.01
    assert first["usd_per_task"].value == pytest.approx(whole)
    assert first["usd_per_resolved"].value == pytest.approx(whole / 0.75)
    assert first["critic_share"].value == pytest.approx(1.01 / whole)
    assert second["critic_usd"].value == 0
    other = (510 * 20 + 50 * 200) / 1e6
    ratio = compared.pairs[0].figures["cost_ratio"]
    assert ratio.value == pytest.approx(other / whole)
    assert ratio.low is not None
    assert ratio.low <= other / whole <= (ratio.high or 0)
    assert compared.price_policy == prices.policy
    assert prices.policy.startswith("a list@")
    assert compared.arms[0].recorded_usd == pytest.approx(4 * 0.5 + 3 * 0.05 + 0.12)
    told = next(s for s in sheets(compared) if s.title.startswith("Costs"))
    assert told.rows[0][-1] == f"${(4 * 0.5 + 3 * 0.05 + 0.12) / 4:.4g}"
    assert prices.cost("b-2", 100, 10, 40, 30) == pytest.approx((60 * 20 + 40 * 2 + 30 * 5 + 10 * 200) / 1e6)


def test_price_policies_that_do_not_fit_are_refused(lake: Lake, tmp_path: Path) -> None:
    def under(policy: str) -> Callable[[list[Event]], list[Event]]:
        return lambda events: [replace(e, usage={**e.usage, "price_policy": policy}) if e.usage else e for e in events]

    a = evaluated(lake, "a", once(True, False), change=under("list-1"))
    b = evaluated(lake, "b", once(True, False), change=under("list-2"))
    c = evaluated(lake, "c", once(True, False), change=under("list-1"))
    compared = compare(lake, [a, b], draws=DRAWS)
    assert compared.price_policy is None
    assert compared.no_costs == "costs are recorded under different price policies (list-1, list-2); give --prices FILE"
    assert "usd_per_task" not in compared.arms[0].figures
    assert compared.arms[0].recorded_usd == pytest.approx(0.17)
    same = compare(lake, [a, c], draws=DRAWS)
    assert same.price_policy == "list-1"
    assert same.arms[0].figures["usd_per_task"].value == pytest.approx(0.085)
    unnamed = [evaluated(lake, name, once(True, False)) for name in ("u", "v")]
    assert "without saying by which price list" in (compare(lake, unnamed, draws=DRAWS).no_costs or "")
    file = tmp_path / "prices.yaml"
    file.write_text("name: short\nmodels: {a: {input: 1, cached: 1, output: 1}}")
    with pytest.raises(
        UnknownName, match=r"unknown model in the price list 'b'; allowed: a\. Add its prices to 'short'"
    ):
        compare(lake, [a, b], prices=read_prices(file))
    for wrong in ("name: x", "name: x\nmodels: {a: {input: 1}}", "- 1", ": ["):
        file.write_text(wrong)
        with pytest.raises(UsageError, match=r"prices\.yaml"):
            read_prices(file)

    def uncounted(events: list[Event]) -> list[Event]:
        return [replace(e, usage={"latency_s": 1.0}) if e.usage else e for e in events]

    blind = evaluated(lake, "blind", once(True, False), change=uncounted)
    file.write_text("name: all\nmodels: {'*': {input: 1, cached: 1, output: 1}}")
    with pytest.raises(UsageError, match="calls of blind have no token counts"):
        compare(lake, [a, blind], prices=read_prices(file))
    assert "not every call has a recorded cost" in (compare(lake, [a, blind], draws=DRAWS).no_costs or "")

    def first_only(events: list[Event]) -> list[Event]:
        paid = next(e.event_id for e in events if e.usage)
        free = [replace(e, usage={**e.usage, "cost_usd": None}) if e.usage else e for e in under("list-1")(events)]
        return [replace(f, usage=e.usage) if e.event_id == paid else f for e, f in zip(events, free, strict=True)]

    partly = evaluated(lake, "partly", once(True, False), change=first_only)
    assert "not every call has a recorded cost" in (compare(lake, [a, partly], draws=DRAWS).no_costs or "")


def test_fallback_rows_stand_beside_the_plain_ones(lake: Lake) -> None:
    def unsubmitted(events: list[Event]) -> list[Event]:
        stop = {"exit_status": "limits", "submission": None}
        return [replace(e, payload=stop) if e.kind == "end" else e for e in events]

    base = evaluated(lake, "base", [[True, False], [True, True], [False, False], [False, True]])
    arm = evaluated(lake, "arm", once(False, False, False, False), change=unsubmitted)
    compared = compare(lake, [base, arm], fallback=True, draws=DRAWS)
    assert compared.arms[1].figures["resolved"].value == 0.0
    rates = {name: f.value for name, f in compared.fallback}
    assert rates == {
        f"{base} + another run of its own where not submitted": 0.5, f"{arm} + {base} where not submitted": 0.5,
    }  # fmt: skip
    assert compare(lake, [base, arm], draws=DRAWS).fallback == []


def looked_at(lake: Lake, data: str, *dirty: str, compared: Sequence[str] = ()) -> None:
    rows = [("looked_at", "", "", 6.0), *(("exact", "r", task, 1.0) for task in dirty)]
    rows += [("looked_at", "", task, 1.0) for task in compared]
    lake.add(
        "contamination",
        pa.Table.from_pylist(
            [
                {"dataset": "datasets/b", "dataset_version": 0, "dataset_hash": data, "gate": "g", "suite": "evaluations/x",
                 "row_id": row, "task_id": task, "detector": detector, "score": score, "waived": None,
                 "recorded_at": datetime(2026, 1, 1, tzinfo=UTC)}
                for detector, row, task, score in rows
            ],
            CONTAMINATION.schema,
        ),
    )  # fmt: skip


def test_dirty_and_clean_tasks_and_what_nobody_looked_at(lake: Lake) -> None:
    a, b = evaluated(lake, "a", once(*[False] * 6)), evaluated(lake, "b", once(True, True, False, False, False, True))
    nothing = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert "nothing is known about contamination" in nothing.said
    trained(lake, "b", "recipe", data="e" * 64)
    unknown = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert (unknown.n_dirty, unknown.contamination) == (None, [])
    assert "were never compared with evaluations/x, so nobody knows which tasks are clean" in unknown.said
    assert "stepwell contamination recipe" in unknown.said
    looked_at(lake, "e" * 64, "task-0", "task-1", "elsewhere")
    split = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert (split.n_dirty, split.said) == (2, "training data repeat 2 of 6 tasks")
    assert [(g.group, g.n, g.difference.value) for g in split.contamination] == [
        ("dirty", 2, 1.0), ("clean", 4, 0.25), ("dirty - clean", 6, 0.75),
    ]  # fmt: skip


def test_a_task_that_was_not_compared_is_not_clean(lake: Lake) -> None:
    a, b = evaluated(lake, "a", once(False, False, False)), evaluated(lake, "b", once(True, True, False))
    trained(lake, "b", "recipe", data="e" * 64)
    looked_at(lake, "e" * 64, "task-0", compared=("task-0", "task-1"))
    assert [repeats(lake, "b", "x")(f"task-{i}") for i in range(3)] == ["exact", "clean", "unknown"]
    pair = compare(lake, [a, b], draws=DRAWS).pairs[0]
    assert (pair.n_dirty, pair.contamination) == (None, [])
    assert "1 of 3 tasks were never compared with the data b@x was trained on" in pair.said


def test_ways_of_failing_are_compared_where_both_were_judged(lake: Lake) -> None:
    a = evaluated(lake, "a", once(True, False, False), change=with_critic)
    b = evaluated(lake, "b", once(True, True, False))
    compared = compare(lake, [a, b], draws=DRAWS)
    found = {m.mode: (m.a, m.b) for m in compared.pairs[0].modes}
    assert found["stuck in a loop"] == pytest.approx((2 / 3, 1 / 3))
    assert found["ground-truth@1: unnecessary"] == pytest.approx((2 / 3, 1 / 3))
    assert found["ends: submitted"] == (1, 1)
    assert not any("judge-1" in mode for mode in found)
    assert any("judge-1 judged 3 of 3 of a@x and 0 of 3 of b@x" in n for n in compared.pairs[0].notes)
    third = evaluated(lake, "c", once(True, False, False))
    groups = compare(lake, [a, b, third], draws=DRAWS).pairs[0].groups
    assert [(g.group.split(":")[0], g.n) for g in groups] == [("hard", 2), ("medium", 0), ("easy", 1)]


def test_rows_are_written_once_and_checked(lake: Lake) -> None:
    for model, n in (("a", 2), ("b", 5), ("c", 3)):
        evaluated(lake, model_id(model), once(*[True] * n, *[False] * (6 - n)))
    evaluated(lake, model_id("elsewhere"), once(True, False), suite="y")
    compared, left_out = compare_all(lake, DRAWS)
    assert left_out == []
    assert [len(c.pairs) for c in compared] == [3, 0]
    compare_all(lake, DRAWS)
    rows = lake.read("comparisons").to_pylist()
    assert len(rows) == 3
    assert {(r["arm_a"], r["arm_b"], r["n_family"], r["n_seeds"]) for r in rows} == {
        ("a", "b", 3, 1), ("a", "c", 3, 1), ("b", "c", 3, 1),
    }  # fmt: skip
    assert len({r["family"] for r in rows}) == len({r["task_set"] for r in rows}) == 1
    assert all(not r["claimable"] and "no gain is claimed" in r["sentence"] for r in rows)
    assert inconsistent(lake) == []
    assert record(lake, compare(lake, ["a", "b"], draws=DRAWS)) == 1, "another family"
    assert record(lake, compare(lake, ["a", "b"], draws=DRAWS)) == 0
    assert inconsistent(lake) == []
    wrong = {**rows[0], "comparison_id": "0" * 32, "price_policy": "other", "evaluations_b": ["gone@x"]}
    lake.add("comparisons", pa.Table.from_pylist([wrong], lake.spec("comparisons").schema))
    problems = inconsistent(lake)
    assert any("'gone@x', which has no rows" in p for p in problems)
    assert any("several of price_policy: None, other" in p for p in problems)
    assert any("corrected for 3 pairs and has 4" in p for p in problems)


def test_variance_components_are_kept(real: Lake) -> None:
    record(real, compare(real, ["base", "good"], draws=DRAWS))
    row = next(r for r in real.read("comparisons").to_pylist() if r["arm_b"] == "good" and r["claimable"])
    assert row["n_seeds"] == 3
    assert set(row["variance_b"]) == {"task", "seed", "residual"}
    assert row["variance_a"] is None
    assert row["crossed_low"] < row["difference"] < row["crossed_high"]
    assert inconsistent(real) == []


def test_the_tables_read_as_they_did(lake: Lake, golden: Callable[[str, Any], None]) -> None:
    evaluated(lake, model_id("base"), [[True, False], [False, False], [True, True], [False, True]])
    for seed in range(2):
        evaluated(lake, model_id(f"new{seed}"), once(True, seed == 0, True, True))
        trained(lake, model_id(f"new{seed}"), "new", seed)
    compared = compare(lake, ["base", "new"], draws=DRAWS, fallback=True)
    golden("compare_tables", [line.rstrip() for line in text_of(compared).splitlines()])
    golden("compare_sentence", [compared.pairs[0].sentence, *compared.notes])


def test_the_command_prints_writes_and_refuses(lake: Lake, tmp_path: Path) -> None:
    app, runner = build_app(), CliRunner()
    evaluated(lake, model_id("a"), once(True, False, False))
    evaluated(lake, model_id("b"), once(True, True, False))
    told = runner.invoke(app, ["compare", "--lake", lake.uri, "-o", str(tmp_path / "r.md")])
    assert told.exit_code == 0, told.output
    assert "single run" in told.stdout
    assert "exact McNemar" in (tmp_path / "r.md").read_text()
    plain = json.loads(runner.invoke(app, ["compare", "a", "b", "--lake", lake.uri, "--json"]).stdout)
    assert plain["pairs"][0]["sentence"].endswith("no gain is claimed.")
    assert plain["n_tasks"] == 3
    write(compare(lake, ["a", "b"], draws=DRAWS), tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["pairs"][0]["n_tasks"] == 3
    wrong = runner.invoke(app, ["compare", "a", "b", "--lake", lake.uri, "-o", str(tmp_path / "r.pdf")])
    assert isinstance(wrong.exception, UsageError)
    assert ".html" in str(wrong.exception)
    grim = runner.invoke(app, ["grim", "28.4", "--n", "500"])
    assert (grim.exit_code, grim.stdout.strip()) == (0, "28.4% of 500 can be 142 resolved.")
    impossible = runner.invoke(app, ["grim", "28.5", "--n", "500"])
    assert isinstance(impossible.exception, StepwellError)
    empty = runner.invoke(app, ["compare", "--lake", str(tmp_path / "none")])
    assert isinstance(empty.exception, UsageError)


HOSTILE = '</title></svg><script>window.broken=1</script>|"&<img src=x onerror="window.broken=1">'


def hostile(lake: Lake) -> Comparison:
    for n, name in enumerate((HOSTILE, "b")):
        evaluated(lake, name, once(True, n == 1, False))
    return compare(lake, [f"{HOSTILE}@x", "b@x"], draws=DRAWS)


def test_names_are_escaped_everywhere(lake: Lake) -> None:
    compared = hostile(lake)
    page = html(compared)
    assert "<script" not in page
    assert "<img" not in page
    assert re.findall(r'(?:src|href)="?([^"> ]+)', page) == ["x"] or "src=x" not in page.replace("&lt;img src=x", "")
    told = markdown(compared)
    assert "<script" not in told
    assert all(len(re.split(r"(?<!\\)\|", line)) == 11 for line in told.splitlines() if "exact McNemar |" in line)
    assert json.dumps(document(compared), default=str)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_opens_alone_in_light_and_dark(real: Lake, lake: Lake, tmp_path: Path) -> None:
    for name, compared in (("real", compare(real, ["base", "good"], draws=DRAWS)), ("hostile", hostile(lake))):
        write(compared, tmp_path / f"{name}.html")
    with Browser(tmp_path) as browser:
        papers = []
        for scheme in ("light", "dark"):
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.open(tmp_path / "real.html")
            papers.append(browser.value("getComputedStyle(document.body).backgroundColor"))
            ink = browser.value("getComputedStyle(document.querySelector('svg text:not(.soft)')).fill")
            assert ink == browser.value("getComputedStyle(document.body).color")
            paper = browser.value("getComputedStyle(document.querySelector('svg .paper')).fill")
            assert paper == papers[-1]
        assert papers[0] != papers[1]
        assert browser.value("document.querySelectorAll('svg').length") == 3
        assert browser.value("document.querySelectorAll('svg circle').length") == 5, "a pair, two arms, two points"
        browser.open(tmp_path / "hostile.html")
        assert browser.value("window.broken") is None
        assert all(url.startswith("file://") for url in browser.requested())
        logged = [e for e in browser.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
        assert logged == []


def test_all_of_it_in_one_figure(lake: Lake) -> None:
    """The first table of a comparison names n, interval and seeds of every arm (the invariant of DESIGN.md)."""
    a, b = evaluated(lake, "a", once(True, False)), evaluated(lake, "b", once(True, True))
    arms = summary(compare(lake, [a, b], draws=DRAWS))[0]
    assert arms.rows[0][:4] == (f"{a} (single run)", "50.0% [9.5, 90.5]", "2", "2")
