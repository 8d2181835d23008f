"""What makes a run save or stop, and when it is not started again."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.errors import NoProgress, StoppedByHand
from hpctrain.train.brake import Brake, longest_save_seconds, refuse_standstill, refuse_stopped
from hpctrain.train.signals import StopRequest


def brake(directory: Path, deadline: float | None = None, leads: bool = True) -> Brake:
    return Brake(directory, StopRequest(), leads, deadline)


def test_nothing_asks_to_stop(tmp_path: Path) -> None:
    each = brake(tmp_path, time.time() + 3600)
    assert not each.pressed(1.0)
    assert not each.save_asked


@given(st.floats(0, 1000), st.floats(0, 100), st.floats(-2000, 2000))
def test_the_last_save_always_fits_before_the_wall(save: float, step: float, slack: float) -> None:
    """Whatever a save takes, the run stops as long as it, half as much again, and two steps are left."""
    needed = 1.5 * save + 2 * step + 15
    each = brake(Path("/nowhere"), time.time() + needed + slack + (5 if slack > 0 else -5))
    each.saved(save)
    assert each.pressed(step) == (slack <= 0)


def test_a_slow_save_and_a_slow_step_are_remembered_for_a_while(tmp_path: Path) -> None:
    each = brake(tmp_path)
    each.saved(100)
    each.saved(1)
    assert each.save_seconds == 50
    each.pressed(10)
    each.pressed(1)
    assert each.step_seconds == pytest.approx(9)


def test_only_rank_0_looks_at_files_and_the_wall_and_every_rank_at_signals(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    (tmp_path / "save").touch()
    other = brake(tmp_path, time.time() - 100, leads=False)
    assert not other.pressed(1.0)
    other.signals.handle(signal.SIGUSR1, None)
    assert other.pressed(1.0)
    assert other.reason == "asked to by SIGUSR1"
    first = brake(tmp_path)
    assert first.pressed(1.0)
    assert first.by_hand
    assert first.save_asked
    assert str(tmp_path / "stop") in first.reason


def test_the_save_file_is_removed_once_it_is_answered(tmp_path: Path) -> None:
    each = brake(tmp_path)
    each.pressed(1.0)
    (tmp_path / "save").touch()
    each.answer_save()  # a save that was due anyway: the file came after it was looked for
    assert (tmp_path / "save").exists()
    each._looked = 0.0
    assert not each.pressed(1.0)
    assert each.save_asked
    each.answer_save()
    assert not (tmp_path / "save").exists()
    assert not each.save_asked


def test_a_stopped_run_is_not_started_until_its_file_is_gone(tmp_path: Path) -> None:
    refuse_stopped(tmp_path)
    (tmp_path / "stop").touch()
    with pytest.raises(StoppedByHand, match="remove it to go on") as refused:
        refuse_stopped(tmp_path)
    assert refused.value.exit_code == 76


def starts(*steps: int, series: str = "s") -> list[dict[str, Any]]:
    return [{"event": "start", "step": step, "series": series} for step in steps]


def test_three_restarts_without_progress_are_enough() -> None:
    refuse_standstill([], "s", 0)
    refuse_standstill(starts(7, 7, 7), "s", 7)
    with pytest.raises(NoProgress, match="4 starts in a row at step 7") as refused:
        refuse_standstill(starts(2, 7, 7, 7, 7), "s", 7)
    assert refused.value.exit_code == 93


@pytest.mark.parametrize(
    ("before", "series", "step"),
    [
        (starts(7, 7, 7, 7), "s", 8),  # the fourth start got further
        (starts(7, 7, 7, 7), "another job", 7),  # somebody tries anew
        (starts(7, 7, 7, 7, series=""), "", 7),  # no scheduler restarts it
        (starts(7, 7, 8, 7, 7), "s", 7),  # went back to an older checkpoint in between
    ],
)
def test_what_is_no_standstill(before: list[dict[str, Any]], series: str, step: int) -> None:
    refuse_standstill(before, series, step)


def test_the_longest_of_the_last_saves() -> None:
    saves = [{"event": "save", "seconds": seconds} for seconds in (9.0, 1.0, 3.0, 2.0)]
    assert longest_save_seconds([*starts(0), *saves]) == 3.0
    assert longest_save_seconds(starts(0)) == 0.0
