"""A run that is profiled: the same run, with a trace that can be read; and the arithmetic on traces."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runner import STEPS, Runner
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from hpctrain.train.profile import WAIT, ProfileConfig, Profiler, open_profiler
from hpctrain.train.traced import covered, divide


def events_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") as stream:
        return list(json.load(stream)["traceEvents"])


@pytest.mark.ranks
def test_a_profiled_run_is_the_same_run_with_a_trace(runner: Runner, finished: Runner) -> None:
    section = {"profile": {"first_step": 3, "steps": 2, "ranks": [1]}}
    told = runner.train(runner.config(train={"evaluate_every_steps": 3, "evaluate_sequences": 4, **section}))
    assert runner.curve() == finished.curve()
    directory = runner.directory / "run" / "profile"
    assert sorted(path.name for path in directory.iterdir()) == [
        "rank-1-step-3-4.json.gz", "rank-1-step-3-4.txt",
    ]  # fmt: skip
    assert str(directory / "rank-1-step-3-4.json.gz") in told.stderr
    names = [str(event.get("name")) for event in events_of(directory / "rank-1-step-3-4.json.gz")]
    assert sum(name.startswith("ProfilerStep") for name in names) == 2
    assert names.count(WAIT) == 2
    assert any(name.startswith("gloo:all_reduce") for name in names)
    text = (directory / "rank-1-step-3-4.txt").read_text()
    assert re.search(r"^[\d.]+ s traced: [\d.]+% waiting for data$", text, re.MULTILINE)
    shares = re.findall(r"([\d.]+)% with communication under way$", text, re.MULTILINE)
    assert 0 < float(shares[0]) <= 100
    assert "aten::mm" in text
    assert str(directory) in runner.run("report", runner.directory / "run").stdout


def test_nothing_is_traced_by_other_ranks_or_when_off(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    for config, rank in ((ProfileConfig(), 0), (ProfileConfig(first_step=1, ranks=(1,)), 0)):
        profiler = open_profiler(config, tmp_path, rank, cpu, 0)
        assert type(profiler) is Profiler
        train(profiler, range(1, 3))
    assert not list(tmp_path.iterdir())


def test_a_window_that_is_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ProfileConfig(first_step=2, steps=3, ranks=(1, 3))
    for rank in (1, 3):
        assert type(open_profiler(config, tmp_path, rank, torch.device("cpu"), 4)) is Profiler
    assert capsys.readouterr().err.count("step 4 is done already, nothing is traced") == 1


def train(profiler: Profiler, steps: range) -> None:
    """Steps of a matrix product, as the loop does them."""
    weight = torch.ones(64, 64)
    for step in steps:
        profiler.before(step)
        with profiler.span(WAIT):
            torch.ones(1)
        weight @ weight
        profiler.after(step)
    profiler.close()


@pytest.mark.parametrize(
    ("done", "last", "name"),
    [
        (0, 9, "rank-0-step-3-5"),
        (0, 3, "rank-0-step-3-3"),  # stopped within the window
        (3, 9, "rank-0-step-4-5"),  # begun within it
        (0, 2, None),  # stopped after the warm-up
    ],
)
def test_a_file_is_named_by_the_steps_it_holds(
    tmp_path: Path, done: int, last: int, name: str | None
) -> None:
    config = ProfileConfig(first_step=3, steps=3, memory=True)
    profiler = open_profiler(config, tmp_path, 0, torch.device("cpu"), done)
    train(profiler, range(done + 1, last + 1))
    written = sorted(path.name for path in tmp_path.glob("profile/*"))
    assert written == ([f"{name}.json.gz", f"{name}.txt"] if name else [])
    if name:
        first, until = map(int, name.split("-")[-2:])
        names = [event.get("name") for event in events_of(tmp_path / "profile" / f"{name}.json.gz")]
        assert names.count("aten::mm") == until - first + 1


def test_a_profile_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profile").write_text("in the way")
    profiler = open_profiler(ProfileConfig(first_step=1, steps=1), tmp_path, 0, torch.device("cpu"), 0)
    train(profiler, range(1, 4))
    assert "rank 0 could not write its profile" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair)))))
def test_a_union_is_counted_once(intervals: list[tuple[float, float]]) -> None:
    inside = sum(any(start <= place < stop for start, stop in intervals) for place in range(41))
    assert covered(intervals) == inside


def event(name: str, start: int, stop: int, kernel: bool = False, marked: bool = False) -> FunctionEvent:
    where = DeviceType.CUDA if kernel else DeviceType.CPU
    return FunctionEvent(0, name, 1, start, stop, device_type=where, is_user_annotation=marked)


STEP = [event("ProfilerStep#3", 0, 50), event("ProfilerStep#4", 50, 100), event(WAIT, 0, 2)]


def test_the_time_of_a_gpu_is_divided_by_its_kernels() -> None:
    """Computation at 10-60, exchange at 50-80: 20 of its 30 are exposed. Annotations are no work."""
    found = divide(
        [
            *STEP, event("gemm", 10, 60, kernel=True), event("ncclDevKernel_AllReduce", 50, 80, kernel=True),
            event("ProfilerStep#3", 0, 50, kernel=True, marked=True),
            event("gloo:all_reduce", 0, 90), event("gemm", 120, 150, kernel=True),
        ],
        WAIT, on_device=True,
    )  # fmt: skip
    assert (found.seconds, found.waiting, found.communicating) == (1e-4, 0.02, 0.3)
    assert found.exposed == pytest.approx(0.2)
    assert found.idle == pytest.approx(0.3)


def test_on_a_cpu_it_is_told_only_what_can_be() -> None:
    found = divide([*STEP, event("gloo:send", 20, 40), event("gloo:recv", 30, 60)], WAIT, on_device=False)
    assert (found.communicating, found.exposed, found.idle) == (0.4, None, None)
    assert found.lines()[1] == "40.0% with communication under way"


def test_the_last_step_may_be_traced() -> None:
    assert ProfileConfig(first_step=STEPS, steps=1).problems(STEPS, 1) == []
