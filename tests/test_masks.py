"""Mask rules: weights, evidence, equal rates, coexistence, and deciding only what is new."""

from __future__ import annotations

import lakes
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import Step

from schemas.kinds import LABELS
from stepwell.critics.run import judge_new
from stepwell.curation.masks import MaskRule, decide, mask_new, rule_of
from stepwell.data_settings import Mask
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event, to_table
from stepwell.lake import Lake
from stepwell.log import EventLog, live

SRFT = MaskRule("srft", "judge@1")


def judged(labels: list[str | None], name: str = "t", resolved: bool | None = False) -> list[Event]:
    one = lakes.trajectory(name, [Step("view", str(i)) for i in range(len(labels))], resolved=resolved)
    return [*one, *(lakes.verdict(a, label) for a, label in zip(lakes.actions(one), labels, strict=True))]


def table(events: list[Event]) -> pa.Table:
    return to_table(events, "b", lakes.EPOCH)


def weights(events: list[Event], rule: MaskRule) -> list[float]:
    return [m.payload["weight"] for m in decide(table(events), rule)]


def test_srft_masks_mistakes_of_unresolved_trajectories_only() -> None:
    labels: list[str | None] = ["good", "mistake", "unnecessary", None, "recover"]
    assert weights(judged(labels), SRFT) == [1, 0, 1, 0, 1]
    assert weights(judged(labels, resolved=True), SRFT) == [1] * 5
    assert weights(judged(labels, resolved=True), MaskRule("srft", "judge@1", resolved="judged")) == [1, 0, 1, 0, 1]
    both = MaskRule("srft", "judge@1", ("unnecessary", "mistake"))
    assert weights(judged(labels), both) == [1, 0, 0, 0, 1]


def test_evidence_reason_and_cause() -> None:
    events = judged(["good", "mistake", None])
    verdicts = [e.event_id for e in events if e.kind == "verdict"]
    masks = decide(table(events), SRFT)
    assert [m.payload["evidence"] for m in masks] == [[v] for v in verdicts]
    assert [m.caused_by for m in masks] == verdicts
    assert [m.payload["reason"] for m in masks] == ["critic_label", "critic_label", "unparseable"]
    assert {(m.actor, m.policy, m.payload["mask_rule"]) for m in masks} == {("system", SRFT.id, SRFT.id)}
    full = decide(table(judged(["mistake"], resolved=True)), SRFT)
    assert full[0].payload["reason"] == "resolved"


def test_a_trajectory_nobody_judged_is_not_decided_and_a_missing_verdict_is_masked() -> None:
    assert decide(table(lakes.trajectory("t", [Step("view")], resolved=False)), SRFT) == []
    events = [e for e in judged(["good", "good"]) if not (e.kind == "verdict" and e.step == 1)]
    masks = decide(table(events), SRFT)
    assert [(m.payload["weight"], m.payload["reason"]) for m in masks] == [(1, "critic_label"), (0, "unjudged")]
    assert masks[1].payload["evidence"] == [lakes.actions(events)[1].event_id]


