"""DAgger: labels for every state, rows that train exactly them, checks that fail on logs that lack something, the loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lakes
import orjson
import pytest
import torch
from chat_server import ChatServer
from small_training import HUSH
from typer.testing import CliRunner

from jobs import dagger
from jobs.make_base import start_from_scratch
from schemas.tables import DATASET
from stepwell import invariants
from stepwell.batching import Crowd
from stepwell.chat import prompt_hash
from stepwell.cli import build_app
from stepwell.conversation import REPLAYED, Prompt, prompts
from stepwell.curation.masks import mask_new, rule_of
from stepwell.dagger import STAGES, Loop
from stepwell.datasets.build import Built, build
from stepwell.datasets.verify import verify
from stepwell.drift import drift
from stepwell.errors import RecipeError, UsageError
from stepwell.evaluation.rows import evaluation_id, record_rows
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Evaluation, Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.collect import collect
from stepwell.rollout.labelling import counted, label_new
from stepwell.rollout.mixing import Mixing, Schedule, uniform
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched, Policy, Reply, Scripted, View
from stepwell.rollout.policies.scripted import NoisyPolicy, OraclePolicy
from stepwell.rollout.runs import repairs
from stepwell.settings import World
from stepwell.stored import require_schema

ROOT = Path(__file__).parent.parent
WORLD = World(functions=1, bugs_max=1, max_turns=8)
CORPUS = "rollouts/d-1"
HALF = Schedule("constant", start=0.5)


def mixed(lake: Lake, schedule: Schedule | None = HALF, n: int = 10) -> list[str]:
    """Rollouts of a noisy student and the oracle; without a schedule of the student alone, unlabelled."""

    def setting(crowd: Crowd) -> Setting:
        student = Scripted(NoisyPolicy(0.4))
        if schedule is None:
            return Setting(student, WORLD.max_turns)
        return Setting(student, WORLD.max_turns, teacher=Scripted(OraclePolicy()), mixing=Mixing(schedule))

    wanted = repairs(WORLD, "train", n, 7, corpus=CORPUS, policy="p", run_id="d-1")
    return collect(lake, CORPUS, wanted, setting).trajectories


def derived(lake: Lake, renderer: Renderer, method: str = "dagger", where: str = "true", **dataset: Any) -> Built:
    settings = {"method": method, "held_out": 0.0, "max_length": 4000, **dataset}
    mask = {"rule": "student"} if method == "oec" else {}
    recipe = Recipe.model_validate(
        {"name": "d-1", "source": {"corpora": [CORPUS], "where": where}, "dataset": settings, "mask": mask}
    )
    rule = rule_of(recipe.mask)
    mask_new(lake, rule)
    return build(lake, recipe, renderer, str(rule))


def turns(lake: Lake) -> list[Prompt]:
    return list(prompts(EventLog(lake).read(columns=list(REPLAYED))))


def labels(lake: Lake) -> dict[tuple[str, int], list[dict[str, Any]]]:
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for r in EventLog(lake).read(kinds=["label"]).to_pylist():
        found.setdefault((r["trajectory_id"], r["step"]), []).append(r)
    return {k: sorted(v, key=lambda r: r["label"]["resample"]) for k, v in found.items()}


def trained(row: dict[str, Any]) -> dict[int, str]:
    """What a row trains, by step."""
    said = [m["content"] for m in json.loads(row["messages"]) if m["role"] == "assistant"]
    return {s: text for s, text, w in zip(row["steps"], said, row["weights"], strict=True) if w}


def lines(built: Built) -> dict[str, dict[str, int]]:
    return {line["line"]: line for line in built.funnel}


def test_every_label_is_trained_once_and_nothing_else(lake: Lake, renderer: Renderer) -> None:
    mixed(lake)
    built = derived(lake, renderer)
    rows = lake.read(built.table)
    require_schema(DATASET, rows)
    assert verify(rows, renderer, lake).ok
    assert invariants.dataset_rows(lake, rows) == []
    want = {k: v[0]["label"]["text"] for k, v in labels(lake).items()}
    got: dict[tuple[str, int], str] = {}
    for row in rows.to_pylist():
        for step, text in trained(row).items():
            assert (row["trajectory_id"], step) not in got, "no label twice"
            got[row["trajectory_id"], step] = text
    assert got == want
    executed = {(p.trajectory_id, p.step): p.rows["action"][0]["action"]["text"] for p in turns(lake)}
    differ = {k for k in want if want[k] != executed[k]}
    assert differ, "the student erred at times"
    asked = {(p.trajectory_id, p.step): p.messages for p in turns(lake)}
    ids = {label["event_id"] for of_turn in labels(lake).values() for label in of_turn}
    alone = 0
    for row in rows.to_pylist():
        messages, last = json.loads(row["messages"]), (row["trajectory_id"], row["steps"][-1])
        assert messages[:-1] == asked[last], "the context is what the policy was sent, executed turns and all"
        assert set(row["mask_event_ids"]) <= ids
        if last in differ:
            assert row["weights"] == [0.0] * (len(row["steps"]) - 1) + [1.0]
            assert row["event_ids"][-1] == row["mask_event_ids"][0]
            start = next(i for i, label in enumerate(row["labels"]) if label != -100)
            assert row["input_ids"][:start] == renderer.prompt_ids(asked[last])
            alone += 1
        else:
            assert not {(row["trajectory_id"], s) for s in trained(row)} & differ
    assert alone == len(differ)
    assert lines(built)["trained"]["steps"] == len(want) == lines(built)["in"]["steps"]


def test_pure_teacher_rollouts_are_one_sequence_each(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, Schedule("paper"), 4)
    built = derived(lake, renderer)
    assert built.n_rows == 4
    assert built.masked_share == 0


def test_verify_finds_a_row_that_says_what_no_event_says(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, n=4)
    row = next(r for r in lake.read(derived(lake, renderer).table).to_pylist() if r["n_masked_steps"])
    import pyarrow as pa

    def problems(**changed: Any) -> list[str]:
        return verify(pa.Table.from_pylist([row | changed], DATASET.schema), renderer, lake).problems

    assert problems() == []
    messages = json.loads(row["messages"])
    said = [{**messages[-1], "content": "THOUGHT: another"}]
    other = renderer.encode([*messages[:-1], *said], row["weights"])
    changed = {"messages": json.dumps([*messages[:-1], *said]), "input_ids": other.input_ids, "labels": other.labels}
    (problem,) = problems(**changed)
    assert "is not what event" in problem
    (problem,) = problems(event_ids=row["event_ids"][:-1] + row["event_ids"][:1])
    assert "is not what event" in problem


def test_rows_too_long_are_counted(lake: Lake, renderer: Renderer) -> None:
    mixed(lake)
    lengths = sorted(lake.read(derived(lake, renderer).table).column("n_tokens").to_pylist())
    limit = lengths[len(lengths) // 2]
    built = derived(lake, renderer, max_length=limit)
    assert built.n_rows == sum(n <= limit for n in lengths)
    counts = lines(built)
    reason = f"longer than {limit} tokens"
    lost = counts.get(f"part dropped: {reason}", {}).get("steps", 0)
    dropped = counts.get(f"dropped: {reason}", {"steps": 0, "trajectories": 0})
    assert lost + dropped["steps"] + counts["trained"]["steps"] == counts["in"]["steps"]
    assert counts["out"]["trajectories"] + dropped["trajectories"] == 10


def test_turns_without_a_label_drop_the_trajectory(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, n=3)
    events = EventLog(lake).read().to_pylist()
    lost = next(r for r in events if r["kind"] == "label")
    gone = {"target_event": lost["event_id"], "action": "redact", "reason": "test"}
    EventLog(lake).append([Event("retraction", lost["trajectory_id"], CORPUS, "human", gone, lost["step"])], "r")
    assert lines(derived(lake, renderer))["dropped: turns without the teacher's label"]["trajectories"] == 1
    (problem,) = invariants.labels_cover_turns(lake)
    assert problem == f"trajectory {lost['trajectory_id']}, step {lost['step']}: no label"


def test_advice_that_takes_the_place_of_advice_makes_a_row_of_every_turn(lake: Lake, renderer: Renderer) -> None:
    stream = mixed(lake, Schedule("paper"), 2)[0]

    def rows_after_advice(text: str, step: int) -> list[dict[str, Any]]:
        advice = {"mode": "delivered", "text": text, "role": "user"}
        EventLog(lake).append([Event("feedback", stream, CORPUS, "critic", advice, step)], "f")
        rows = lake.read(derived(lake, renderer).table)
        assert verify(rows, renderer, lake).ok
        return [r for r in rows.to_pylist() if r["trajectory_id"] == stream]

    n = sum(p.trajectory_id == stream for p in turns(lake))
    (whole,) = rows_after_advice("Look again.", 0)
    assert "Look again." in whole["messages"], "what stays where it was said is one growing sequence"
    apart = rows_after_advice("Submit.", 2)
    assert len(apart) == n > 3
    assert all(len(trained(r)) == 1 for r in apart)
    assert {("Look again." in r["messages"], "Submit." in r["messages"]) for r in apart} == {
        (False, False), (True, False), (False, True),
    }  # fmt: skip
    counts = lines(derived(lake, renderer, "all"))
    reason = "dropped: feedback or notices were shown: its prompts are not one growing sequence"
    assert (counts[reason]["trajectories"], counts["out"]["trajectories"]) == (1, 1)


CLOSED: list[str] = []
"""Teachers that were closed."""


class Asked:
    """A teacher that sees messages only, and counts them; every third resample it says something else."""

    backend = "test"

    def __init__(self, name: str = "asked") -> None:
        self.name, self.views = name, 0

    def act_many(self, views: Sequence[View]) -> list[Reply]:
        self.views += len(views)
        odd = ["sub 1 'x' 'y'" if v.key.endswith("/2") else "check" for v in views]
        return [Reply(f"THOUGHT: so.\n\n```bash\n{c}\n```", usage={"cost_usd": 0.1, "tokens_out": 5}) for c in odd]


class Priced(Batched):
    """It costs at most twenty cents a label."""

    async def close(self) -> None:
        CLOSED.append(self.name)

    def most_cost(self, view: View) -> float:
        return 0.2


def teaching(asked: Asked) -> Callable[[Crowd], Policy]:
    return lambda crowd: Priced(asked, crowd, 8)


def test_labels_afterwards_are_asked_once_and_go_on(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, None, 6)
    asked, states = Asked(), len(turns(lake))
    one = turns(lake)[0].trajectory_id
    assert counted(lake, CORPUS, "asked", only=[one]).n_wanted == sum(p.trajectory_id == one for p in turns(lake))
    planned = label_new(lake, CORPUS, teaching(asked), dry_run=True)
    assert (planned.n_wanted, planned.n_known, asked.views) == (states, 0, 0)
    assert planned.most_usd == pytest.approx(0.2 * states)
    first = label_new(lake, CORPUS, teaching(asked), max_cost=1.25, parallel=3)
    assert 0 < first.n_new < states
    assert first.cost_usd <= 1.25
    assert (first.n_wanted, first.complete) == (states, False)
    assert "1.25" in (first.stopped or "")
    CLOSED.clear()
    second = label_new(lake, CORPUS, teaching(asked))
    assert CLOSED == ["asked"], "its connections are released"
    assert (second.n_known, second.n_new, second.complete) == (first.n_new, states - first.n_new, True)
    assert asked.views == states, "nothing was asked twice"
    assert label_new(lake, CORPUS, teaching(asked)).n_new == 0
    of_state = labels(lake)
    for prompt in turns(lake):
        (label,), action = of_state[prompt.trajectory_id, prompt.step], prompt.rows["action"][0]
        assert label["label"]["state_hash"] == action["action"]["state_hash"]
        assert label["usage"]["prompt_hash"] == action["usage"]["prompt_hash"] == prompt_hash(prompt.messages)
        assert (label["label"]["timing"], label["label"]["source"]) == ("posthoc", "queried")
        assert (label["policy"], label["caused_by"]) == ("asked", action["event_id"])
    assert not list(invariants.labels_fit_states(lake))
    assert verify(lake.read(derived(lake, renderer).table), renderer, lake).ok


def test_resamples_measure_the_teacher_and_may_all_be_trained_on(lake: Lake, renderer: Renderer) -> None:
    ids = mixed(lake, None, 4)
    states = len(turns(lake))
    label_new(lake, CORPUS, teaching(Asked()))
    more = label_new(lake, CORPUS, teaching(Asked()), resamples=3)
    assert (more.n_known, more.n_new) == (states, 2 * states)
    assert counted(lake, CORPUS, "asked", 3).complete
    agreement = drift(EventLog(lake), ids, "asked").self_agreement
    assert sum(s.n for s in agreement.values()) == 3 * states
    assert sum(s.k for s in agreement.values()) == states, "of three labels two are equal"
    once, every = (derived(lake, renderer, labels=which) for which in ("first", "all"))
    count = [sum(len(trained(r)) for r in lake.read(b.table, b.version).to_pylist()) for b in (once, every)]
    assert count == [states, 3 * states]


def test_labels_of_two_teachers_are_not_mixed(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, n=3)
    label_new(lake, CORPUS, teaching(Asked()))
    with pytest.raises(RecipeError, match="several teachers"):
        derived(lake, renderer)
    said = [
        t for r in lake.read(derived(lake, renderer, teacher="asked").table).to_pylist() for t in trained(r).values()
    ]
    assert set(said) == {"THOUGHT: so.\n\n```bash\ncheck\n```"}


def test_a_scripted_teacher_cannot_label_afterwards(lake: Lake) -> None:
    mixed(lake, None, 2)
    with pytest.raises(UsageError, match="reads the state of the environment"):
        label_new(lake, CORPUS, lambda _: Scripted(OraclePolicy()))


def test_a_teacher_that_does_not_answer_is_asked_again(lake: Lake) -> None:
    class Away(Asked):
        def act_many(self, views: Sequence[View]) -> list[Reply]:
            there = super().act_many(views)
            return [
                Reply(None, "connection") if "/0/teacher" in v.key else r for v, r in zip(views, there, strict=True)
            ]

    mixed(lake, None, 3)
    report = label_new(lake, CORPUS, teaching(Away()))
    assert (report.n_failed, report.reasons, report.complete) == (3, {"connection": 3}, False)
    assert label_new(lake, CORPUS, teaching(Asked())).n_new == 3


def test_oec_trains_the_teachers_part_only(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, Schedule("switch", turns=6), 12)
    assert [list(rule(lake)) for rule in (invariants.turns_say_who_acts, invariants.labels_cover_turns)] == [[], []]
    built = derived(lake, renderer, "oec")
    rows = lake.read(built.table).to_pylist()
    assert verify(lake.read(built.table), renderer, lake).ok
    chosen = {(p.trajectory_id, p.step): p.rows["turn"][0] for p in turns(lake)}
    masks = {r["event_id"]: r["mask"] for r in EventLog(lake).read(kinds=["mask"]).to_pylist()}
    seen = set()
    for row in rows:
        who = [chosen[row["trajectory_id"], s]["turn"]["chosen"] for s in row["steps"]]
        assert row["weights"] == [float(w == "teacher") for w in who]
        for step, event, weight in zip(row["steps"], row["mask_event_ids"], row["weights"], strict=True):
            assert masks[event]["reason"] == ("teacher_turn" if weight else "student_turn")
            assert masks[event]["evidence"] == [chosen[row["trajectory_id"], step]["event_id"]]
            seen.add(weight)
    assert seen == {0.0, 1.0}
    resolved = derived(lake, renderer, "oec", where="resolved")
    assert resolved.n_rows <= built.n_rows
    strict = lines(derived(lake, renderer, "oec", max_repeats=1))
    assert any(line.startswith("dropped: says the same more than 1 times") for line in strict)


def test_oec_wants_a_single_switch(lake: Lake, renderer: Renderer) -> None:
    mixed(lake, n=2)
    with pytest.raises(RecipeError, match="no single switch"):
        derived(lake, renderer, "oec")


MIXED = (invariants.draws_follow_beta, invariants.turns_say_who_acts, invariants.labels_cover_turns)


def written(lake: Lake, n: int = 60, **changes: Any) -> list[list[str]]:
    """Problems of a log of single-turn trajectories at beta .5, as the schedule draws them, changed."""
    events = []
    for t in range(n):
        decision = HALF.decide(f"t{t}", 0, 1)
        turn = {**decision.payload(), "state_hash": "s", **changes.get("turn", {})}
        acted = changes.get("actor", turn["chosen"])
        action = Event("action", f"t{t}", "c", acted, {"text": "x", "state_hash": "s"}, 0)
        events += [Event("turn", f"t{t}", "c", "system", turn, 0), action]
        if t or not changes.get("bare"):
            label = {"text": "x", "state_hash": changes.get("state", "s"), "source": "executed", "resample": 0}
            events.append(Event("label", f"t{t}", "c", "teacher", label, 0, "oracle", caused_by=action.event_id))
    EventLog(lake).append(events, "w")
    return [list(rule(lake)) for rule in MIXED]


def test_a_log_as_it_should_be_has_no_problems(lake: Lake) -> None:
    assert written(lake) == [[], [], []]
    assert not list(invariants.labels_fit_states(lake))


def test_a_missing_label_is_found(lake: Lake) -> None:
    assert written(lake, bare=True) == [[], [], ["trajectory t0, step 0: no label"]]


@pytest.mark.parametrize("missing", ["draw", "rng_key", "beta"])
def test_a_turn_that_does_not_say_is_found(lake: Lake, missing: str) -> None:
    said = written(lake, turn={missing: None})[1]
    assert len(said) == 60
    assert said[0].endswith(f"no {missing}")


def test_a_draw_that_is_not_its_keys_and_a_choice_that_is_not_its_draws(lake: Lake, tmp_path: Path) -> None:
    assert all("not that of its key" in p for p in written(lake, turn={"draw": 0.25})[1])
    low = next(f"k{i}" for i in range(100) if uniform(f"k{i}") < 0.4)
    changed = {"rng_key": low, "draw": uniform(low), "chosen": "agent"}
    assert all("does not give agent" in p for p in written(Lake(tmp_path / "two"), turn=changed)[1])


def test_another_actor_than_chosen_is_found(lake: Lake) -> None:
    said = written(lake, actor="agent")[1]
    assert said
    assert all("teacher was to act, agent did" in p for p in said)


def test_a_share_that_was_not_declared_is_found(lake: Lake) -> None:
    (problem,) = written(lake, n=200, turn={"beta": 0.8})[0]
    assert "at beta 0.8, z -" in problem


def test_a_label_of_another_state_is_found(lake: Lake) -> None:
    written(lake, n=2, state="elsewhere")
    assert len(list(invariants.labels_fit_states(lake))) == 2
    other = Lake(f"{lake.uri}-2")
    written(other, n=2, state=None)
    assert len(list(invariants.labels_fit_states(other))) == 2, "no state is not the state"


def test_the_figures_of_a_mixture(lake: Lake) -> None:
    ids = mixed(lake, n=20)
    found = drift(EventLog(lake), ids, "oracle")
    acted = [p.rows["turn"][0]["turn"]["chosen"] for p in turns(lake)]
    assert (found.taught.k, found.taught.n) == (acted.count("teacher"), len(acted))
    assert found.labelled.value == 1
    assert found.beta == 0.5
    assert found.z is not None
    assert abs(found.z) < 3
    assert sum(k * n for k, n in found.runs.items()) == acted.count("agent")
    assert found.student_differ.k == found.differ.k > 0, "the teacher agrees with itself"
    assert sum(s.n for s in found.by_prefix.values()) == found.student_differ.n == acted.count("agent")
    after = found.errors_after["agent"].n + found.errors_after["teacher"].n
    assert after == sum(a == "teacher" and p.step > 0 for a, p in zip(acted, turns(lake), strict=True))
    assert orjson.dumps(found.plain())


def experiment(folder: Path, **dagger: Any) -> Path:
    """A small recipe with a base of its own, made from scratch."""
    settings = {
        "world": WORLD.model_dump(), "base_model": str(folder / "base"), "dataset": {"method": "dagger", "held_out": 0.1},
        "dagger": {"iterations": 2, "n_tasks": 4, "student": {"kind": "model", "temperature": 0.7, "max_new_tokens": 12}},
        "architecture": {"vocab_size": 400, "hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 64},
        "train": {"epochs": 1, "batch_size": 4, "save_steps": 1, "learning_rate": 1e-3},
        "evaluation": {"n_tasks": 2, "max_new_tokens": 12},
    }  # fmt: skip
    settings["dagger"] |= dagger  # type: ignore[operator]
    file = folder / "loop.yaml"
    file.write_text(json.dumps(settings))
    if not (folder / "base").is_dir():
        start_from_scratch(load(file), ["THOUGHT: Look at the code.\n\n```bash\nview\n```"] * 20, folder / "base")
    return file


def test_iterations_know_their_inputs(lake: Lake, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    loop = Loop(load(experiment(tmp_path)), lake)
    assert loop.student(1)[1].startswith("base-")
    assert loop.state(2) == [{"iteration": i, "stage": s, "done": False} for i in (1, 2) for s in STAGES]
    with pytest.raises(UsageError, match=r"stepwell dagger loop --iterations 1.*partition 1 of models/loop"):
        loop.wanted(2)
    with pytest.raises(UsageError, match="`collect` is not done"):
        loop.build(1)
    more = Loop(load(experiment(tmp_path, iterations=9)), lake)
    assert more.recipe(1).hash == loop.recipe(1).hash, "how many follow changes nothing"
    warmer = Loop(load(experiment(tmp_path, student={"kind": "model", "temperature": 0.9})), lake)
    assert warmer.run_id(1) != loop.run_id(1)
    assert not {w.identity for w in warmer.wanted(1)} & {w.identity for w in loop.wanted(1)}
    for aggregate, used in (("union", [1, 2, 3, 4]), ("latest", [4]), ("window", [2, 3, 4])):
        windowed = Loop(load(experiment(tmp_path, aggregate=aggregate, window=3)), lake)
        assert list(windowed.used(4)) == used
    with pytest.raises(RecipeError, match="can label a state once"):
        Loop(load(experiment(tmp_path, resamples=2)), lake)
    with pytest.raises(RecipeError, match="must be a `model`"):
        Loop(load(experiment(tmp_path, student={"kind": "oracle"})), lake)
    several = load(experiment(tmp_path)).model_copy(update={"evaluation": Evaluation(sampling_seeds=(0, 1))})
    with pytest.raises(RecipeError, match="evaluates under seed 0 alone"):
        Loop(several, lake)
    told = CliRunner().invoke(build_app(), ["dagger", str(experiment(tmp_path)), "--lake", lake.uri, "--dry-run"])
    assert orjson.loads(told.stdout)["beta"] == [1.0, 0.8]


@pytest.mark.parametrize("n_tasks", [0, 2, 50])
def test_an_evaluation_is_done_when_every_task_of_its_file_is(lake: Lake, tmp_path: Path, n_tasks: int) -> None:
    whole = load(experiment(tmp_path))
    file = tmp_path / "tasks.jsonl"
    tasks = [{"instance_id": f"t-{n}", "repo": "a/b", "base_commit": "c", "problem_statement": "So."} for n in (1, 2)]
    file.write_text("\n".join(map(json.dumps, tasks)))
    asked = Evaluation.model_validate({"suite": "x", "n_tasks": n_tasks, "tasks": {"path": str(file), "suite": "x"}})
    loop = Loop(whole.model_copy(update={"evaluation": asked}), lake)
    base = loop.student(1)[1]
    for n, known in ((1, None), (2, evaluation_id(loop.whole, base))):
        assert loop.evaluation(0) is None
        assert loop.rates(0) == {}
        EventLog(lake).append(lakes.good_repair(f"x-{n}", task_id=f"t-{n}", corpus="evaluations/x"), "x")
        record_rows(
            lake, [f"x-{n}"], evaluation_id=evaluation_id(loop.whole, base), suite="x", recipe="base", model_id=base,
            seed=0, backend="test",
        )  # fmt: skip
        assert loop.evaluation(0) == known
    assert loop.rates(0)["base"].n == 2


def start(recipe: Path, lake: Lake) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.dagger", "--recipe", str(recipe), "--lake", lake.uri, "--parallel", "2"]
    return subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def kill_when(process: subprocess.Popen[str], happens: Callable[[], bool]) -> None:
    ends = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < ends
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_loop_killed_anywhere_goes_on_where_it_was(lake: Lake, tmp_path: Path) -> None:
    recipe = experiment(tmp_path, n_tasks=12)
    kill_when(start(recipe, lake), lambda: (lake.version("events") or 0) >= 1)  # while it collects
    log = EventLog(lake)
    kept = {r["trajectory_id"] for r in log.read(kinds=["end"], columns=["trajectory_id"]).to_pylist()}
    written = "lake/checkpoints/loop-1/trainer-*/checkpoint-*/trainer_state.json"
    kill_when(start(recipe, lake), lambda: bool(list(tmp_path.glob(written))))
    assert len(lake.read("models")) == 0
    collected = Loop(load(recipe), lake).trajectories(1)
    assert len(collected) == 12
    assert kept <= set(collected), "what was finished before the kill was kept"
    third = start(recipe, lake)
    _, said = third.communicate(timeout=300)
    assert third.returncode == 0, said[-3000:]
    assert "resuming from checkpoint" in said
    assert "iteration 1: collect took" not in said
    assert "iteration 2: collect took" in said
    assert Loop(load(recipe), lake).trajectories(1) == collected
    for name, rule in invariants.EVENTS.items():
        assert not list(rule(lake)), name
    for prompt in turns(lake):
        (action,) = prompt.rows["action"]
        assert prompt_hash(prompt.messages) == action["usage"]["prompt_hash"]
    first, second = (Loop(load(recipe), lake).model(i) for i in (1, 2))
    assert first
    assert second
    assert second["base_model"] == first["path"]
    assert set(Loop(load(recipe), lake).rates(2)) == {"base", "loop-1", "loop-2"}
    fourth = start(recipe, lake)
    version = lake.version("events")
    _, said = fourth.communicate(timeout=100)
    assert (fourth.returncode, said.strip()) == (0, "2 iterations of loop are done")
    assert lake.version("events") == version


def test_a_limit_of_costs_holds_over_stages_in_processes_of_their_own(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def apart(options: dagger.Options, i: int, stage: str) -> None:
        own = dagger.Options(**vars(options))
        limits.append(own.max_cost)
        dagger.run_stage(Loop(load(options.recipe), lake), i, stage, HUSH, own)

    monkeypatch.setattr(dagger, "needs_vllm", lambda _, stage: stage == "collect")
    monkeypatch.setattr(dagger, "_apart", apart)
    with ChatServer(lambda body: "THOUGHT: Look.\n\n```bash\nview\n```") as server:
        prices = {"input": 1.0, "cached": 1.0, "output": 1.0}
        teacher = {"kind": "endpoint", "model": "t", "base_url": server.url, "prices": prices}
        file = experiment(tmp_path, n_tasks=2, teacher=teacher, evaluate=False)
        file.write_text(file.read_text().replace('"held_out": 0.1', '"held_out": 0, "max_length": 2000'))
        asked = {"recipe": str(file), "iterations": 2, "parallel": 2, "max_steps": None, "dry_run": False}
        options = dagger.Options(**asked, max_cost=5.0)
        dagger.iterate(load(file), lake, HUSH, options)
    rows = EventLog(lake).read(kinds=["action", "label"], columns=["usage"]).to_pylist()
    spent = sum((r["usage"] or {}).get("cost_usd") or 0.0 for r in rows)
    assert limits[0] == 5.0 > limits[1]
    assert 0 < spent == pytest.approx(5.0 - options.max_cost)


def test_the_ids_of_calls_are_no_difference_between_student_and_teacher(lake: Lake) -> None:
    def calls(name: str, arguments: str) -> list[dict[str, Any]]:
        return [{"id": name, "type": "function", "function": {"name": "bash", "arguments": arguments}}]

    where, events = ("t", "rollouts/x"), []
    for step, asked in enumerate(('{"command":"ls"}', '{"command": "ls -l"}')):
        done = json.dumps(calls(f"call_a{step}", '{"command": "ls"}'))
        events.append(Event("turn", *where, "system", {"beta": 0.0, "chosen": "agent"}, step=step))
        events.append(Event("action", *where, "agent", {"text": "", "tool_calls": done, "command": "ls"}, step=step))
        for n in range(2):
            extra = json.dumps({"tool_calls": calls(f"call_b{step}{n}", asked)})
            events.append(
                Event("label", *where, "teacher", {"text": "", "resample": n}, step=step, policy="asked", extra=extra)
            )
    log = EventLog(lake)
    log.append(events, "b")
    found = drift(log, ["t"], "asked")
    assert (found.differ.k, found.differ.n) == (1, 2)
    assert [(s.k, s.n) for s in found.self_agreement.values()] == [(1, 1), (1, 1)]
