"""The record formats: rollouts, results, attempts and problems become the right events, and nothing hidden becomes any."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import format_examples_i3 as made
import pytest
from format_examples import r2e_gym as r2e_gym_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.ids import canonical, sha256
from stepwell.importers import (
    critique_revision,
    graded_generations,
    intercode,
    nemo_gym,
    problems,
    r2e_gym,
    response_items,
    tau_bench,
)
from stepwell.importers.base import Imported, Importer, Rejected, SourceFile
from stepwell.importers.containers import open_blob
from stepwell.importers.files import Bytes
from stepwell.importers.parse import record_identity
from stepwell.importers.run import import_paths
from stepwell.importers.sealed import Seal
from stepwell.lake import Lake
from stepwell.log import EventLog

Obj = dict[str, Any]
MODULES = (nemo_gym, intercode, tau_bench, critique_revision, graded_generations, problems)
BY_NAME: dict[str, Importer] = {m.IMPORTER.name: m.IMPORTER for m in MODULES}
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
SEALED = {
    "nemo-gym-rollouts": {*nemo_gym.TESTS, *nemo_gym.SOLUTIONS},
    "intercode": set(intercode.SOLUTIONS),
    "tau-bench": set(tau_bench.SOLUTIONS),
    "critique-revision": {*critique_revision.TESTS, *critique_revision.SOLUTIONS},
    "code-generations-graded": {*graded_generations.TESTS, *graded_generations.SOLUTIONS},
    "problems-with-tests": {*problems.TESTS, *problems.SOLUTIONS},
}


def read(module: Any, record: Any, key: str | None = None) -> list[Imported | Rejected]:
    """What an importer makes of one record."""
    source = SourceFile("a/b.json", "b", "a", "c", "", record_identity(record), key)
    return list(module.IMPORTER.read(json.loads(json.dumps(record)), source))


def one(module: Any, record: Any, key: str | None = None) -> Imported:
    (imported,) = read(module, record, key)
    assert isinstance(imported, Imported), imported
    return imported


def of(kind: str, imported: Imported) -> list[Event]:
    return [e for e in imported.events if e.kind == kind]


def leaves(value: Any) -> Iterator[str]:
    """Every scalar in a value as text; text that is JSON is looked into as well."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    elif value is not None:
        yield str(value)
        if isinstance(value, str) and value[:1] in ("{", "["):
            try:
                yield from leaves(json.loads(value))
            except json.JSONDecodeError:
                return


def payloads(kind: str, imported: Imported) -> list[Obj]:
    return [e.payload for e in of(kind, imported)]


def extra(event: Event) -> Obj:
    told: Obj = json.loads(event.extra or "{}")
    return told


def logged(events: list[Event]) -> str:
    """All text of events, JSON texts looked into as well."""
    return "\0".join(leaves([[e.payload, e.usage, e.extra, e.occurred_at] for e in events]))


def texts(value: Any, sealed: set[str]) -> Iterator[str]:
    """Texts of 20 characters and more of a record that must be found again: not what is sealed, JSON texts part by part."""
    if isinstance(value, dict):
        for k, v in value.items():
            if k not in sealed:
                yield from texts(v, sealed)
    elif isinstance(value, list):
        for v in value:
            yield from texts(v, sealed)
    elif isinstance(value, str):
        try:
            inner = json.loads(value) if value[:1] in ("{", "[") else None
        except json.JSONDecodeError:
            inner = None
        if isinstance(inner, dict | list):
            yield from texts(inner, sealed)
        elif len(value) >= 20:
            yield value


