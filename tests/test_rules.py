"""The step rules, on trajectories of three harnesses; and judging only what is new."""

from __future__ import annotations

import random
from typing import Any

import lakes
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import Step

from schemas.kinds import LABELS
from stepwell.critics import rules, taxonomy, turns
from stepwell.critics.run import judge_new
from stepwell.errors import UnknownName
from stepwell.event import Event, to_table
from stepwell.lake import Lake
from stepwell.log import EventLog, live


def table(events: list[Event]) -> pa.Table:
    return to_table(events, "b", lakes.EPOCH)


def labels(steps: list[Step], *, hashes: bool = False) -> list[str]:
    return [v.payload["label"] for v in rules.judge(table(lakes.trajectory("t", steps, hashes=hashes)))]


def found(steps: list[Step], *, hashes: bool = False) -> set[tuple[int, str]]:
    (one,) = turns.trajectories(table(lakes.trajectory("t", steps, hashes=hashes)))
    return {(f.step, f.rule) for f in rules.findings(one.turns)}


def test_the_embedded_world_is_judged_as_its_ground_truth_says() -> None:
    steps = lakes.good_repair("t")
    truth = [e.payload["label"] for e in steps if e.kind == "verdict"]
    assert [v.payload["label"] for v in rules.judge(table(steps))] == truth


def test_repetition_is_unnecessary_then_a_mistake_and_a_change_in_between_excuses_it() -> None:
    view = Step("view", "1 x")
    assert labels([view, view, view]) == ["good", "unnecessary", "mistake"]
    assert labels([view, Step("sub 1 x y", "ok"), view]) == ["good"] * 3
    assert labels([view, Step("view", "1 y")]) == ["good", "good"]


@pytest.mark.parametrize(
    ("command", "output", "exit_code", "failed"),
    [
        ("sub 9 a b", "error: no line 9, last is 3", 1, True),
        ("sub 2 a b", "2: b", 0, False),
        ("sed -i 's/a/b/' x.py", "sed: can't read x.py: No such file or directory", 2, True),
        ("sed -i 's/a/b/' x.py && pytest -q", "1 failed", 1, False),
        ("sed -n 1,5p x.py", "", 1, False),
        ("cat <<'EOF' > x.py\nimport pytest\nEOF", "", 0, False),
        ("edit 3:4\nx = (\nend_of_edit", "Your proposed edit has introduced new syntax error(s).", None, True),
        (
            "str_replace_editor str_replace /a.py --old_str 'x' --new_str 'y'",
            "No replacement was performed",
            None,
            True,
        ),
        ("str_replace_editor view /a.py", "Error: invalid path", None, False),
        ("git apply fix.patch", "error: patch failed: a.py:3\nerror: a.py: patch does not apply", 1, True),
    ],
)
def test_failed_edits_of_every_harness(command: str, output: str, exit_code: int | None, failed: bool) -> None:
    assert ((0, "failed_edit") in found([Step(command, output, exit_code)])) == failed


@pytest.mark.parametrize(
    ("command", "test", "edit", "submit"),
    [
        ("python -m pytest -q tests", True, False, False),
        ("cd /repo && PYTHONPATH=. pytest -x", True, False, False),
        ("grep -rn pytest setup.py", False, False, False),
        ("pip install pytest", False, False, False),
        ("python reproduce_issue.py", True, False, False),
        ("./tests/runtests.py admin", True, False, False),
        ("echo hi > /tmp/log", False, False, False),
        ("echo 'x = 1' >> a.py", False, True, False),
        ("ls 2>/dev/null", False, False, False),
        ("python - <<'EOF'\nopen('a.py', 'w').write('x')\nEOF", False, True, False),
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt", False, False, True),
        ("submit", False, False, True),
    ],
)
def test_what_a_command_is(command: str, test: bool, edit: bool, submit: bool) -> None:
    turn = turns.Turn(0, "a", command, "", None, None)
    assert (turn.is_test, turn.is_edit, turn.is_submit) == (test, edit, submit)


def test_an_undone_edit_is_found_by_state_and_by_its_inverse() -> None:
    there, back = Step("sub 2 'a b' c", "ok", 0, "s1"), Step("sub 2 c 'a b'", "ok", 0, "s0")
    assert labels([there, back], hashes=True) == ["mistake", "recover"]
    assert labels([there, back]) == ["mistake", "recover"]
    redone = labels([there, back, there], hashes=True)
    assert redone == ["good", "mistake", "recover"], "what was undone and restored was right"
    between = Step("sub 3 x y", "ok", 0, "s2")
    assert labels([there, between, back]) == ["good"] * 3, (
        "without hashes only an inverse with nothing between is certain"
    )
    sed = [Step("sed -i '3s/aa/bb/' m.py"), Step("sed -i '3s/bb/aa/' m.py")]
    assert labels(sed) == ["mistake", "recover"]
    assert labels([sed[0], Step("sed -i '4s/bb/aa/' m.py")]) == ["good", "good"]


def test_an_ignored_error_and_a_corrected_one() -> None:
    broken = Step("pyhton run.py", "bash: pyhton: command not found", 127)
    assert (1, "ignored_error") in found([broken, broken])
    assert labels([broken, Step("git commit -m done")])[1] == "unnecessary"
    assert labels([Step("sub 9 a b", "error: no line 9", 1), Step("submit")])[1] == "mistake"
    assert labels([broken, Step("python run.py", "done")])[1] == "recover"
    assert labels([broken, Step("ls", "run.py"), Step("python run.py", "done")])[1:] == ["good", "recover"]
    assert not found([Step("check", "FAIL f(1) gave 2, want 3", 1), Step("view", "1 x")]), (
        "a failing test is no tool error"
    )


