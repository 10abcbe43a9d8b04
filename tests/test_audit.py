"""Auditing a critic: figures against hand counts, what cannot be read, windows, outcomes, training data, the command."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import lakes
import pyarrow as pa
import pytest
import typer
from lakes import Step
from rich.console import Console
from test_lineage import model
from test_query import dataset_row
from typer.testing import CliRunner

from schemas.models import MODELS
from stepwell.cli import audit as command
from stepwell.critics.audit import CLASSES, Training, audit, render, sheets, training_of
from stepwell.critics.run import judge_new
from stepwell.errors import UsageError
from stepwell.event import Event, to_table
from stepwell.lake import Lake
from stepwell.log import EventLog

Pair = tuple[str, str | None]


def events(pairs: list[list[Pair]], **said: Any) -> list[Event]:
    """One trajectory per list of (true label, predicted label)."""
    made: list[Event] = []
    for i, steps in enumerate(pairs):
        one = lakes.trajectory(f"t{i}", [Step("view", str(k), truth=true) for k, (true, _) in enumerate(steps)])
        acted = lakes.actions(one)
        made += [*one, *(lakes.verdict(a, predicted, **said) for a, (_, predicted) in zip(acted, steps, strict=True))]
    return made


def table(made: list[Event]) -> pa.Table:
    return to_table(made, "b", lakes.EPOCH)


def of_stream(made: list[Event], kind: str, payload: dict[str, Any], actor: str = "critic", **rest: Any) -> Event:
    """An event about the trajectory of the first of these."""
    return Event(kind, made[0].trajectory_id, "demo", actor, payload, **rest)


PAIRS: list[list[Pair]] = [
    [("good", "good"), ("good", "mistake"), ("mistake", "mistake"), ("mistake", None)],
    [("good", "good"), ("recover", "good"), ("mistake", "mistake"), ("unnecessary", "unnecessary")],
]


def test_figures_equal_hand_counts() -> None:
    result = audit(table(events(PAIRS)), "judge@1", draws=400)
    assert (result.n_steps, result.n_trajectories, result.n_not_judged) == (8, 2, 0)
    assert result.confusion[:4] == [[2, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 2, 0, 0, 1], [1, 0, 0, 0, 0, 0]]
    mistake, recover = result.scores[2], result.scores[3]
    assert (mistake.n_true, mistake.n_predicted) == (3, 3)
    assert mistake.prevalence.value == pytest.approx(3 / 8)
    assert mistake.precision.value == pytest.approx(2 / 3)
    assert mistake.recall.value == pytest.approx(2 / 3), "the unparseable step counts as missed"
    assert mistake.recall_lenient.value == 1
    assert mistake.f1_lenient.value == pytest.approx(2 * 2 / 5)
    assert mistake.false_alarm.value == pytest.approx(1 / 5)
    assert (recover.precision.value, recover.recall.value, recover.f1.value) == (None, 0.0, 0.0)
    observed, expected = 5 / 8, (3 * 3 + 1 * 1 + 3 * 3 + 1 * 0) / 64
    assert result.agreement["kappa"].value == pytest.approx((observed - expected) / (1 - expected))
    observed, expected = 5 / 7, (3 * 3 + 1 * 1 + 2 * 3 + 1 * 0) / 49
    assert result.agreement["kappa_lenient"].value == pytest.approx((observed - expected) / (1 - expected))
    assert result.agreement["accuracy"].value == pytest.approx(5 / 8)
    f1 = mistake.f1
    assert (f1.low or 1) <= (f1.value or 0) <= (f1.high or 0)


def test_the_other_way_round_the_critic_is_true() -> None:
    result = audit(table(events(PAIRS)), "judge@1", draws=100)
    swapped = audit(table(events(PAIRS)), "ground-truth@1", "judge@1", draws=100)
    assert result.reverse == swapped.scores
    assert result.scores == swapped.reverse
    assert result.reverse[0].recall.value == pytest.approx(2 / 3)


def test_a_critic_agrees_with_itself() -> None:
    result = audit(table(events(PAIRS)), "ground-truth@1", draws=100)
    assert [result.agreement[k].value for k in ("accuracy", "macro_f1", "kappa")] == [1, 1, 1]
    assert result.first_error["first_error_exact"].value == 1


def test_the_same_seed_gives_the_same_audit_and_order_does_not_matter() -> None:
    made = events(PAIRS)
    assert audit(table(made), "judge@1", draws=300) == audit(table(made[::-1]), "judge@1", draws=300)
    assert audit(table(made), "judge@1", draws=300, seed=1).n_steps == 8


def test_steps_without_a_verdict_count_against_the_critic_but_unjudged_trajectories_do_not() -> None:
    made = events(PAIRS)
    partial = [e for e in made if not (e.policy == "judge@1" and e.trajectory_id == "t0" and e.step == 0)]
    result = audit(table(partial), "judge@1", draws=100)
    assert result.confusion[0][CLASSES.index("none")] == 1
    assert result.scores[0].recall.value == pytest.approx(1 / 3)
    assert result.scores[0].recall_lenient.value == pytest.approx(1 / 2)
    none_of_t1 = [e for e in made if not (e.policy == "judge@1" and e.trajectory_id == "t1")]
    result = audit(table(none_of_t1), "judge@1", draws=100)
    assert (result.n_steps, result.n_not_judged) == (4, 4)
    assert result.agreement["accuracy"].low is None, "one trajectory gives no interval"


def test_a_superseded_verdict_does_not_count() -> None:
    made = events([[("good", "mistake")]])
    wrong = next(e for e in made if e.policy == "judge@1")
    right = lakes.verdict(lakes.actions(made)[0], "good")
    target = {"target_event": wrong.event_id, "action": "supersede", "replacement": right.event_id}
    gone = Event("retraction", "t0", "demo", "critic", target, 0, "judge@1")
    result = audit(table([*made, right, gone]), "judge@1", draws=100)
    assert result.confusion[0] == [1, 0, 0, 0, 0, 0]
    assert result.agreement["kappa"].value is None, "one class only: chance agreement is 1"
    down = Event("retraction", "t0", "demo", "human", {"action": "takedown"})
    with pytest.raises(UsageError):
        audit(table([*made, down]), "judge@1")


def test_policies_that_never_meet_are_an_error_that_lists_policies() -> None:
    with pytest.raises(UsageError, match=r"policies with verdicts: ground-truth@1, judge@1"):
        audit(table(events(PAIRS)), "nobody@1")


def test_alpha_takes_any_number_of_raters_and_leaves_out_what_is_missing() -> None:
    made = events(PAIRS)
    third = [lakes.verdict(a, "good", "third@1") for a in lakes.actions(made)[:2]]
    two, three = (audit(table([*made, *third]), "judge@1", draws=100, others=o) for o in ((), ("third@1",)))
    assert (two.agreement["alpha"].n, three.agreement["alpha"].n) == (14, 16)
    # Pairs: gg 2, gm 1, mm 2, rg 1, uu 1 of 14 ratings; margins g 6, m 5, r 1, u 2.
    by_chance = 14**2 - (6**2 + 5**2 + 1 + 2**2)
    assert two.agreement["alpha"].value == pytest.approx(1 - 13 * 4 / by_chance)


def steered(severities: list[list[tuple[int, int | None]]], **flags: Any) -> list[Event]:
    """Window verdicts of a teacher and of a critic on two steps each; None: the critic cannot be read."""
    made: list[Event] = []
    for i, pairs in enumerate(severities):
        one = lakes.trajectory(f"t{i}", [Step("view", str(k)) for k in range(2 * len(pairs))])
        made += one
        for w, pair in enumerate(pairs):
            for policy, severity in zip(("teacher@1", "small@1"), pair, strict=True):
                found = [{"category": c} for c in flags.get(policy.partition("@")[0], {}).get((i, w), [])]
                payload = {"scope": "window", "window_from": 2 * w, "window_to": 2 * w + 1, "severity": severity}
                payload |= {"detections": found, "guidance": "go on " * (1 + (policy == "small@1"))}
                payload["parse_status"] = "unparseable" if severity is None else "ok"
                action = lakes.actions(one)[2 * w + 1]
                made.append(of_stream(one, "verdict", payload, step=action.step, policy=policy))
    return made


SEVERITIES: list[list[tuple[int, int | None]]] = [[(0, 0), (0, 1), (1, 2), (2, 1)], [(2, 2), (0, 0), (1, None), (2, 0)]]


def test_interventions_equal_hand_counts_of_the_same_windows() -> None:
    flags = {
        "teacher": {(0, 2): ["tool_selection"], (1, 2): ["tool_selection"], (0, 3): ["hallucination"]},
        "small": {(0, 2): ["tool_selection", "hallucination"], (0, 1): ["tool_selection"]},
    }
    result = audit(table(steered(SEVERITIES, **flags)), "small@1", "teacher@1", draws=200)
    found = {k: f.value for k, f in result.intervention.items()}
    assert result.severity_confusion[:3] == [[2, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]]
    assert (found["severity_exact"], found["over"], found["under"]) == (3 / 8, 2 / 8, 2 / 8)
    assert found["severity_exact_lenient"] == pytest.approx(3 / 7)
    assert found["severity_unparseable"] == 1 / 8
    assert found["on_track_intervention"] == pytest.approx(1 / 3)
    assert found["critical_downgrade"] == pytest.approx(2 / 3)
    assert result.intervention["on_track_intervention"].n == 3
    # Readable: rows (2,1,0) (0,0,1) (1,1,1), quadratic disagreement 1/4, 1/4, 1/4, 1 seen; margins (3,1,3) and (3,2,2).
    chance = (3 * 2 + 1 * 3 + 1 * 2 + 3 * 2) / 4 + 3 * 2 + 3 * 3
    assert found["severity_kappa_quadratic"] == pytest.approx(1 - 7 * (3 / 4 + 1) / chance)
    chance = (3 * 2 + 1 * 3 + 1 * 2 + 3 * 2) / 2 + 3 * 2 + 3 * 3
    assert found["severity_kappa_linear"] == pytest.approx(1 - 7 * (3 / 2 + 1) / chance)
    assert found["flags_per_critique"] == pytest.approx(3 / 7)
    assert found["flags_per_critique_truth"] == pytest.approx(2 / 7)
    assert found["guidance_length_ratio"] == pytest.approx(12 / 6)
    tool = next(c for c in result.categories if c.category == "tool_selection")
    assert (tool.n_true, tool.n_predicted) == (2, 2)
    assert (tool.missed.value, tool.missed_lenient.value) == (1 / 2, 0), "unread misses what is there"
    assert (tool.false_alarm.value, tool.false_alarm.n) == (pytest.approx(1 / 6), 6)
    assert result.agreement["alpha_severity"].n == 14
    assert result.n_steps == 0, "nobody labelled anything"


def test_windows_are_laid_over_steps_only_when_asked_and_a_step_of_its_own_goes_first() -> None:
    made = steered([[(0, 0), (1, 1)]], small={(0, 1): ["tool_selection"]})
    truth = [
        of_stream(made, "verdict", {"scope": "step", "label": label, "parse_status": "ok"}, step=k, policy="truth@1")
        for k, label in enumerate(("good", "good", "mistake", "good"))
    ]
    own = of_stream(made, "verdict", {"scope": "step", "label": "good", "parse_status": "ok"}, step=3, policy="small@1")
    plain = audit(table([*made, *truth, own]), "small@1", "truth@1", draws=100)
    assert (plain.label_granularity, plain.scores[0].recall.value) == ("step", 1 / 3)
    laid = audit(table([*made, *truth]), "small@1", "truth@1", draws=100, windows=True)
    assert laid.label_granularity == "window"
    assert laid.confusion[0][:3] == [2, 0, 1], "a flagged window makes mistakes of both its steps"
    assert laid.confusion[2][2] == 1
    assert "labels of windows" in sheets(laid)[0].title
    corrected = audit(table([*made, *truth, own]), "small@1", "truth@1", draws=100, windows=True)
    assert corrected.confusion[0][:3] == [3, 0, 0]


def test_a_window_without_end_is_left_out() -> None:
    made = steered([[(0, 0)]])
    endless = {"scope": "window", "window_from": 0, "window_to": 2**31 - 1, "parse_status": "ok"}
    result = audit(
        table([*made, of_stream(made, "verdict", endless, policy="small@1")]), "small@1", "teacher@1", windows=True
    )
    assert result.n_trajectories == 1


def test_the_first_mistake_is_looked_for_where_it_is() -> None:
    def line(true: int | None, said: int | None) -> list[Pair]:
        return [("mistake" if k == true else "good", "mistake" if k == said else "good") for k in range(6)]

    made = events([line(1, 1), line(1, 4), line(4, 3), line(2, None), line(None, None), line(None, 5)])
    found = audit(table(made), "judge@1", draws=200).first_error
    values = {k: f.value for k, f in found.items()}
    assert values["first_error_mean"] == pytest.approx((0 + 3 + 1) / 3)
    assert values["first_error_median"] == 1
    assert values["first_error_exact"] == 1 / 4
    assert values["first_error_never_found"] == 1 / 4
    assert (values["flawless_flagged"], found["flawless_flagged"].n) == (1 / 2, 2)


def graded(name: str, resolved: bool, judgment: bool | None, confidence: float | None = None) -> list[Event]:
    one = lakes.trajectory(name, [Step("view", "1", truth="good")], resolved=resolved)
    payload = {"scope": "trajectory", "judgment": judgment, "confidence": confidence}
    payload["parse_status"] = "ok" if judgment is not None else "unparseable"
    return [*one, of_stream(one, "verdict", payload, policy="verifier@1")]


def test_judgments_are_held_against_outcomes() -> None:
    made = [
        *graded("a", True, True, 0.9), *graded("b", False, True, 0.6), *graded("c", False, False, 0.2),
        *graded("d", True, None), *graded("e", True, False, 0.4),
    ]  # fmt: skip
    result = audit(table(made), "verifier@1", draws=100)
    found = {k: f.value for k, f in result.judgments.items()}
    assert (found["judgment_accuracy"], found["judgment_accuracy_lenient"]) == (2 / 5, 2 / 4)
    assert found["judgment_f1_correct"] == pytest.approx(2 / 5)
    assert found["judgment_f1_incorrect"] == pytest.approx(2 / 4)
    assert (found["resolved_if_judged_correct"], found["resolved_if_judged_incorrect"]) == (1 / 2, 1 / 2)
    assert found["judgment_auc"] == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.04 + 0.36) / 4)
    assert (result.n_graded, result.n_steps) == (5, 0)
    assert sheets(result)[0].title == "judgments against outcomes"


def test_an_attempt_is_known_by_the_event_its_verdict_answers_and_the_last_grading_counts() -> None:
    one = lakes.trajectory("t", [Step("view", "1")])
    made = list(one)
    for name, gradings, judgment in (("a1", [True], True), ("a2", [True, False], False)):
        attempt = of_stream(one, "attempt", {"attempt_id": name, "code": name}, "agent")
        said = {"scope": "attempt", "judgment": judgment, "parse_status": "ok"}
        made += [attempt, of_stream(one, "verdict", said, policy="critique@1", caused_by=attempt.event_id)]
        for rerun, resolved in enumerate(gradings):
            made.append(of_stream(one, "outcome", {"subject": name, "resolved": resolved, "rerun": rerun}, "grader"))
    result = audit(table(made), "critique@1", draws=100)
    assert (result.judgments["judgment_accuracy"].value, result.judgments["judgment_accuracy"].n) == (1, 2)


def test_flags_are_held_against_outcomes() -> None:
    made: list[Event] = []
    for i, (label, resolved) in enumerate([("mistake", False), ("mistake", True), ("good", True), ("good", True)]):
        one = lakes.trajectory(f"t{i}", [Step("view", "1", truth="good")], resolved=resolved)
        made += [*one, lakes.verdict(lakes.actions(one)[0], label)]
    found = {k: f.value for k, f in audit(table(made), "judge@1", draws=100).flags.items()}
    assert (found["resolved_if_flagged"], found["resolved_if_not_flagged"], found["resolved"]) == (1 / 2, 1, 3 / 4)
    assert found["flag_auc"] == pytest.approx((0.5 + 1 + 1) / 3)


def test_confidence_in_labels_is_held_against_the_truth() -> None:
    result = audit(table(events(PAIRS, confidence=0.75)), "judge@1", draws=100)
    assert result.confidence["ece"].value == pytest.approx(abs(0.75 - 5 / 7))
    assert [(b.n, b.confidence) for b in result.reliability] == [(7, 0.75)], "what cannot be read states nothing"
    assert audit(table(events(PAIRS)), "judge@1", draws=100).confidence["ece"].value is None


def register_model(lake: Lake, name: str, row: dict[str, Any], base: str = "jobs/base") -> str:
    """A model trained on one dataset row; returns its id."""
    rows = pa.concat_tables([row["train"], row["held"]]) if "held" in row else row["train"]
    version = lake.replace(f"datasets/{name}", rows, {})
    entry = model(name, f"datasets/{name}", version, base=base)
    lake.add("models", pa.Table.from_pylist([entry], schema=MODELS.schema))
    return str(entry["model_id"])


def test_a_fit_to_training_data_is_never_called_an_evaluation(lake: Lake) -> None:
    made = events(PAIRS)
    row = dataset_row("r1", "small", "t0")
    held = dataset_row("r2", "small", "t1")
    place = held.column_names.index("split")
    held = held.set_column(place, held.schema.field(place), pa.array(["held_out"]))
    model_id = register_model(lake, "small", {"train": row, "held": held})
    critic = f"steer-concise@1/{model_id}/k5"
    training = training_of(lake, critic)
    assert training == Training(True, (model_id,), ("datasets/small@1",), frozenset({"t0"}))
    renamed = [e if e.policy != "judge@1" else replace(e, policy=critic) for e in made]
    result = audit(table(renamed), critic, draws=100, training=training)
    assert (result.kind, result.n_trained_on) == ("training-fit", 1)
    assert "NOT AN EVALUATION but a fit to training data: 1 of these trajectories" in sheets(result)[0].note
    only_t1 = audit(table([e for e in renamed if e.trajectory_id == "t1"]), critic, draws=100, training=training)
    assert only_t1.kind == "evaluation"
    assert audit(table(made), "judge@1", draws=100, training=training_of(lake, "judge@1")).kind == "unknown"
    assert audit(table(made), "judge@1", draws=100).kind == "unknown"
    assert training_of(lake, "rules@1").kind(["t0"]) == "evaluation"


def test_training_is_followed_through_bases_and_members(lake: Lake) -> None:
    first = register_model(lake, "first", {"train": dataset_row("r1", "first", "t0")})
    second = register_model(lake, "second", {"train": dataset_row("r2", "second", "t1")}, base=first)
    assert training_of(lake, f"verifier@1/{second}:rev").trajectory_ids == {"t0", "t1"}
    assert training_of(lake, f"majority-2/rules@1+steer@1/{first}").kind(["t0"]) == "training-fit"
    assert training_of(lake, f"majority-2/steer@1/elsewhere+steer@1/{first}").kind(["t9"]) == "unknown"
    assert not training_of(lake, f"steer@1/not-{first}").known, "only whole parts of a name count"


def test_the_tables_show_n_interval_seed_and_escape_what_comes_from_outside() -> None:
    made = events(PAIRS)
    hostile = "[red]x|y</table>"
    made += [lakes.verdict(a, "good", hostile) for a in lakes.actions(made)]
    result = audit(table(made), hostile, draws=100, seed=7)
    out = io.StringIO()
    console = Console(file=out, width=220)
    for shown in render(result):
        console.print(shown)
    for text in ("n = 8 steps of 2 trajectories", "seed 7", hostile, "is unknown"):
        assert text in out.getvalue()
    text = sheets(result)[0].markdown()
    assert "[red]x\\|y&lt;/table>" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_the_command_prints_one_document_and_its_options_work(lake: Lake) -> None:
    app = typer.Typer()
    command.register(app)
    made = []
    for i in range(10):
        made += lakes.looping(f"l{i}", model=f"model-{i % 2}")
        made += lakes.good_repair(f"g{i}", model=f"model-{i % 2}")
    EventLog(lake).append(made, "b")
    judge_new(lake)
    ask = ["audit", "rules@1", "--lake", lake.uri, "--draws", "100", "--json"]
    document = json.loads(CliRunner().invoke(app, [*ask, "--sensitivity", "--leakage", "--with", "judge@1"]).stdout)
    assert (document["kind"], document["n_steps"], document["classes"]) == ("evaluation", 110, list(CLASSES))
    assert [a["arm"] for a in document["sensitivity"][:2]] == ["flipped", "random"]
    assert document["leakage"][0]["agents"] == ["demo-agent@1 model-0", "demo-agent@1 model-1"]
    shown = CliRunner().invoke(app, [*ask[:-1], "--sensitivity"])
    assert "would be harmful" in shown.stdout
    assert "An evaluation" in shown.stdout
    wrong = CliRunner().invoke(app, ["audit", "nobody@1", "--lake", lake.uri])
    assert isinstance(wrong.exception, UsageError)