def hidden(value: Any, sealed: set[str]) -> Iterator[str]:
    """Texts of 20 characters and more under sealed keys, at any depth."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield from (
                (t for t in map(str.strip, texts(v, set())) if len(t) >= 20) if k in sealed else hidden(v, sealed)
            )
    elif isinstance(value, list):
        for v in value:
            yield from hidden(v, sealed)
    elif isinstance(value, str) and value[:1] in ("{", "["):
        try:
            yield from hidden(json.loads(value), sealed)
        except json.JSONDecodeError:
            return


# NeMo Gym


def test_a_rollout_becomes_steps_a_reward_in_its_group_and_an_outcome() -> None:
    rollout = one(nemo_gym, made.nemo_swe())
    first, second, last = payloads("action", rollout)
    assert rollout.n_steps == 3
    assert (first["reasoning"], first["text"]) == (
        "It must be the scales in the yard.",
        "Let me look at the anvil first.",
    )
    assert first["command"] == "cat anvil.py"
    assert second["command"] == "sed -i s/1/1000/ anvil.py\npytest -q", "two calls before an answer are one reply"
    assert [c["id"] for c in json.loads(second["tool_calls"])] == ["c2", "c3"]
    assert last == {"text": "The anvil is heavy enough now."}, "the closing reply is a step"
    seen = [
        (e.step, o["position"], o["tool_call_id"], o.get("exit_code"))
        for e in of("observation", rollout)
        for o in [e.payload]
    ]
    assert seen == [(0, 0, "c1", None), (1, 0, "c3", 0), (1, 1, "c2", None)]
    (task,), (start,), (end,) = (payloads(k, rollout) for k in ("task", "start", "end"))
    assert (task["task_id"], task["repo"], task["base_commit"]) == ("acme__anvil-7", "acme/anvil", "0123abc")
    assert (task["tests_hash"], task["solution_hash"]) == (sha256(made.TEST_PATCH), sha256(made.GOLD_PATCH))
    assert (start["agent"], start["model"], start["attempt"], start["run_id"]) == (
        "NeMo Gym smith",
        "lab/small-1",
        0,
        "run-1",
    )
    assert payloads("instruction", rollout)[0]["content"] == "Anvils are too light."
    assert json.loads(start["config"]) == {"temperature": 0.7, "model": "lab/small-1"}
    assert (end["tokens_in"], end["tokens_out"], end["duration_s"]) == (1200, 90, 12.5)
    assert end["submission"].endswith("999\n")
    (outcome,), (reward,) = payloads("outcome", rollout), payloads("reward", rollout)
    assert (outcome["resolved"], outcome["score"], reward["reward"]) == (True, 1.0, 1.0)


def test_rollouts_of_a_task_share_a_group_and_other_tasks_have_another() -> None:
    groups = [payloads("reward", one(nemo_gym, r))[0].get("group_id") for r in (
        made.nemo_swe(0), made.nemo_swe(1, 0.0), made.nemo_swe(0, _ng_task_index=4),
        made.nemo_swe(0, agent_ref={"name": "other"}), made.nemo_single(),
    )]  # fmt: skip
    assert groups[0] == groups[1] is not None
    assert len(set(groups)) == 4
    assert groups[4] is None, "a source that numbers no tasks names no group"


def test_a_rollout_to_leave_out_of_training_has_a_mask_on_every_step() -> None:
    assert not of("mask", one(nemo_gym, made.nemo_swe()))
    rollout = one(nemo_gym, made.nemo_swe(mask_sample=True))
    masks, end = of("mask", rollout), of("end", rollout)[0]
    assert [m.step for m in masks] == [0, 1, 2]
    assert all(m.payload["weight"] == 0 and m.payload["evidence"] == [end.event_id] for m in masks)


def test_partial_rewards_token_ids_and_tools_are_kept() -> None:
    rollout = one(nemo_gym, made.nemo_single())
    (outcome,), (end,), (action,) = payloads("outcome", rollout), of("end", rollout), of("action", rollout)
    assert (outcome["score"], outcome.get("resolved")) == (0.25, None), "a quarter is neither solved nor nothing"
    assert extra(action)["items"][0]["generation_token_ids"] == [4, 5]
    assert json.loads(payloads("instruction", rollout)[0]["tools"])[0]["name"] == "run"
    assert payloads("task", rollout)[0]["statement"] == "Print the sum of all given numbers."
    told = extra(end)
    assert set(told["metadata"]["inputs"]) == {"sha256", "n_chars"} == set(told["notes"]), (
        "tests in base64 are sealed too"
    )
    assert (told["metadata"]["output"], told["result"], end.payload["submission"]) == ("20", [True, -2], "print(0)")


def test_a_rollout_without_steps_keeps_its_result() -> None:
    rollout = one(nemo_gym, made.nemo_lost())
    assert (rollout.n_steps, payloads("outcome", rollout)[0]["resolved"]) == (0, False)
    assert payloads("end", rollout)[0]["submission"].startswith("diff")


def test_token_ids_end_a_reply() -> None:
    ids = {"generation_token_ids": [7]}
    items = [made.message("one", **ids), made.message("two"), made.call("c"), made.output("c", "x")]
    before, turns, odd = response_items.turns([*items, 5])
    assert ([len(t.reply) for t in turns], before, odd) == ([1, 2], [], [5])


# InterCode


def test_intercode_has_a_reward_a_step_and_the_best_as_its_score() -> None:
    react, plain = (one(intercode, r, k) for k, r in list(made.intercode().items())[:2])
    assert [a.get("command") for a in payloads("action", react)] == ["ls /shed | wc -l", "submit"]
    assert payloads("action", react)[0]["text"] == "I should list the shed first.\nexecute[ls /shed | wc -l]"
    assert [(e.step, e.payload["reward"]) for e in of("reward", plain)] == [(0, 0.3), (1, 0.0), (2, 0.67)]
    assert [e.caused_by for e in of("reward", plain)] == [e.event_id for e in of("action", plain)]
    graded = [payloads("outcome", r)[0] for r in (react, plain)]
    assert [(g["score"], g["resolved"]) for g in graded] == [(1.0, True), (0.67, False)]
    assert [bool(a.get("parse_error")) for a in payloads("action", plain)] == [False, True, False]
    assert extra(of("observation", plain)[2])["observations"] == [["anvil", 12]], "rows are kept as they are"
    (task,) = payloads("task", plain)
    assert (task["task_id"], task["solution_hash"]) == (
        "ic_bash/anvils.json/1",
        sha256("the reference solution printed 13 anvils"),
    )
    assert extra(of("task", plain)[0])["key"] == "1"


def test_r2e_gym_says_the_task_before_the_first_step_and_runs_what_its_shell_is_given() -> None:
    record = r2e_gym_record()
    rollout = one(r2e_gym, record)
    (given,) = payloads("instruction", rollout)
    assert (given["role"], given["content"]) == ("user", record["problem_statement"])
    assert payloads("action", rollout)[0]["command"] == "ls /forge"
    assert not payloads("instruction", one(r2e_gym, {k: v for k, v in record.items() if k != "problem_statement"}))


def test_wrapped_intercode_records_are_read_and_a_broken_one_is_rejected_alone(tmp_path: Path) -> None:
    read_alone = {one(intercode, r, k).trajectory_id for k, r in made.intercode().items()}
    bad = {"turn_history": {"actions": 3}}
    wrapped = {"meta": {"env": "sql"}, "logs": {**made.intercode(), "bad": bad}}
    (tmp_path / "wrapped.json").write_text(json.dumps(wrapped))
    lake = Lake(tmp_path / "lake")
    report = import_paths(lake, [tmp_path / "wrapped.json"])
    assert (report.records, report.taken, report.reasons) == (4, 3, {"malformed": 1})
    rows = EventLog(lake).read(kinds=["task"]).to_pylist()
    assert {r["trajectory_id"] for r in rows} == read_alone
    assert [json.loads(r["extra"])["around"]["meta"]["env"] for r in rows] == ["sql"] * 3
    (rejected,) = lake.read("rejects").to_pylist()
    assert json.loads(rejected["raw"]) == bad
    assert "bad" in rejected["detail"]


# tau-bench


def test_tau_bench_is_a_conversation_whose_expected_actions_stay_hidden() -> None:
    trial = one(tau_bench, made.tau_bench(2, 1.0))
    assert trial.n_steps == 3
    assert [i["role"] for i in payloads("instruction", trial)] == ["system", "user"]
    assert [(e.step, e.payload["role"]) for e in of("observation", trial)] == [(0, "user"), (1, "tool"), (2, "user")]
    (called,) = json.loads(payloads("action", trial)[1]["tool_calls"])
    assert json.loads(called["function"]["arguments"])["item"] == "anvil"
    assert (payloads("start", trial)[0]["attempt"], payloads("outcome", trial)[0]["resolved"]) == (2, True)
    expected = made.tau_bench()["info"]["task"]["actions"]
    assert payloads("task", trial)[0]["solution_hash"] == sha256(canonical(expected))
    assert "golden wheels" not in logged(trial.events)


# critique and revision


def test_rounds_are_attempts_linked_to_their_parents_and_graded_twice() -> None:
    run = one(critique_revision, made.debugger())
    first, second = payloads("attempt", run)
    assert run.n_steps == 2
    assert [a["round"] for a in (first, second)] == [0, 1] == [e.step for e in of("attempt", run)]
    assert (first.get("parent_attempt"), second["parent_attempt"]) == (None, first["attempt_id"])
    assert second["code_hash"] == sha256(second["code"])
    seen = [(o["subject"], o["grader"], o.get("resolved")) for o in payloads("outcome", run)]
    assert seen == [
        (first["attempt_id"], "visible tests", False), (second["attempt_id"], "visible tests", None),
        (second["attempt_id"], "hidden tests", False), ("trajectory", "hidden tests", False),
    ], "passing what was shown is not solving"  # fmt: skip
    assert [t["passed"] for t in payloads("outcome", run)[0]["tests"]] == [False, True]
    assert extra(of("end", run)[0])["is_passing"] is True


def test_reflections_are_verdicts_and_tell_of_solutions_that_are_lost() -> None:
    run = one(critique_revision, made.reflexion())
    attempts, verdicts = of("attempt", run), of("verdict", run)
    assert run.n_steps == 3
    assert [a.payload.get("code") is None for a in attempts] == [True, True, False]
    assert [a.payload.get("critique_id") for a in attempts] == [None, *(v.event_id for v in verdicts)]
    assert [v.caused_by for v in verdicts] == [a.event_id for a in attempts[:2]]
    assert {v.payload["scope"] for v in verdicts} == {"attempt"}
    assert [o["resolved"] for o in payloads("outcome", run)] == [True, True]


def test_feedback_that_is_one_text_decides_nothing() -> None:
    row = made.debugger() | {"test_feedback": ["Tests passed:\n\nTests failed: assert add(1, 2) == 3", None]}
    told = of("outcome", one(critique_revision, row))
    assert told[0].payload.get("resolved") is None
    assert extra(told[0])["feedback"].startswith("Tests passed")


# graded generations and problems


def test_every_sample_is_a_trajectory_with_its_own_outcome() -> None:
    right, wrong = read(graded_generations, made.graded())
    assert isinstance(right, Imported)
    assert isinstance(wrong, Imported)
    assert right.trajectory_id != wrong.trajectory_id
    assert [payloads("outcome", r)[-1]["resolved"] for r in (right, wrong)] == [True, False]
    assert [payloads("start", r)[0]["attempt"] for r in (right, wrong)] == [0, 1]
    assert payloads("attempt", wrong)[0]["code"] == "print(1)"
    assert payloads("action", wrong)[0]["text"].startswith("Here it is")
    assert "twenty-one" not in logged(wrong.events)


def test_results_of_single_tests_are_kept() -> None:
    row = made.graded() | {"graded_list": [[True, True], [True, -2]]}
    samples = read(graded_generations, row)
    told = [payloads("outcome", s)[0] for s in samples if isinstance(s, Imported)]
    assert [t["resolved"] for t in told] == [True, False]
    assert [t["passed"] for t in told[1]["tests"]] == [True, False]


def test_problems_are_tasks_alone_with_hashes_of_what_is_hidden() -> None:
    tasks = [one(problems, p) for p in made.problems()]
    assert {(t.n_steps, len(t.events), t.events[0].kind) for t in tasks} == {(0, 1, "task")}
    rows = [t.events[0].payload for t in tasks]
    assert all(r["statement"] and r["tests_hash"] for r in rows)
    ids = ["Sums/1", "Sums_1_add", "11", "5", "17_A", "abc", "c692", "acme__anvil-7"]
    assert [r["task_id"] for r in rows] == ids == [t.instance_id for t in tasks]
    assert rows[0]["tests_hash"] == rows[1]["tests_hash"] == sha256(made.HIDDEN_TEST), "the same test has the same hash"
    assert rows[0]["solution_hash"] == sha256(made.GOLD_CODE)
    assert (rows[0]["suite"], rows[3]["source_url"], rows[4]["time_limit_s"]) == ("Sums", "u", 2.5)
    assert (rows[7]["repo"], rows[7]["base_commit"]) == ("acme/anvil", "0123abc")
    assert extra(tasks[0].events[0])["entry_point"] == "add"


def test_attempts_are_no_problems_and_problems_no_attempts() -> None:
    for name, files in made.EXAMPLES.items():
        for data, _ in files:
            lines = (
                data.splitlines()
                if name in ("nemo-gym-rollouts", "critique-revision", "problems-with-tests")
                else [data]
            )
            records = [json.loads(line) for line in lines]
            records = records[0] if isinstance(records[0], list) else records
            records = list(records[0].values()) if "0" in records[0] else records
            for record in records:
                assert [n for n, i in BY_NAME.items() if i.tells(record)] == [name], record  # type: ignore[attr-defined]


# what must hold for all


def examples() -> Iterator[tuple[str, Any]]:
    for p in made.problems():
        yield "problems-with-tests", p
    for r in (made.nemo_swe(), made.nemo_single(), made.nemo_lost()):
        yield "nemo-gym-rollouts", r
    for r in made.intercode().values():
        yield "intercode", r
    yield "tau-bench", made.tau_bench()
    for r in (made.debugger(), made.reflexion()):
        yield "critique-revision", r
    yield "code-generations-graded", made.graded()


def check(name: str, record: Any, imported: list[Imported]) -> None:
    """Every text is found again, and nothing that is hidden."""
    kept = logged([e for i in imported for e in i.events])
    asked = logged(
        [e for i in imported for e in i.events if e.kind in ("instruction", "action", "observation", "attempt")]
    )
    statements = "\0".join(p["statement"] for i in imported for p in payloads("task", i) if p.get("statement"))
    visible = asked + statements + "\0".join(str(p.get("submission")) for i in imported for p in payloads("end", i))
    secrets = set(hidden(record, SEALED[name]))
    lost = [t for t in texts(record, SEALED[name]) if t not in kept and not any(s in t for s in secrets)]
    lost = [t for t in lost if not packed(t)]
    assert not lost, lost[:3]
    found = [s for s in secrets if s in kept and s not in visible]
    assert not found, found[:3]


def packed(text: str) -> bool:
    """Whether a text is base64 of tests, which is sealed as a whole."""
    return bool(Seal(nemo_gym.TESTS, nemo_gym.SOLUTIONS).strip(text) != text)


@pytest.mark.parametrize(("name", "record"), list(examples()), ids=lambda v: v if isinstance(v, str) else "")
def test_nothing_is_lost_and_nothing_hidden_is_logged(name: str, record: Any) -> None:
    source = SourceFile("a/b.json", "b", "a", "c", "", record_identity(record))
    told = list(BY_NAME[name].read(json.loads(json.dumps(record)), source))
    imported = [t for t in told if isinstance(t, Imported)]
    assert len(imported) == len(told) > 0
    check(name, record, imported)
    assert not [h for h in made.HIDDEN if h.strip() in logged([e for i in imported for e in i.events])]


def test_seal_finds_what_is_hidden_wherever_it_stands() -> None:
    seal = Seal(("tests",), ("gold",))
    text = "the gold is under the old oak tree"
    deep: Obj = {
        "a": [{"gold": text}],
        "b": json.dumps({"note": "x", "tests": ["assert 1 == 1, 'hidden'"]}),
        "c": f"see: {text}!",
    }
    deep |= {"broken": '{"gold": "' + text, "empty": {"gold": "", "tests": []}, "short": "gold"}
    cleaned = seal.strip(deep)
    assert text not in json.dumps(cleaned)
    assert "assert 1" not in json.dumps(cleaned)
    assert cleaned["b"]["note"] == "x"
    assert (cleaned["empty"], cleaned["short"]) == ({"gold": "", "tests": []}, "gold")
    assert seal.solution_hash == sha256(text)
    assert cleaned["c"] == f"see: <sha256 {sha256(text)}>!"


def test_seal_holds_against_hostile_sizes() -> None:
    deep: Any = "the gold is under the old oak tree"
    for _ in range(150):
        deep = [deep]
    text = json.dumps({"gold": "x", "deep": deep})
    assert set(Seal((), ("gold",)).strip({"note": text})["note"]) == {"sha256", "n_chars"}
    many = {"gold": [f"the gold of nugget number {i}" for i in range(20_000)]}
    many["notes"] = [f"a note about nugget number {i}" for i in range(20_000)] + many["gold"][:1]
    assert "the gold of" not in json.dumps(Seal((), ("gold",)).strip(many))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_no_value_makes_an_importer_raise(value: Any) -> None:
    for importer in BY_NAME.values():
        source = SourceFile("a/b.json", "b", "a", "c", "", "i")
        assert all(isinstance(r, Imported | Rejected) for r in importer.read(value, source))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from _places(item, (*path, key))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_wrong_types_anywhere_are_kept_or_rejected(data: st.DataObject) -> None:
    name, record = data.draw(st.sampled_from(list(examples())))
    record = json.loads(json.dumps(record))
    places = list(_places(record))
    for path in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        at = record
        try:
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = data.draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue
    before = json.dumps(record)
    source = SourceFile("a/b.json", "b", "a", "c", "", "i")
    told = list(BY_NAME[name].read(json.loads(before), source))
    assert all(isinstance(r, Imported | Rejected) for r in told)
    if told and all(isinstance(r, Imported) for r in told):
        check(name, json.loads(before), [r for r in told if isinstance(r, Imported)])


def test_the_examples_are_imported_by_a_run_and_a_second_run_knows_them(tmp_path: Path) -> None:
    for name, files in made.EXAMPLES.items():
        for i, (data, suffix) in enumerate(files):
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / f"{name}-{i}{suffix}").write_bytes(data)
    lake = Lake(tmp_path / "lake")
    report = import_paths(lake, [tmp_path / "in"])
    formats = Counter(s["format"].removesuffix("-") for s in lake.read("sources").to_pylist())
    assert formats == {name: len(files) for name, files in made.EXAMPLES.items()}
    assert report.rejected_records == 0
    refresh(lake)
    rows = lake.read("trajectories").to_pylist()
    assert len(rows) == 4 + 3 + 3 + 3 + 3 + 8
    assert sum(r["resolved"] is True for r in rows) == 1 + 1 + 1 + 1 + 2
    assert all(h.strip() not in logged_text(lake) for h in made.HIDDEN)
    assert import_paths(lake, [tmp_path / "in"]).events == 0


def logged_text(lake: Lake) -> str:
    """Every text of the log."""
    return "\0".join(leaves(EventLog(lake).read().to_pylist()))


# the recorded files beside the project

ROOTS = [SHARED / n for n in ("nemo-gym-rollouts", "intercode-results", "tau-bench", "critique-revision",
                              "code-generations-graded", "problems-with-tests")]  # fmt: skip
FILES = sorted(p for r in ROOTS for p in r.rglob("*.json*")) if SHARED.is_dir() else []


def pieces(path: Path) -> Iterator[tuple[Importer, Any, list[Imported]]]:
    opened = open_blob(Bytes(path.read_bytes()))
    importer = BY_NAME[opened.told.format]
    for piece in opened.pieces():
        assert not isinstance(piece, Rejected)
        source = SourceFile(str(path), path.stem, "f", "c", "", record_identity(piece.data), piece.key, opened.around)
        told = list(importer.read(json.loads(json.dumps(piece.data)), source))
        assert not [t for t in told if isinstance(t, Rejected)]
        yield importer, piece.data, [t for t in told if isinstance(t, Imported)]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name[:24]}-{p.name[:40]}")
def test_recorded_files_are_imported_as_records_tsv_counts_them(path: Path) -> None:
    with (SHARED / "RECORDS.tsv").open() as file:
        rows = [r for r in csv.DictReader(file, delimiter="\t") if r["path"] == f"data/{path.relative_to(SHARED)}"]
    read_in = list(pieces(path))
    assert not rows or len(rows) == len(read_in)
    for row, (importer, record, imported) in zip(rows, read_in, strict=False):
        (trajectory,) = imported
        if importer.name == "nemo-gym-rollouts":
            assert trajectory.n_steps == replies(record)
        else:
            assert trajectory.n_steps == int(row["n_steps"]), row
        graded = [o for o in payloads("outcome", trajectory) if o["subject"] == "trajectory"][-1]
        if row["outcome_kind"] in ("reward", "max_reward"):
            assert graded["score"] == float(row["outcome"])
        else:
            assert str(graded["resolved"]) in (row["outcome"], row["outcome"].strip("[]"))
        assert row["instance_id"].startswith("task") or row["instance_id"].partition("#")[0] == trajectory.instance_id
    for importer, record, imported in read_in:
        check(importer.name, record, imported)


def replies(record: Obj) -> int:
    """Model calls of a rollout: items of the agent up to the next answer (RECORDS.tsv counts calls of tools)."""
    mine = [i["type"] != "function_call_output" for i in record["response"]["output"]]
    return sum(a and not b for a, b in zip(mine, [False, *mine], strict=False))
