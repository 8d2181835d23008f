"""Stopped, killed and restarted runs equal the run that was not."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from runner import STEPS, Runner, rank_processes
from safetensors.torch import load_file

LONG = {"train": {"steps": 60}, "checkpoint": {"every_steps": 5}}


def tensors(directory: Path) -> dict[str, object]:
    """Every tensor of a checkpoint as bytes, by key."""
    files = sorted(directory.glob("*.safetensors"))
    assert files
    return {key: tensor.numpy().tobytes() for file in files for key, tensor in load_file(file).items()}


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("parallel", "precision"),
    [
        ({"zero_stage": 1}, "fp32"),
        ({"zero_stage": 3}, "bf16"),
        ({"pipeline_stages": 2}, "fp32"),
        ({"pipeline_stages": 2}, "bf16"),
    ],
)
def test_a_stopped_and_restarted_run_equals_the_straight_one_bit_for_bit(
    runner: Runner, parallel: dict[str, int], precision: str
) -> None:
    layout = {
        "parallel": parallel,
        "checkpoint": {"every_steps": 100},
        "train": {"precision": precision, "evaluate_every_steps": 4, "evaluate_sequences": 2},
    }
    straight = runner.config("straight", **layout)
    stopped = runner.config("stopped", **layout)
    runner.train(straight)
    at = stop_after(runner, stopped, 2)
    assert 2 <= at < STEPS
    assert "going on from step-" in runner.train(stopped).stderr
    assert runner.curve("stopped") == runner.curve("straight")
    assert tensors(runner.checkpoint(STEPS, "stopped")) == tensors(runner.checkpoint(STEPS, "straight"))
    events = [(event["event"], event["step"]) for event in runner.events("stopped")]
    assert ("stop", at) in events
    assert ("restore", at) in events
    assert events[-1] == ("stop", STEPS)


@pytest.mark.ranks
def test_a_killed_rank_ends_the_run_and_the_next_start_goes_on(runner: Runner, finished: Runner) -> None:
    config = runner.config("run")
    process = runner.start("train", config, "--ranks", 2)
    runner.wait_for_step("run", 3, process)
    ranks = rank_processes(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode not in (0, 75)
    assert re.search(r"rank 1 was killed by SIGKILL", err), err
    runner.train(config)
    assert runner.curve() == finished.curve()
    assert tensors(runner.checkpoint(STEPS)) == tensors(finished.checkpoint(STEPS))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_every_stop_signal_saves_and_exits_75(runner: Runner, number: signal.Signals) -> None:
    config = runner.config(**LONG)
    process = runner.start("train", config, "--ranks", 1)
    runner.wait_for_step("run", 1, process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert runner.checkpoint(max(runner.curve())).is_dir()


def test_a_finished_run_is_recognised_without_starting_ranks(finished: Runner) -> None:
    before = finished.metrics()
    assert "all 6 steps are done" in finished.train(finished.directory / "run.yaml").stderr
    assert finished.metrics() == before


def stop_after(runner: Runner, config: Path, step: int) -> int:
    """Train on two ranks, stop by SIGTERM after a step; returns the step it was saved at."""
    process = runner.start("train", config, "--ranks", 2)
    runner.wait_for_step(config.stem, step, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert err.count("run the same command to go on") == 1, "one rank speaks for all"
    return max(runner.curve(config.stem))


@pytest.mark.ranks
def test_a_restart_may_use_another_layout_and_sees_the_same_samples(runner: Runner, finished: Runner) -> None:
    config = runner.config()
    at = stop_after(runner, config, 1)
    assert at < STEPS
    runner.train(config, "parallel.pipeline_stages=2")
    mine, straight = runner.curve(), finished.curve()
    assert set(mine) == set(straight)
    for step, (loss, _, digest) in straight.items():
        assert mine[step][2] == digest
        assert mine[step][0] == pytest.approx(loss, rel=1e-5)


def test_the_metrics_say_what_the_interface_promises(finished: Runner) -> None:
    lines = finished.metrics()
    assert [line["step"] for line in lines] == list(range(STEPS + 1))
    promised = {
        "step", "loss", "learning_rate", "grad_norm",
        "tokens", "tokens_per_second", "step_seconds", "data_wait_share", "batch_digest",
    }  # fmt: skip
    assert all(promised <= set(line) for line in lines[1:])
    assert all(0 <= line["data_wait_share"] <= 1 for line in lines[1:])
    assert not any("mfu" in line for line in lines), "no peak is known of a CPU"
    assert lines[-1]["tokens"] == STEPS * 8 * 64
    evaluated = [line["step"] for line in lines if "loss_by_language" in line]
    assert evaluated == [0, 3, 6]
    languages = set(lines[0]["bits_per_byte_by_language"])
    assert {"c", "cpp", "cuda", "fortran-free"} <= languages
    # 2,048 equally likely pieces cost 11 bits each.
    first, last = lines[0]["loss_by_language"]["c"], lines[-1]["loss_by_language"]["c"]
    assert first == pytest.approx(7.62, abs=0.1)
    assert last < first
