"""Whether critiques give the agent away: a critic that does is found out, one that does not is not."""

from __future__ import annotations

import lakes
import numpy as np
import pyarrow as pa
import pytest
from lakes import Step

from stepwell.critics.audit.leakage import leakage
from stepwell.errors import UsageError
from stepwell.event import Event, to_table

WORDS = ("the", "edit", "is", "wrong", "run", "tests", "again", "look", "at", "file")


def critiques(hints: dict[str, str], flags: dict[str, str], severity: dict[str, float], n: int = 60) -> pa.Table:
    """Critiques of two agents, n trajectories each; `hints` are words, `flags` categories only one is told."""
    rng = np.random.default_rng(11)
    made: list[Event] = []
    for i in range(2 * n):
        model = ("model-a", "model-b")[i % 2]
        one = lakes.trajectory(f"t{i:03}", [Step("view", "1"), Step("view", "2"), Step("view", "3")], model=model)
        made += one
        for action in lakes.actions(one):
            said = " ".join(rng.choice(WORDS, 8)) + (f" {hints[model]}" if model in hints else "")
            level = int(rng.random() < severity.get(model, 0.5))
            found = [{"category": flags.get(model, "tool_selection"), "evidence": "seen"}] if level else []
            made.append(lakes.verdict(action, "good", guidance=said, severity=level, detections=found))
    return to_table(made, "b", lakes.EPOCH)


def test_a_critic_that_says_the_same_of_both_scores_as_chance_does() -> None:
    (found,) = leakage(critiques({}, {}, {}), "judge@1", permutations=200)
    assert found.agents == ("demo-agent@1 model-a", "demo-agent@1 model-b")
    assert found.auc == pytest.approx(0.5, abs=0.12)
    assert found.auc_chance == pytest.approx(0.5, abs=0.02), "shuffled agents cannot be told apart"
    assert found.auc_p > 0.02
    assert found.jsd_p > 0.02
    assert found.n_trajectories == 120


def test_a_word_only_one_agent_hears_is_found() -> None:
    (found,) = leakage(critiques({"model-b": "seaview"}, {}, {}), "judge@1", permutations=200)
    assert found.auc > 0.95
    assert found.auc_p == pytest.approx(1 / 201)
    assert found.jsd_p > 0.02, "what is detected is the same"


def test_detections_that_differ_are_found_by_both_tests() -> None:
    (found,) = leakage(critiques({}, {"model-b": "hallucination"}, {}), "judge@1", permutations=200)
    assert found.jsd > 5 * found.jsd_chance
    assert (found.jsd_p, found.auc_p) == (pytest.approx(1 / 201), pytest.approx(1 / 201))
    assert found.jsd <= 1


def test_agents_that_only_err_more_are_not_told_apart_as_critiques_are_matched_on_severity() -> None:
    (found,) = leakage(critiques({}, {}, {"model-a": 0.2, "model-b": 0.8}), "judge@1", permutations=200)
    assert found.auc_p > 0.02
    assert found.jsd < 0.01, "matched, either agent is flagged as often"
    assert found.n_critiques < 300, "what cannot be matched is left out"


def test_the_same_seed_gives_the_same_answer_and_order_does_not_matter() -> None:
    rows = critiques({}, {}, {})
    shuffled = rows.take(pa.array(np.random.default_rng(1).permutation(len(rows))))
    assert leakage(rows, "judge@1", 50) == leakage(shuffled, "judge@1", 50)


def test_one_agent_is_an_error_that_counts_trajectories() -> None:
    rows = critiques({}, {}, {}, n=4)
    with pytest.raises(UsageError, match=r"demo-agent@1 model-a \(4\), demo-agent@1 model-b \(4\)"):
        leakage(rows, "judge@1")
