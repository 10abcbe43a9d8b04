"""Datasets that teach critics, and the arms of step rejection: what is in the rows, what is in the loss, what is left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import judged
import lakes
import polars as pl
import pyarrow as pa
import pytest
from chat_server import ChatServer, critique
from lakes import Step

from stepwell.chat import prompt_hash
from stepwell.cli.reviewing import requested
from stepwell.conversation import Conversation, said
from stepwell.critics import prompts
from stepwell.critics.asked import asker_of
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.run import judge_new
from stepwell.curation.masks import MaskRule, mask_new, rule_of
from stepwell.data_settings import DatasetSettings
from stepwell.datasets.across import thinned
from stepwell.datasets.build import Built, build
from stepwell.datasets.cases import OF_CRITICS, Case, found
from stepwell.datasets.guided import graded
from stepwell.datasets.methods import repeats
from stepwell.datasets.verify import verify
from stepwell.errors import RecipeError, UsageError
from stepwell.event import Event
from stepwell.exporters.run import Request, export
from stepwell.ids import digest
from stepwell.invariants import dataset_rows
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe, load, names
from stepwell.rendering import IGNORE, Renderer
from stepwell.rollout.revision import revise
from stepwell.settings import Policy, Problems, Revision, RevisionArm

Obj = dict[str, Any]
BASE = Path(__file__).parent.parent / "jobs" / "base"
GROUP = RevisionArm(name="group", critic="noisy", wrong=0.4, vague=0.5, critiques=6, answer="each")
GUIDED = RevisionArm(name="guided", critic="oracle", guided=True)
CRITIQUE = {"prompt": "critique"}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(BASE)


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Critique-revision loops as `stepwell revise` plays them, without a model."""
    lake = Lake(tmp_path_factory.mktemp("loops") / "lake")
    for arm in (GROUP, GUIDED):
        settings = Revision(
            corpus=f"rollouts/{arm.name}", problems=Problems(split="train", n=5, seed=3), samples=1, arms=(arm,),
            generator=Policy(kind="noisy", mistake_rate=0.6),
        )  # fmt: skip
        revise(lake, settings, lambda *_: pytest.fail("no model is asked"))
    return lake


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Trajectories judged every five steps through a real server, whose last reply of each cannot be read."""
    lake = judged.filled(Lake(tmp_path_factory.mktemp("steered") / "lake"))
    with ChatServer(lambda body: critique() if len(body["messages"]) < 40 else "Looks fine to me.") as server:
        judged.run(lake, server)
    return lake


def recipe(method: str, corpus: str, **settings: Any) -> Recipe:
    dataset = {"method": method, "held_out": 0.0, "max_length": 20_000, **settings}
    return Recipe.model_validate({"name": method, "source": {"corpora": [corpus]}, "dataset": dataset})


def made(lake: Lake, renderer: Renderer, settings: Recipe) -> tuple[list[Obj], dict[str, int]]:
    """The rows, which pass every check there is, and the funnel in steps."""
    built: Built = build(lake, settings, renderer, str(rule_of(settings.mask)), asker=asker_of(settings))
    rows = lake.read(built.table)
    assert verify(rows, renderer, lake).problems == []
    assert dataset_rows(lake, rows) == []
    for row in rows.to_pylist():
        holds(row, renderer)
    return rows.sort_by("row_id").to_pylist(), {line["line"]: line["steps"] for line in built.funnel}


def holds(row: Obj, renderer: Renderer) -> None:
    """The loss covers no token of a prompt, and every token of the last reply."""
    prompt = renderer.prompt_ids(json.loads(row["messages"])[: -1 if row["n_trained_tokens"] else None])
    for ids, labels in ((row["input_ids"], row["labels"]), (row["rejected_ids"], row["rejected_labels"])):
        if ids is not None and (row["method"] in ("critic_sft", "critic_dpo", "ctrl_sft", "ctrl_rl", "verifier")):
            assert ids[: len(prompt)] == prompt
            assert set(labels[: len(prompt)]) <= {IGNORE}
            trained = [i for i, label in enumerate(labels) if label != IGNORE]
            assert trained == list(range(len(prompt), len(prompt) + len(trained)))


def trained(row: Obj, renderer: Renderer) -> str:
    return str(renderer.tokenizer.decode([x for x in row["labels"] if x != IGNORE], skip_special_tokens=False))


def events_of(lake: Lake) -> dict[str, Obj]:
    return {row["event_id"]: row for row in EventLog(lake).read().to_pylist()}


def test_critic_sft_is_what_the_critic_read_and_said(steered: Lake, renderer: Renderer) -> None:
    rows, funnel = made(steered, renderer, recipe("critic_sft", "demo", critiques={"critic": judged.critic().id}))
    events = events_of(steered)
    assert len(rows) == judged.N * 3
    assert funnel["part dropped: unreadable reply"] == judged.N
    for row in rows:
        messages, said = json.loads(row["messages"]), events[row["event_ids"][-1]]
        assert prompt_hash(messages[:-1]) == said["usage"]["prompt_hash"]
        assert messages[-1]["content"] == said["verdict"]["raw"]
        assert trained(row, renderer) == said["verdict"]["raw"] + "<|im_end|>"
        assert (row["agent"], row["model"], row["n_left_out"]) == ("demo-agent@1", "model-a", 0)
        assert [events[e]["action"]["text"] for e in row["event_ids"][:-1]] == [
            m["content"] for m in messages[:-1] if m["role"] == "assistant"
        ]


def test_what_is_too_long_loses_its_oldest_turns_whole(steered: Lake, renderer: Renderer) -> None:
    critiques = {"critic": judged.critic().id}
    whole, _ = made(steered, renderer, recipe("critic_sft", "demo", critiques=critiques))
    least, most = min(r["n_tokens"] for r in whole), max(r["n_tokens"] for r in whole)
    limit = (least + most) // 2
    cut, _ = made(steered, renderer, recipe("critic_sft", "demo", critiques=critiques, max_length=limit))
    full = {row["row_id"]: json.loads(row["messages"]) for row in whole}
    assert full.keys() == {row["row_id"] for row in cut}
    for row in cut:
        messages, before = json.loads(row["messages"]), full[row["row_id"]]
        gone = row["n_left_out"]
        assert messages == [*before[:2], *before[2 + 2 * gone :]]
        assert row["n_tokens"] <= limit
        again = [*before[:2], *before[2 * gone :]] if gone else []
        assert not gone or len(renderer.encode(again, [0.0] * (len(row["weights"]) + 1)).input_ids) > limit
    assert {row["n_left_out"] > 0 for row in cut} == {True, False}
    dropped = recipe("critic_sft", "demo", critiques={**critiques, "too_long": "drop"}, max_length=limit)
    rows, funnel = made(steered, renderer, dropped)
    assert len(rows) == sum(r["n_tokens"] <= limit for r in whole)
    assert funnel[f"part dropped: longer than {limit} tokens"] == len(whole) - len(rows)


def test_rules_are_learnt_in_the_form_of_a_reply(lake: Lake, renderer: Renderer) -> None:
    lakes.build(lake)
    judge_new(lake)
    critiques = {"critic": "rules@1", "prompt": "steps-one-pass", "target": "canonical"}
    rows, _ = made(lake, renderer, recipe("critic_sft", "demo", critiques=critiques))
    labels = {
        (e["trajectory_id"], e["step"]): e["verdict"]["label"]
        for e in events_of(lake).values()
        if e["kind"] == "verdict"
    }
    for row in rows:
        told = [line.split(" - ")[0] for line in json.loads(row["messages"])[-1]["content"].splitlines()]
        assert told == [f"STEP {i}: {labels[row['trajectory_id'], i]}" for i in range(len(told))]
        assert len(told) == len(row["steps"]) - 1 == len({row["event_ids"][-1], *row["mask_event_ids"]})
    only, _ = made(lake, renderer, recipe("critic_sft", "demo", critiques={**critiques, "resolved_only": True}))
    assert 0 < len(only) < len(rows)
    assert {r["trajectory_id"] for r in only} == {"t-good-a"}
    with pytest.raises(RecipeError, match=r"said without words: set critiques\.target to canonical"):
        made(lake, renderer, recipe("critic_sft", "demo", critiques={**critiques, "target": "raw"}))
    with pytest.raises(RecipeError, match="no request is recorded: name a prompt"):
        made(lake, renderer, recipe("critic_sft", "demo", critiques={"critic": "rules@1", "target": "canonical"}))


def test_pairs_by_reward_are_of_one_solution(loops: Lake, renderer: Renderer) -> None:
    settings = recipe("critic_dpo", "rollouts/group", critiques=CRITIQUE)
    rows, funnel = made(loops, renderer, settings)
    events = events_of(loops)
    worth = {e["reward"]["critique_id"]: e["reward"]["reward"] for e in events.values() if e["kind"] == "reward"}
    about = {e: row["caused_by"] for e, row in events.items() if row["kind"] == "verdict"}
    worth = {e: value for e, value in worth.items() if events[e]["corpus"] == "rollouts/group"}
    groups: dict[str, dict[str, list[float]]] = {}
    for critique_id, value in worth.items():
        groups.setdefault(about[critique_id], {}).setdefault(events[critique_id]["verdict"]["raw"], []).append(value)
    means = {solution: {text: sum(v) / len(v) for text, v in said.items()} for solution, said in groups.items()}
    assert len(rows) == sum(len(set(said.values())) > 1 for said in means.values()) > 0
    assert funnel["part dropped: candidates rank alike"] == len(means) - len(rows)
    for row in rows:
        better, worse = row["event_ids"][-1], row["mask_event_ids"][0]
        of = means[row["event_ids"][0]]
        assert of[events[better]["verdict"]["raw"]] == max(of.values())
        assert of[events[worse]["verdict"]["raw"]] == min(of.values())
        assert about[better] == about[worse] == row["event_ids"][0]
        assert json.loads(row["rejected"]) == [{"role": "assistant", "content": events[worse]["verdict"]["raw"]}]
        assert {better, worse} <= {events[e]["reward"]["critique_id"] for e in row["mask_event_ids"][1:]}
    every, _ = made(
        loops, renderer, recipe("critic_dpo", "rollouts/group", critiques=CRITIQUE, preference={"pairs": "all"})
    )
    differ = [(a, b) for said in means.values() for a in said.values() for b in said.values() if a > b]
    assert len(every) == len(differ) >= len(rows)


def test_pairs_by_agreement_with_tests(loops: Lake, renderer: Renderer) -> None:
    settings = recipe("critic_dpo", "rollouts/group", critiques=CRITIQUE, preference={"rank": "agreement"})
    rows, _ = made(loops, renderer, settings)
    events = events_of(loops)
    for row in rows:
        (outcome,) = {events[e]["outcome"]["resolved"] for e in row["mask_event_ids"] if events[e]["kind"] == "outcome"}
        assert row["judgment"] is outcome
        assert events[row["mask_event_ids"][0]]["verdict"]["judgment"] is not outcome
    assert rows


def test_pairs_by_agreement_with_people(steered: Lake, tmp_path: Path, renderer: Renderer) -> None:
    lake = judged.filled(Lake(tmp_path / "lake"))
    critic: Obj = {"samples": 2, "temperature": 0.5}
    replies = critique("Go on."), critique("Stop.", "Needs correction")
    with ChatServer(lambda body: replies[body["seed"]]) as server:
        judged.run(lake, server, critic)
    made_by = judged.critic(**critic).id
    people = [
        Event("verdict", e["trajectory_id"], "demo", "human", {"scope": "window", "severity": 1, "detections": []},
              step=e["step"], policy="human/ada", caused_by=e["caused_by"])
        for e in events_of(lake).values() if e["kind"] == "verdict" and e["verdict"]["candidate"] == 0 and e["step"] == 4
    ]  # fmt: skip
    EventLog(lake).append(people, "people")
    preference = {"rank": "agreement", "reference": "human/ada"}
    rows, funnel = made(
        lake, renderer, recipe("critic_dpo", "demo", critiques={"critic": made_by}, preference=preference)
    )
    events = events_of(lake)
    assert len(rows) == judged.N
    assert funnel["part dropped: no reference verdict"] == judged.CALLS * 2 - 2 * judged.N
    for row in rows:
        assert events[row["event_ids"][-1]]["verdict"]["severity"] == 1
        assert events[row["mask_event_ids"][0]]["verdict"]["severity"] == 0
        assert {events[e]["policy"] for e in row["mask_event_ids"][1:]} == {"human/ada"}


def test_ctrl_sft_has_the_request_without_the_hint(loops: Lake, renderer: Renderer) -> None:
    rows, funnel = made(loops, renderer, recipe("ctrl_sft", "rollouts/guided", critiques=CRITIQUE))
    critic, events, log = ModelCritic(prompts.load("critique"), "any"), events_of(loops), EventLog(loops)
    assert len(rows) == 5 - funnel.get("part dropped: its revision fails", 0) > 0
    for row in rows:
        attempt = row["event_ids"][0]
        found = requested(critic, log.replay(row["trajectory_id"]), attempt, None)
        assert not isinstance(found, str)
        messages = json.loads(row["messages"])
        assert prompt_hash(messages[:-1]) == found[1].request.hash  # type: ignore[union-attr]
        assert messages[-1]["content"] == events[row["event_ids"][1]]["verdict"]["raw"]
        kinds = {events[e]["kind"]: events[e] for e in row["mask_event_ids"]}
        assert kinds.keys() == {"hint", "attempt", "outcome"}
        assert kinds["hint"]["hint"]["text"] not in messages[-2]["content"]
        assert kinds["attempt"]["attempt"]["critique_id"] == row["event_ids"][1]
        assert kinds["outcome"]["outcome"]["resolved"]
    with pytest.raises(RecipeError, match="not guided by a hint"):
        made(loops, renderer, recipe("ctrl_sft", "rollouts/group", critiques=CRITIQUE))


RIGHT = "Analysis:\nOne too few.\n\nImprovement suggestions:\nReach the last.\n\nOverall judgment: Incorrect"
HINT = "The solution fails this case.\nInput: f(2)\nExpected: a b c d e f g h i\nActual: 0"


def loop(
    raw: str = RIGHT, passed: bool = True, guided: bool = True, answered: bool = True, **verdict: Any
) -> list[Event]:
    """One round of a loop: a wrong solution, a hint, a critique, a revision."""
    name = f"loop-{digest(raw, passed, guided, answered, verdict)}"

    def event(kind: str, actor: str, payload: Obj, step: int | None = None, **rest: Any) -> Event:
        return Event(kind, name, "loops", actor, payload, step=step, **rest)

    first = {"attempt_id": f"{name}/0", "round": 0, "code": "def f(n):\n    return sum(range(n))"}
    second = {"round": 1, "code": "def f(n):\n    return sum(range(n + 1))"}
    attempt = event("attempt", "agent", first, 0)
    payload = {"scope": "attempt", "judgment": False, "parse_status": "ok", "raw": raw, "candidate": 0, **verdict}
    said = event("verdict", "critic", payload, 0, policy="some-critic", caused_by=attempt.event_id)
    graded = {"grader": "tests", "rule": "all"}
    events = [
        event("task", "system", {"task_id": "t", "statement": "Sum to n.", "tests_hash": "0" * 64}),
        event("start", "system", {"task_id": "t", "agent": "loop", "model": "m"}),
        event("instruction", "system", {"position": 0, "role": "user", "content": "Sum to n."}),
        attempt,
        event("outcome", "grader", {**graded, "subject": f"{name}/0", "resolved": False}, 0),
        said,
        event("end", "environment", {"exit_status": "rounds_done"}),
    ]
    events += [event("hint", "grader", {"attempt_id": f"{name}/0", "hint_kind": "wrong", "text": HINT}, 0)] * guided
    if answered:
        events.append(event("attempt", "agent", {**second, "attempt_id": f"{name}/1", "critique_id": said.event_id}, 1))
        events.append(event("outcome", "grader", {**graded, "subject": f"{name}/1", "resolved": passed}, 1))
    return events


@pytest.mark.parametrize(
    ("events", "reason", "kept_by"),
    [
        (loop(RIGHT.replace("One", "As the hint says, one")), "leak: it speaks of the hint", {"hint_leaks": "keep"}),
        (loop(RIGHT.replace("few.", "few: a b c d e f g h")), "leak: an expected result", {"hint_leaks": "keep"}),
        (loop(RIGHT.replace("Reach", "```python\nx\n```\nReach")), "leak: a block of code", {"solution_leaks": "keep"}),
        (
            loop(RIGHT.replace("Reach", "Write `return sum( range(n+1) )` to reach")),
            "leak: lines of the revision",
            {"solution_leaks": "keep"},
        ),
        (loop(passed=False), "its revision fails", {"keep_failed": True}),
        (loop(answered=False), "never answered by a revision", {"keep_failed": True}),
        (loop(guided=False), "not guided by a hint", None),
        (loop(parse_status="unparseable", judgment=None), "unreadable reply", None),
    ],
)  # fmt: skip
def test_every_filter_of_ctrl_sft_catches_and_can_be_let_go(
    events: list[Event], reason: str, kept_by: Obj | None, lake: Lake, renderer: Renderer
) -> None:
    EventLog(lake).append([*events, *loop()], "loops")
    rows, funnel = made(lake, renderer, recipe("ctrl_sft", "loops", critiques=CRITIQUE))
    assert [row["trajectory_id"] for row in rows] == [loop()[0].trajectory_id]
    assert funnel[f"part dropped: {reason}"] == 1
    if kept_by:
        assert len(made(lake, renderer, recipe("ctrl_sft", "loops", critiques=CRITIQUE, synthesis=kept_by))[0]) == 2


def test_limits_over_all_rows(lake: Lake, renderer: Renderer) -> None:
    right = [loop(RIGHT.replace("One", f"{i}:")) for i in range(5)]
    good = [loop(RIGHT.replace("Incorrect", "Correct").replace("One", f"{i}:"), judgment=True) for i in range(2)]
    EventLog(lake).append([e for one in (*right, *good) for e in one], "loops")

    def judgments(**limits: Any) -> tuple[list[bool], dict[str, int]]:
        rows, funnel = made(lake, renderer, recipe("ctrl_sft", "loops", critiques=CRITIQUE, **limits))
        assert rows == made(lake, renderer, recipe("ctrl_sft", "loops", critiques=CRITIQUE, **limits))[0]
        return sorted(row["judgment"] for row in rows), funnel

    assert judgments()[0] == [False] * 5 + [True] * 2
    balanced, funnel = judgments(balance="judgment")
    assert (balanced, funnel["part dropped: balance of judgments"]) == ([False] * 2 + [True] * 2, 3)
    capped, funnel = judgments(per_task=1)
    assert (len(capped), funnel["part dropped: more rows of the task than per_task"]) == (1, 6)


def test_each_split_is_balanced_for_itself() -> None:
    said = [("train", True)] * 6 + [("train", False)] * 2 + [("held_out", False)] * 3 + [("held_out", True)]
    rows = [{"row_id": str(i), "task_id": "t", "split": split, "judgment": j} for i, (split, j) in enumerate(said)]
    gone = thinned(rows, DatasetSettings(method="ctrl_sft", balance="judgment"))
    left = Counter((r["split"], r["judgment"]) for r in rows if r["row_id"] not in gone)
    assert left == {("train", True): 2, ("train", False): 2, ("held_out", True): 1, ("held_out", False): 1}


def test_of_two_graders_the_later_stands_and_of_its_reruns_the_first() -> None:
    told = [
        ("a", "visible", 0, True, 1), ("a", "hidden", 1, False, 1), ("a", "hidden", 2, True, 1), (None, "tests", 0, True, 2),
        (None, "tests", 0, False, 1),
    ]  # fmt: skip
    rows = [
        {"event_id": str(i), "subject": s, "grader": g, "rerun": n, "resolved": r, "recorded_at": day}
        for i, (s, g, n, r, day) in enumerate(told)
    ]
    settings = DatasetSettings(method="ctrl_rl")
    case = Case(Conversation("t", "c"), None, "", settings, rows={"outcome": rows})
    assert [(graded(case, s) or {}).get("event_id") for s in ("a", "trajectory", "b")] == ["1", "3", None]


def test_other_calls_say_something_else_whatever_the_words() -> None:
    def case(*called: tuple[str, str]) -> Case:
        calls = [{"id": f"c{i}", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(called)]
        messages = [said("", [call]) for call in calls]
        return Case(Conversation("t", "c", messages), None, "", DatasetSettings(method="all"))

    assert repeats(case(("view", "a.py"), ("view", "b.py"), ("edit", "b.py"))) == 1
    assert repeats(case(("view", "a.py"), ("view", "b.py"), ("view", "b.py"))) == 2, "ids are always others"
    talk = [said("Go on.", []), said("Go on.", []), said("Go on.", ["view"])]  # type: ignore[list-item]  # as some files have it
    assert repeats(Case(Conversation("t", "c", talk), None, "", DatasetSettings(method="all"))) == 2


def test_a_corrected_report_stands_in_rows_whatever_its_id(lake: Lake) -> None:
    for i in range(8):
        for resolved in (False, True):
            told = {"subject": "trajectory", "grader": "tests", "resolved": resolved}
            EventLog(lake).append([Event("outcome", f"t{i}", "c", "grader", told)], f"{i} {resolved}")
    rows = EventLog(lake).read(columns=OF_CRITICS)
    for loop_ in found(rows, False, asker_of(recipe("ctrl_rl", "c", critiques=CRITIQUE))):
        case = Case(loop_.chat, None, "", DatasetSettings(method="ctrl_rl"), rows=loop_.rows)
        assert (graded(case, "trajectory") or {})["resolved"] is True, loop_.chat.trajectory_id


@pytest.mark.parametrize("limits", [{}, {"per_task": 2}, {"balance": "judgment"}])
def test_a_build_that_goes_on_gives_what_one_from_nothing_gives(
    limits: Obj, lake: Lake, tmp_path: Path, renderer: Renderer
) -> None:
    fine = RIGHT.replace("Incorrect", "Correct")
    parts = [loop(fine, judgment=True), *(loop(RIGHT.replace("One", f"{i}:")) for i in range(4))]
    settings, other = recipe("ctrl_sft", "loops", critiques=CRITIQUE, **limits), Lake(tmp_path / "other")
    for events in parts:
        EventLog(lake).append(events, "part")
        if events is not parts[0]:
            made(lake, renderer, settings)
    gone = Event("retraction", parts[1][0].trajectory_id, "loops", "system", {"action": "takedown", "reason": "asked"})
    EventLog(lake).append([gone], "gone")
    EventLog(other).append([*(e for part in parts for e in part), gone], "all")
    assert made(lake, renderer, settings) == made(other, renderer, settings)


def test_ctrl_rl_is_prompts_with_what_runs_the_tests(loops: Lake, renderer: Renderer) -> None:
    problems = {"split": "train", "n": 5, "seed": 3}
    settings = recipe("ctrl_rl", "rollouts/group", critiques=CRITIQUE, synthesis={"problems": problems})
    rows, _ = made(loops, renderer, settings)
    events = events_of(loops)
    assert len(rows) == 5
    for row in rows:
        reference = json.loads(row["reference"])
        attempt, task = events[reference["attempt_event"]], events[reference["task_event"]]["task"]
        assert attempt["attempt"]["round"] == 0
        assert (row["group_id"], reference["code"]) == (attempt["attempt"]["attempt_id"], attempt["attempt"]["code"])
        assert {k: reference[k] for k in ("task_id", "tests_hash")} == {k: task[k] for k in ("task_id", "tests_hash")}
        assert reference["problems"] | problems == reference["problems"]
        assert len(row["rewards"]) == GROUP.critiques
        assert all(events[r["event_id"]]["reward"]["reward"] == r["reward"] for r in row["rewards"])
        assert (row["n_trained_tokens"], json.loads(row["messages"])[-1]["role"]) == (0, "user")
    every, _ = made(
        loops, renderer, recipe("ctrl_rl", "rollouts/group", critiques=CRITIQUE, synthesis={"rounds": "all"})
    )
    assert len(every) == 5 * (1 + GROUP.critiques)


def test_a_solution_that_loops_share_is_asked_about_once_of_those_that_are_kept(lake: Lake, renderer: Renderer) -> None:
    arms = (RevisionArm(name="execution", critic="execution"), RevisionArm(name="none", critic="none"))
    settings = Revision(
        corpus="rollouts/shared", problems=Problems(split="train", n=8, seed=3), samples=1, arms=arms,
        generator=Policy(kind="noisy", mistake_rate=0.9),
    )  # fmt: skip
    revise(lake, settings, lambda *_: pytest.fail("no model is asked"))
    wanted = recipe("ctrl_rl", "rollouts/shared", critiques=CRITIQUE)
    rows, funnel = made(lake, renderer, wanted)
    events = events_of(lake)
    assert len(rows) == 8
    assert all("same_as" not in (events[row["event_ids"][0]]["extra"] or "") for row in rows), (
        "the loops that wrote them"
    )
    assert funnel["part dropped: the same first solution stands in another loop"] == 8
    loops = {e["trajectory_id"]: e["start"]["arm"] for e in events.values() if e["kind"] == "start"}
    writers = {row["trajectory_id"] for row in rows}
    chosen = pl.DataFrame(
        {"trajectory_id": name, "dropped": "asked" if name in sorted(writers)[:3] else None, "split": None} for name in loops
    )  # fmt: skip
    built = build(lake, wanted, renderer, "all@1", chosen=chosen, asker=asker_of(wanted))
    left = lake.read(built.table).to_pylist()
    assert len({row["task_id"] for row in left}) == len(left) == 8, "three by the loops that took them over"
    assert {row["trajectory_id"] for row in left} & writers == set(sorted(writers)[3:])


def test_the_verifier_answers_with_the_outcome(lake: Lake, renderer: Renderer) -> None:
    lakes.build(lake)
    EventLog(lake).append(lakes.trajectory("t-open", [Step("view", "x")]), "open")
    rows, funnel = made(lake, renderer, recipe("verifier", "demo"))
    assert {(row["trajectory_id"], trained(row, renderer), row["judgment"]) for row in rows} == {
        ("t-good-a", "YES<|im_end|>", True), ("t-loop-a", "NO<|im_end|>", False)
    }  # fmt: skip
    assert "dropped: not graded" in funnel
    with pytest.raises(UsageError, match="name one of kind verifier"):
        made(lake, renderer, recipe("verifier", "demo", critiques=CRITIQUE))


def human(name: str, labels: dict[int, str], trajectory: str = "t-loop-a") -> list[Event]:
    return [
        Event("verdict", trajectory, "demo", "human", {"scope": "step", "label": label, "parse_status": "ok"}, step=step,
              policy=f"human/{name}")
        for step, label in labels.items()
    ]  # fmt: skip


def test_people_decide_masks(lake: Lake, renderer: Renderer) -> None:
    lakes.build(lake)
    ada = dict.fromkeys(range(6), "good") | {0: "mistake", 3: "mistake"}
    bob = dict.fromkeys(range(5), "good") | {3: "mistake", 4: "mistake"}
    eve = dict.fromkeys(range(5), "good") | {0: "mistake"}
    EventLog(lake).append([*human("ada", ada), *human("bob", bob), *human("eve", eve)], "people")
    expected = {"human/ada": [0, 1, 1, 0, 1, 1], "majority": [0, 1, 1, 0, 1, 1], "human/bob": [1, 1, 1, 0, 0, 0]}
    for critic, weights in expected.items():
        rule = MaskRule("human", critic)
        mask_new(lake, rule)
        settings = recipe("srft", "demo").model_copy(
            update={"mask": load("srft_human").mask.model_copy(update={"critic": critic})}
        )
        assert str(rule_of(settings.mask)) == str(rule) == str(MaskRule.parse(str(rule)))
        rows, _ = made(lake, renderer, settings)
        (row,) = [r for r in rows if r["trajectory_id"] == "t-loop-a"]
        assert row["weights"] == weights
    with pytest.raises(UsageError, match="human/NAME, majority"):
        MaskRule("human", "rules@1")


def test_a_tie_of_people_is_not_learnt(lake: Lake) -> None:
    lakes.build(lake)
    EventLog(lake).append([*human("ada", {0: "good", 1: "good"}), *human("bob", {0: "mistake", 1: "good"})], "people")
    mask_new(lake, MaskRule("human", "majority"))
    masks = {
        e["step"]: e["mask"]
        for e in events_of(lake).values()
        if e["kind"] == "mask" and e["trajectory_id"] == "t-loop-a"
    }
    told = {step: (m["weight"], m["reason"], len(m["evidence"])) for step, m in masks.items() if step < 3}
    assert told == {0: (0.0, "tie", 2), 1: (1.0, "human_label", 2), 2: (0.0, "unjudged", 1)}


def test_dropped_steps_leave_the_context_with_their_observations(lake: Lake, renderer: Renderer) -> None:
    lakes.build(lake)
    judge_new(lake)
    settings = recipe("srft_dropped", "demo").model_copy(update={"mask": load("srft").mask})
    mask_new(lake, rule_of(settings.mask))
    dropped = {r["trajectory_id"]: r for r in made(lake, renderer, settings)[0]}
    other = recipe("srft", "demo").model_copy(update={"mask": load("srft").mask})
    masked = {r["trajectory_id"]: r for r in made(lake, renderer, other)[0]}
    row, whole = dropped["t-loop-a"], masked["t-loop-a"]
    kept = [i for i, weight in enumerate(whole["weights"]) if weight]
    assert 0 < len(kept) < len(whole["weights"])
    assert (row["steps"], row["mask_event_ids"]) == ([whole["steps"][i] for i in kept], whole["mask_event_ids"])
    assert set(row["weights"]) == {1.0}
    messages = json.loads(whole["messages"])
    pairs = [messages[1 + 2 * i : 3 + 2 * i] for i in kept]
    assert json.loads(row["messages"]) == [messages[0], *(m for pair in pairs for m in pair)]
    assert trained(row, renderer) == trained(whole, renderer)


def test_rows_do_not_depend_on_the_order_of_events(loops: Lake, tmp_path: Path, renderer: Renderer) -> None:
    other = Lake(tmp_path / "other")
    table = EventLog(loops).read()
    handle = other.create("events")
    assert other.commit_once(handle, "events", table.take(pa.array(range(len(table) - 1, -1, -1))), "test")
    settings = recipe("critic_dpo", "rollouts/group", critiques=CRITIQUE)
    assert made(other, renderer, settings)[0] == made(loops, renderer, settings)[0]


def test_the_recipes_of_critics_are_whole() -> None:
    for name in ("critic_sft", "critic_dpo", "ctrl_sft", "ctrl_rl", "verifier", "srft_dropped", "srft_human"):
        assert name in names()
        settings = load(name)
        assert settings.source is not None
        assert settings.collect is None or settings.collect.corpus in settings.source.corpora
        assert settings.revision is None or settings.source.corpora == (settings.revision.corpus,)


def test_without_an_asker_the_message_says_what_to_give(loops: Lake, renderer: Renderer) -> None:
    with pytest.raises(RecipeError, match=r"stepwell\.critics\.asked\.Asker"):
        build(loops, recipe("critic_dpo", "rollouts/group"), renderer, "all@1")


@pytest.fixture
def exported(loops: Lake, renderer: Renderer, tmp_path: Path) -> Callable[[str, str], list[Obj]]:
    """Rows of a method in a format, read back from the file, which says the same as Parquet."""
    import pyarrow.parquet as pq

    def get(method: str, format: str) -> list[Obj]:
        corpus = "rollouts/guided" if method == "ctrl_sft" else "rollouts/group"
        made(loops, renderer, recipe(method, corpus, critiques=CRITIQUE))
        for suffix in (".jsonl", ".parquet"):
            export(loops, Request(format, dataset=method), tmp_path / f"{method}-{format}{suffix}", overwrite=True)
        rows = [json.loads(line) for line in (tmp_path / f"{method}-{format}.jsonl").read_text().splitlines()]
        again = pq.read_table(tmp_path / f"{method}-{format}.parquet").to_pylist()
        assert [plain(row) for row in again] == rows
        return rows

    return get


def plain(value: Any) -> Any:
    """Without the nulls that Parquet fills in."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    return [plain(v) for v in value] if isinstance(value, list) else value


