"""The questions behind an audit, on a lake with reruns, samples, rewards and masks: answers counted by hand."""

from __future__ import annotations

from typing import Any

import lakes
import pytest
from lakes import Step

from stepwell import query
from stepwell.curation.masks import MaskRule, mask_new
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog


def ask(lake: Lake, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query.run(query.connect(lake), query.question(name)).to_pylist()
    return rows


def outcome(name: str, resolved: bool | None, rerun: int, grader: str = "tests@1") -> Event:
    payload = {"subject": "trajectory", "grader": grader, "resolved": resolved, "rerun": rerun}
    return Event("outcome", name, "demo", "grader", payload, policy=grader)


def test_reruns_and_samples_that_contradict_each_other_are_counted(lake: Lake) -> None:
    runs = {"a": (True, True, False), "b": (True, True), "c": (False,), "d": (False, None, False)}
    made = [outcome(name, r, i) for name, results in runs.items() for i, r in enumerate(results)]
    made.append(outcome("b", False, 0, "other@1"))
    one = lakes.trajectory("s", [Step("view", "1"), Step("view", "2")])
    first, second = lakes.actions(one)
    made += [*one, *(lakes.verdict(first, x, candidate=i) for i, x in enumerate(("good", "mistake", None, "good")))]
    made += [lakes.verdict(second, "good", candidate=i) for i in range(2)]
    EventLog(lake).append(made, "b")
    label, outcomes = ask(lake, "disagreement_on_rerun")
    assert (outcomes["what"], outcomes["who"]) == ("outcome", "tests@1")
    assert (outcomes["things"], outcomes["runs"], outcomes["disagreeing"]) == (3, 7, 1)
    assert outcomes["pairwise"] == round((2 / 3 + 0 + 0) / 3, 4)
    assert (label["what"], label["who"], label["things"], label["runs"]) == ("label", "judge@1", 2, 6)
    assert (label["disagreeing"], label["pairwise"]) == (1, round((1 - 2 / 12) / 2, 4))


def test_groups_where_everyone_gets_the_same_reward_are_counted(lake: Lake) -> None:
    groups = {"g1": (1, 1, 1), "g2": (0, 1), "g3": (0, 0), "g4": (1,)}
    made = []
    for group, rewards in groups.items():
        for i, reward in enumerate(rewards):
            payload = {
                "group_id": group,
                "reward": float(reward),
                "format_ok": True,
                "rule": "tests",
                "attempt_id": str(i),
            }
            made.append(Event("reward", "t", "demo", "system", payload))
    retracted = {"target_event": made[4].event_id, "action": "supersede"}
    EventLog(lake).append(made, "b")
    (before,) = ask(lake, "zero_variance_groups")
    assert (before["groups"], before["zero_variance"], before["groups_of_one"], before["rewards"]) == (3, 2, 1, 8)
    assert before["mean_reward"] == 5 / 8
    EventLog(lake).append([Event("retraction", "t", "demo", "human", retracted)], "gone")
    (after,) = ask(lake, "zero_variance_groups")
    assert (after["groups"], after["zero_variance"], after["groups_of_one"]) == (2, 2, 2)


def test_what_masks_keep_and_why_is_told_by_outcome(lake: Lake) -> None:
    made = [
        *lakes.looping("l1"), *lakes.good_repair("g1"), *lakes.trajectory("u1", [Step("view", "1")]),
        *lakes.trajectory("m1", [Step("sub", "no", truth="mistake")], resolved=False),
        *lakes.trajectory("r1", [Step("sub", "no", truth="mistake"), Step("view", "1", truth="recover")], resolved=False),
        *lakes.good_repair("elsewhere", corpus="other"),
    ]  # fmt: skip
    log = EventLog(lake)
    log.append([e for e in made if e.corpus == "demo"], "b")
    rule = MaskRule("srft", "ground-truth@1")
    mask_new(lake, rule)
    log.append([e for e in made if e.corpus == "other"], "later")
    refresh(lake)
    rows = {r["resolved"]: r for r in ask(lake, "retained")}
    assert {k: r["trajectories"] for k, r in rows.items()} == {False: 3, True: 1, None: 1}
    assert (rows[None]["undecided"], rows[None]["kept"]) == (1, 0)
    unresolved = rows[False]
    assert (unresolved["fully_masked"], unresolved["kept"], unresolved["kept_share"]) == (1, 2, 0.6667)
    assert (unresolved["steps"], unresolved["kept_steps"]) == (9, 3)
    assert (rows[True]["kept_steps_share"], rows[True]["kept_text_share"]) == (1, 1)
    why = {(r["weight"], r["reason"], r["label"]): r for r in ask(lake, "masked_by_reason")}
    masked = why[0.0, "critic_label", "mistake"]
    assert (masked["steps"], masked["trajectories"], masked["recovered_after_mask"]) == (6, 3, 1)
    assert why[1.0, "resolved", None]["steps"] == 5
    assert sum(r["share_of_steps"] for r in why.values()) == pytest.approx(1, abs=1e-3)