def test_submitting_needs_a_passing_test_run_since_the_last_edit() -> None:
    edit, ok, submit = Step("sub 1 a b", "ok"), Step("check", "ok: 2 passed"), Step("submit", "SUBMITTED")
    assert labels([edit, ok, submit])[-1] == "good"
    assert labels([ok, edit, submit])[-1] == "mistake"
    assert labels([edit, Step("check", "FAIL f", 1), submit])[-1] == "mistake"
    assert labels([edit, Step("pytest", "3 passed in 0.1s", None), submit])[-1] == "good", (
        "no exit code: the summary counts"
    )


def test_format_errors_and_the_verdict_payload() -> None:
    steps = [Step(None, "Reply with one command.", None), Step("view", "1 x")]
    events = lakes.trajectory("t", steps)
    first, second = rules.judge(table(events))
    assert (first.payload["label"], second.payload["label"]) == ("mistake", "good")
    assert first.payload["detections"][0]["category"] == "task_specification"
    assert "steps 0" in first.payload["detections"][0]["evidence"]
    assert first.caused_by == lakes.actions(events)[0].event_id
    assert first.payload["taxonomy_id"] == taxonomy.load().id
    assert (first.actor, first.policy, first.payload.get("raw")) == ("critic", "rules@1", None)


def test_a_retracted_action_is_not_judged() -> None:
    events = lakes.trajectory("t", [Step("view", "1 x"), Step("view", "1 x")])
    target = lakes.actions(events)[1].event_id
    gone = Event(
        "retraction", "t", "demo", "human", {"target_event": target, "action": "redact", "reason": "secret"}, 1
    )
    assert [v.step for v in rules.judge(table([*events, gone]))] == [0]
    down = Event("retraction", "t", "demo", "human", {"action": "takedown", "reason": "asked"})
    assert rules.judge(table([*events, down])) == []


COMMANDS = st.sampled_from(["view", "check", "sub 1 a b", "sub 1 b a", "submit", "ls", None])
STEPS = st.lists(
    st.builds(Step, COMMANDS, st.sampled_from(["", "ok: 1 passed", "FAIL x"]), st.sampled_from([0, 1, None])),
    max_size=8,
)


@settings(max_examples=60)
@given(one=STEPS, two=STEPS, seed=st.integers())
def test_one_verdict_a_step_whatever_the_order_and_the_company(one: list[Step], two: list[Step], seed: int) -> None:
    first, second = lakes.trajectory("t1", one), lakes.trajectory("t2", two, hashes=True)
    together = [*first, *second]
    random.Random(seed).shuffle(together)
    verdicts = rules.judge(table(together))
    alone = rules.judge(table(first)) + rules.judge(table(second))
    assert [v.event_id for v in verdicts] == [v.event_id for v in alone]
    assert [v.caused_by for v in verdicts] == [a.event_id for a in lakes.actions([*first, *second])]
    assert all(v.payload["label"] in LABELS for v in verdicts)


def test_judging_again_judges_nothing_and_growth_supersedes(lake: Lake) -> None:
    lakes.build(lake)
    first = judge_new(lake, size=2)
    assert (first.n_trajectories, first.n_verdicts, first.n_superseded) == (5, 30, 0)
    version = EventLog(lake).version
    assert judge_new(lake).n_trajectories == 0
    assert EventLog(lake).version == version

    def holding() -> list[dict[str, Any]]:
        rows = live(EventLog(lake).replay("t-loop-a")).to_pylist()
        return [r for r in rows if r["policy"] == "rules@1" and r["kind"] == "verdict"]

    before = [r["verdict"] for r in holding()]
    events = lakes.looping("t-loop-a", model="model-a", task_id="task-2")
    late = Event("observation", "t-loop-a", "demo", "environment", {"raw": "late", "position": 1}, 1)
    EventLog(lake).append([*events, late], "late")
    again = judge_new(lake)
    assert (again.n_trajectories, again.n_verdicts, again.n_superseded) == (1, 6, 6)
    assert judge_new(lake).n_trajectories == 0
    assert [r["step"] for r in holding()] == list(range(6))
    assert holding()[2]["verdict"]["label"] == "good", "its result now differs from that of the step before"
    said = {"target_event": late.event_id, "action": "supersede", "reason": "it belongs elsewhere"}
    EventLog(lake).append([Event("retraction", "t-loop-a", "demo", "system", said)], "back")
    assert judge_new(lake).n_verdicts == 6
    assert [r["verdict"] for r in holding()] == before
    assert judge_new(lake).n_trajectories == 0


def test_an_unknown_critic_and_category_list_what_there_is(lake: Lake) -> None:
    with pytest.raises(UnknownName, match=r"unknown critic 'gpt'; allowed: leaks@1, rules@1"):
        judge_new(lake, "gpt")
    with pytest.raises(UnknownName, match="step_repetition"):
        _ = taxonomy.load()["nonsense"]
    with pytest.raises(UnknownName, match="steer-12"):
        taxonomy.load("nonsense")


def test_the_default_taxonomy_has_its_twelve_categories() -> None:
    loaded = taxonomy.load()
    assert len(loaded.categories) == 12
    assert [sum(c.group == g for c in loaded.categories) for g in taxonomy.GROUPS] == [4, 4, 4]
    assert loaded.id.startswith("steer-12@2#")
    assert all(c.crosswalk for c in loaded.categories)