def test_trl_makes_our_tokens_of_pairs(exported: Callable[[str, str], list[Obj]], tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    pairs, tokens = exported("critic_dpo", "preference"), exported("critic_dpo", "preference-tokens")
    arguments = DPOConfig(output_dir=str(tmp_path), max_length=20_000, bf16=False, use_cpu=True, report_to="none",
                          gradient_checkpointing=False, dataloader_pin_memory=False, disable_tqdm=True,
                          per_device_train_batch_size=2)  # fmt: skip
    columns = ("prompt", "chosen", "rejected")
    model, tokenizer = tiny()
    trainer = DPOTrainer(model=model, ref_model=tiny()[0], args=arguments, processing_class=tokenizer,
                         train_dataset=Dataset.from_list([{k: row[k] for k in columns} for row in pairs]))  # fmt: skip
    newline = tokenizer.encode("\n", add_special_tokens=False)
    theirs = list(trainer.train_dataset)
    assert len(theirs) == len(tokens) > 0
    for one, ours in zip(theirs, tokens, strict=True):
        assert one["prompt_ids"] == ours["prompt_ids"]
        for side in ("chosen_ids", "rejected_ids"):
            assert one[side] == ours[side] + newline, "the template's line end after a reply is in TRL's loss"
    collator = DataCollatorForPreference(pad_token_id=0)
    batch = collator([{k: row[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in tokens[:2]])
    for i, row in enumerate([*tokens[:2], *tokens[:2]]):
        side = "chosen_ids" if i < 2 else "rejected_ids"
        whole = row["prompt_ids"] + row[side]
        assert batch["input_ids"][i].tolist()[: len(whole)] == whole
        assert batch["completion_mask"][i].sum() == len(row[side])


@pytest.mark.parametrize("packing", [False, True])
def test_trl_trains_on_the_critique_alone(
    packing: bool, exported: Callable[[str, str], list[Obj]], tmp_path: Path
) -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    completions, tokens = exported("ctrl_sft", "prompt-completion"), exported("ctrl_sft", "tokens")
    wanted = sorted([label for label in row["labels"] if label != IGNORE] for row in tokens)
    model, tokenizer = tiny()
    newline = tokenizer.encode("\n", add_special_tokens=False)
    for rows, names_of, tail in (
        (tokens, ("input_ids", "labels"), []),
        (completions, ("prompt", "completion"), newline),
    ):
        arguments = SFTConfig(output_dir=str(tmp_path), max_length=20_000, bf16=False, use_cpu=True, report_to="none",
                              gradient_checkpointing=False, dataloader_pin_memory=False, disable_tqdm=True,
                              packing=packing, per_device_train_batch_size=len(rows), seed=0)  # fmt: skip
        trainer = SFTTrainer(model=model, args=arguments, processing_class=tokenizer,
                             train_dataset=Dataset.from_list([{k: row[k] for k in names_of} for row in rows]))  # fmt: skip
        found = []
        for batch in trainer.get_train_dataloader():
            places = batch.get("position_ids")
            for i, labels in enumerate(batch["labels"].tolist()):
                starts = [j for j, p in enumerate(places[i].tolist()) if p == 0] if packing else [0]
                for low, high in zip(starts, [*starts[1:], len(labels)], strict=True):
                    found.append([label for label in labels[low:high] if label != IGNORE])
        assert sorted(found) == [[*one, *tail] for one in wanted]


def test_prompts_are_conversations_that_grpo_takes(
    exported: Callable[[str, str], list[Obj]], renderer: Renderer
) -> None:
    trl_data = pytest.importorskip("trl.data_utils")
    rows, (_, tokenizer) = exported("ctrl_rl", "prompts"), tiny()
    assert all(trl_data.is_conversational(row) for row in rows)
    for row in rows:
        text = trl_data.maybe_apply_chat_template({"prompt": row["prompt"]}, tokenizer)["prompt"]
        assert tokenizer.encode(text, add_special_tokens=False) == renderer.prompt_ids(row["prompt"])
        assert {"group_id", "reference", "rewards"} <= row.keys()


def tiny() -> tuple[Any, Any]:
    """A model of a few parameters with the tokenizer of the base."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                         num_attention_heads=1, num_key_value_heads=1)  # fmt: skip
    return LlamaForCausalLM(config), tokenizer
