"""Real runs that are stopped by hand and by the wall, lose a rank, stand still, or take over weights."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runner import STEPS, Runner, environment, rank_processes

LONG = {"train": {"steps": 400}, "checkpoint": {"every_steps": 1000}}


def start(
    runner: Runner, config: Path, *overrides: str, ranks: int = 1, **variables: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hpctrain", "train", str(config), *overrides, "--ranks", str(ranks)],
        env={**environment(), **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def stopped(runner: Runner) -> dict[str, object]:
    return next(event for event in runner.events() if event["event"] == "stop")


@pytest.mark.ranks
def test_the_hand_brake(runner: Runner) -> None:
    config, run = runner.config(**LONG), runner.directory / "run"
    process = start(runner, config, ranks=2)
    runner.wait_for_step("run", 2, process)
    (run / "save").touch()
    deadline = time.monotonic() + 60
    while (run / "save").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (run / "stop").touch()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 76, err
    assert f"asked to by {run / 'stop'}" in str(stopped(runner)["reason"])
    saves = [event["step"] for event in runner.events() if event["event"] == "save"]
    assert len(saves) == 3, "at the beginning, when asked, and when stopped"
    assert 0 == saves[0] < saves[1] < saves[2] == stopped(runner)["step"]
    again = runner.run("train", config, "--ranks", 2, code=76)
    assert "remove it to go on" in again.stderr
    (run / "stop").unlink()
    assert "going on from" in runner.train(config, f"train.steps={saves[2] + 1}").stderr


def test_the_wall_is_met_with_the_save_made(runner: Runner) -> None:
    began = int(time.time())
    told = {"HPCTRAIN_DEADLINE": str(began + 5), "HPCTRAIN_JOB_START": str(began), "SLURM_JOB_ID": "7"}
    process = start(runner, runner.config(**LONG), **told)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "s are left, a save may take" in str(stopped(runner)["reason"])
    assert stopped(runner)["step"] == 1
    [ready] = [event for event in runner.events() if event["event"] == "ready"]
    parts = ["job_start", "import", "rendezvous", "data", "initialize", "restore", "first_step"]
    assert list(ready["startup_seconds"]) == parts
    assert all(seconds >= 0 for seconds in ready["startup_seconds"].values())


@pytest.mark.ranks
def test_a_killed_rank_is_named_and_noted(runner: Runner) -> None:
    config = runner.config(**LONG)
    process = start(runner, config, ranks=2)
    runner.wait_for_step("run", 2, process)
    os.kill(rank_processes(process.pid)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    named = f"rank 1 on {socket.gethostname()} died"
    assert named in err
    assert "Traceback" not in err, err
    [fault] = [event for event in runner.events() if event["event"] == "fault"]
    assert fault["reason"] == named


def test_a_job_that_stands_still_is_given_up(runner: Runner) -> None:
    """The run is killed after each start: its job is restarted three times, then no more."""
    config = runner.config(**LONG)
    for attempt in range(4):
        process = start(runner, config, SLURM_JOB_ID="7")
        wait_until_ready(runner, process, attempt + 1)
        for rank in rank_processes(process.pid):
            os.kill(rank, signal.SIGKILL)
        process.communicate(timeout=60)
    process = start(runner, config, SLURM_JOB_ID="7")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 93, err
    assert "4 starts in a row at step 0 without progress" in err
    changed = start(runner, config, "optimizer.learning_rate=0.001", "train.steps=2", SLURM_JOB_ID="7")
    _, err = changed.communicate(timeout=120)
    assert changed.returncode == 0, "a changed config is a new attempt"


def wait_until_ready(runner: Runner, process: subprocess.Popen[str], times: int) -> None:
    """Wait until the run has made its first step so many times."""
    events, deadline = runner.directory / "run" / "events.jsonl", time.monotonic() + 120
    while not events.exists() or events.read_text().count('"ready"') < times:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.ranks
def test_finetune_begins_with_anothers_weights_in_any_layout(runner: Runner, finished: Runner) -> None:
    config = runner.config(run={"start_from": str(finished.directory / "run")})
    runner.run("finetune", config, "train.steps=2", "parallel.zero_stage=3", "--ranks", 2)
    began, ended = runner.curve()[1][0], finished.curve()[STEPS][0]
    assert began < finished.curve()[1][0], "it begins where the other ended"
    assert began == pytest.approx(ended, rel=0.2)


def test_finetune_without_a_run_to_start_from(runner: Runner, finished: Runner) -> None:
    assert "run.start_from" in runner.run("finetune", runner.config(), "--ranks", 1, code=2).stderr
    other = runner.config(run={"start_from": str(finished.directory / "run")}, model={"mlp_size": 32})
    assert "has another model" in runner.run("finetune", other, "--ranks", 1, code=3).stderr
    nothing = runner.config(run={"start_from": str(runner.directory / "nothing")})
    assert "has no checkpoint" in runner.run("finetune", nothing, "--ranks", 1, code=3).stderr
