"""Who acts: schedules as the paper has them, draws that anyone can draw again, and a test that notices when they are not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from stepwell.errors import UnknownName, UsageError
from stepwell.rollout.mixing import SCHEDULES, Schedule, uniform, z_score

SCHEDULE = st.builds(
    Schedule,
    name=st.sampled_from([s for s in SCHEDULES if s != "switch"]),
    start=st.floats(0, 1),
    step=st.floats(0, 1),
    rate=st.floats(0, 1),
    floor=st.floats(0, 1),
)


def betas(n: int = 7, **settings: object) -> list[float | None]:
    return [Schedule(**settings).beta(i) for i in range(1, n + 1)]  # type: ignore[arg-type]


def test_the_schedules() -> None:
    assert betas(name="paper") == [1, 0.8, 0.6, 0.6, 0.6, 0.6, 0.6]
    assert betas(name="paper") == [pytest.approx(max(0.6, 1 - 0.2 * i)) for i in range(7)]
    assert betas(name="linear", step=0.3, floor=0.2) == [1, 0.7, 0.4, 0.2, 0.2, 0.2, 0.2]
    assert betas(name="exponential", rate=0.5, floor=0.1, n=5) == [1, 0.5, 0.25, 0.125, 0.1]
    assert betas(name="constant", start=0.3, n=3) == [0.3, 0.3, 0.3]
    assert betas(name="zero", n=2) == [0, 0]
    assert betas(name="switch", n=2) == [None, None]


@pytest.mark.parametrize("settings", [{"start": 1.1}, {"floor": -0.1}, {"turns": -1}, {"grow": -1}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        Schedule(**settings)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="allowed: constant, exponential"):
        Schedule("cosine")
    with pytest.raises(UsageError, match="numbered from 1"):
        Schedule().beta(0)


@given(SCHEDULE, st.text(), st.integers(0, 200), st.integers(1, 30))
def test_a_decision_is_that_of_its_key(schedule: Schedule, identity: str, turn: int, iteration: int) -> None:
    decision = schedule.decide(identity, turn, iteration)
    assert decision == schedule.decide(identity, turn, iteration)
    assert decision.rng_key
    assert decision.draw == uniform(decision.rng_key)
    assert 0 <= decision.draw < 1
    assert decision.beta == schedule.beta(iteration)
    assert decision.beta is not None
    assert 0 <= decision.beta <= 1
    assert (decision.chosen == "teacher") == (decision.draw < decision.beta)
    assert decision.payload().keys() == {"chosen", "rule", "beta", "draw", "rng_key"}


@given(SCHEDULE, st.integers(1, 30))
def test_beta_never_rises(schedule: Schedule, iteration: int) -> None:
    now, later = schedule.beta(iteration), schedule.beta(iteration + 1)
    assert now is not None
    assert later is not None
    assert later <= now


@given(st.text(), st.integers(0, 40), st.integers(0, 5), st.integers(1, 6))
def test_there_is_one_switch(identity: str, turns: int, grow: int, iteration: int) -> None:
    schedule = Schedule("switch", turns=turns, grow=grow)
    longest = turns + grow * (iteration - 1)
    chosen = [schedule.decide(identity, t, iteration).chosen for t in range(longest + 2)]
    student = chosen.count("agent")
    assert chosen == ["agent"] * student + ["teacher"] * (longest + 2 - student)
    assert student <= longest


def test_draws_are_uniform_and_switches_too() -> None:
    draws = [uniform(f"{t}/{n}/actor") for t in range(200) for n in range(50)]
    assert kstest(draws, "uniform").pvalue > 1e-3
    schedule = Schedule("switch", turns=4)
    counts = [0] * 5
    for n in range(5000):
        counts[sum(schedule.decide(str(n), t, 1).chosen == "agent" for t in range(6))] += 1
    assert all(abs(c - 1000) < 4 * math.sqrt(800) for c in counts)


def test_the_largest_draw_is_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ones:
        def digest(self) -> bytes:
            return b"\xff" * 32

    monkeypatch.setattr("stepwell.rollout.mixing.hashlib.sha256", lambda _: Ones())
    assert uniform("any") < 1
    assert Schedule().decide("x", 0, 1).chosen == "teacher"


@pytest.mark.parametrize("beta", [0.8, 0.6])
def test_what_is_drawn_passes_and_what_is_not_fails(beta: float) -> None:
    schedule = Schedule("constant", start=beta)
    taught = [schedule.decide(f"t{t}", n, 1).chosen == "teacher" for t in range(60) for n in range(10)]
    assert abs(z_score([beta] * 600, sum(taught))) < 3
    assert abs(z_score([beta - 0.1] * 600, sum(taught))) > 3


def test_nothing_left_to_chance() -> None:
    assert z_score([1.0] * 9, 9) == 0
    assert z_score([1.0] * 9, 8) == -math.inf
    assert z_score([0.0] * 9, 1) == math.inf
    assert z_score([], 0) == 0
    assert z_score([0.5] * 100, 60) == pytest.approx(2)