@settings(max_examples=60)
@given(labels=st.lists(st.sampled_from([*LABELS, None]), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_random_masks_as_many_steps_as_srft_and_every_mask_has_evidence(labels: list[str | None], seed: int) -> None:
    events = judged(labels)
    control = MaskRule("random", "judge@1", seed=seed)
    assert sum(weights(events, control)) == sum(weights(events, SRFT))
    ids = {e.event_id for e in events}
    for rule in (SRFT, control, MaskRule("all")):
        masks = decide(table(events[::-1]), rule)
        assert [m.event_id for m in masks] == [m.event_id for m in decide(table(events), rule)]
        assert all(m.payload["evidence"] and set(m.payload["evidence"]) <= ids for m in masks)
        assert [m.step for m in masks] == list(range(len(labels)))


def test_random_depends_on_its_seed() -> None:
    events = judged(["mistake", *["good"] * 19])
    chosen = {tuple(weights(events, MaskRule("random", "judge@1", seed=s))) for s in range(8)}
    assert len(chosen) > 1


@pytest.mark.parametrize(
    "rule",
    [MaskRule(), MaskRule("random", "a/b@2", ("mistake", "good"), "judged", 7), MaskRule("all"), MaskRule(mask=())],
)
def test_the_id_is_canonical_and_can_be_read_back(rule: MaskRule) -> None:
    assert MaskRule.parse(rule.id) == rule
    assert str(rule) == rule.id


def test_parameters_are_in_the_id_in_one_order() -> None:
    assert MaskRule(mask=("recover", "mistake")).id == "srft@1(critic=rules@1,mask=mistake+recover,resolved=full)"
    assert MaskRule(mask=("recover", "mistake")) == MaskRule(mask=("mistake", "recover"))
    assert rule_of(Mask(rule="srft", labels=("mistake",))) == MaskRule()


def test_wrong_rules_say_what_is_allowed() -> None:
    with pytest.raises(UnknownName, match="all, human, random, srft"):
        MaskRule("magic")
    with pytest.raises(UnknownName, match="full, judged"):
        MaskRule(resolved="sometimes")
    with pytest.raises(UnknownName, match="good, mistake"):
        MaskRule(mask=("bad",))
    with pytest.raises(UsageError, match="becomes part of an id"):
        MaskRule(critic="a,b")
    with pytest.raises(UsageError, match="write it like"):
        MaskRule.parse("srft")


def test_the_last_rerun_of_the_grader_counts() -> None:
    events = judged(["mistake"], resolved=True)
    flaky = {"subject": "trajectory", "grader": "demo-tests@1", "rule": "all", "resolved": False, "rerun": 1}
    again = Event("outcome", "t", "demo", "grader", flaky, policy="demo-tests@1")
    assert weights([*events, again], SRFT) == [0]


def test_masking_again_writes_nothing_rules_coexist_and_new_verdicts_supersede(lake: Lake) -> None:
    lakes.build(lake)
    judge_new(lake)
    rule = MaskRule()
    first = mask_new(lake, rule, size=2)
    assert (first.n_trajectories, first.n_masks, first.n_superseded) == (5, 30, 0)
    version = EventLog(lake).version
    assert mask_new(lake, rule).counts() == {"trajectories": 0, "masks": 0, "superseded": 0}
    assert EventLog(lake).version == version
    assert mask_new(lake, MaskRule("all")).n_masks == 30
    late = Event("observation", "t-loop-a", "demo", "environment", {"raw": "late", "position": 1}, 1)
    EventLog(lake).append([late], "late")
    judge_new(lake)
    again = mask_new(lake, rule)
    assert (again.n_trajectories, again.n_masks, again.n_superseded) == (1, 6, 6)
    assert mask_new(lake, rule).n_trajectories == 0
    assert mask_new(lake, MaskRule("all")).n_trajectories == 0


def test_masks_return_with_the_grading_they_follow_from(lake: Lake) -> None:
    log, rule = EventLog(lake), SRFT
    made = judged(["mistake", "good"], resolved=False)
    log.append(made, "first")
    mask_new(lake, rule)

    def held() -> dict[int, float]:
        rows = [r for r in live(log.read()).to_pylist() if r["kind"] == "mask"]
        assert len(rows) == len({r["step"] for r in rows})
        return {r["step"]: r["mask"]["weight"] for r in rows}

    before, trajectory = held(), made[0].trajectory_id
    for n in range(3):
        payload = {"subject": "trajectory", "grader": "wrong", "resolved": True, "rerun": n + 1}
        other = Event("outcome", trajectory, "demo", "grader", payload)
        log.append([other], "other")
        assert mask_new(lake, rule).n_masks == 2
        assert held() == {0: 1.0, 1: 1.0} != before
        gone = {"target_event": other.event_id, "action": "supersede", "reason": "it was wrong"}
        log.append([Event("retraction", trajectory, "demo", "system", gone)], "back")
        assert mask_new(lake, rule).n_masks == 2
        assert held() == before
        assert mask_new(lake, rule).n_masks == 0
