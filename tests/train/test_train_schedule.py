"""The learning rate as a function of the step."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hpctrain.train.schedule import ScheduleConfig, learning_rate_at


@st.composite
def runs(draw: st.DrawFn) -> tuple[ScheduleConfig, int]:
    """A schedule and a number of steps that it fits."""
    steps = draw(st.integers(2, 400))
    schedule = ScheduleConfig(
        kind=draw(st.sampled_from(["cosine", "wsd"])),
        warmup_steps=draw(st.integers(0, steps - 1)),
        decay_steps=draw(st.integers(0, steps)),
        final_share=draw(st.floats(0, 1)),
    )
    return schedule, steps


def curve(schedule: ScheduleConfig, steps: int, peak: float = 1.0) -> list[float]:
    return [learning_rate_at(step, steps, peak, schedule) for step in range(1, steps + 1)]


@given(runs())
def test_it_rises_then_never_rises_again_and_ends_at_the_final_share(run: tuple[ScheduleConfig, int]) -> None:
    schedule, steps = run
    rates = curve(schedule, steps)
    warm = schedule.warmup_steps
    assert all(one < next_ for one, next_ in itertools.pairwise(rates[:warm]))
    # the warm-up may reach into the descent of a wsd, which is then entered from above
    after = rates[warm:]
    assert all(one >= next_ - 1e-12 for one, next_ in itertools.pairwise(after))
    assert rates[-1] == pytest.approx(schedule.final_share, abs=1e-9)
    assert max(rates) <= 1 + 1e-12
    assert min(rates) >= 0
    assert warm == 0 or rates[warm - 1] == 1.0


@given(runs(), st.floats(1e-6, 10), st.integers(1, 400))
def test_the_peak_only_scales(run: tuple[ScheduleConfig, int], peak: float, step: int) -> None:
    schedule, steps = run
    rate = learning_rate_at(step, steps, peak, schedule)
    assert rate == pytest.approx(peak * learning_rate_at(step, steps, 1.0, schedule))


def test_the_warm_up_is_linear_and_its_first_step_is_not_zero() -> None:
    assert curve(ScheduleConfig(warmup_steps=4), 100)[:4] == [0.25, 0.5, 0.75, 1.0]
    assert curve(ScheduleConfig(warmup_steps=0, kind="wsd"), 100)[0] == 1.0


def test_cosine_by_hand() -> None:
    rates = curve(ScheduleConfig(kind="cosine", warmup_steps=20, final_share=0.2), 120, peak=2.0)
    assert rates[19] == 2.0
    assert rates[69] == pytest.approx(2 * (0.2 + 0.8 * 0.5)), "half way"
    assert rates[44] == pytest.approx(2 * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4))))
    assert rates[119] == pytest.approx(0.4)


def test_wsd_is_flat_then_falls_in_a_straight_line() -> None:
    rates = curve(ScheduleConfig(kind="wsd", warmup_steps=10, decay_steps=20, final_share=0.1), 100)
    assert set(rates[9:80]) == {1.0}
    falls = [one - next_ for one, next_ in itertools.pairwise(rates[79:])]
    assert len(falls) == 20
    assert falls == pytest.approx([0.9 / 20] * 20)


def test_wsd_takes_a_tenth_of_the_run_by_default() -> None:
    rates = curve(ScheduleConfig(kind="wsd", warmup_steps=0), 200)
    assert rates[179] == 1.0
    assert rates[180] < 1.0
    assert curve(ScheduleConfig(kind="wsd", warmup_steps=0), 3)[-1] == pytest.approx(0.1), (
        "a run under ten steps"
    )


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
def test_steps_past_the_end_stay_at_the_final_share(kind: str) -> None:
    schedule = ScheduleConfig.model_validate({"kind": kind, "warmup_steps": 2})
    assert learning_rate_at(500, 100, 1.0, schedule) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong", [{"warmup_steps": -1}, {"final_share": 1.1}, {"kind": "linear"}, {"decay": 1}]
)
def test_impossible_schedules_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScheduleConfig.model_validate(wrong)
