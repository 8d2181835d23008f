"""Real training over two nodes, through all that a batch system does to a job."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import Desk, Job
from runner import Runner

STEPS = 300
"""So many that a run lasts while it is warned, killed or moved."""
EVERY = 20


class Training(Runner):
    """A run in a directory that all nodes see."""

    def config(self, name: str = "run", **sections: dict[str, Any]) -> Path:
        sections["train"] = {"steps": STEPS, **sections.get("train", {})}
        sections["checkpoint"] = {"every_steps": EVERY, "keep": 3, **sections.get("checkpoint", {})}
        return super().config(name, **sections)

    def step(self) -> int:
        """The last step that was logged."""
        return max(self.curve(), default=0)

    def starts(self) -> list[dict[str, Any]]:
        """The starts that came as far as training."""
        exists = (self.directory / "run" / "events.jsonl").exists()
        return [event for event in self.events() if event["event"] == "ready"] if exists else []

    def wait_for_training(self, job: Job, start: int, steps: int = EVERY + 5) -> None:
        """Wait until the given start, counted from 1, has trained some steps."""
        job.wait(lambda: len(self.starts()) >= start, f"start {start}")
        job.wait(lambda: self.step() >= self.starts()[-1]["step"] + steps, f"step {steps} of start {start}")


@pytest.fixture(scope="session")
def straight(cluster: Cluster, shards_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """A run that nothing disturbed."""
    directory = tmp_path_factory.mktemp("straight")
    training = Training(directory, shards_directory)
    desk = Desk(cluster, directory)
    job = desk.submit("pretrain.sh", training.config(), SRUN_MPI="pmix")
    assert (job.end(), job.code) == ("COMPLETED", 0), job.output()
    yield training


@pytest.fixture
def training(tmp_path: Path, shards_directory: Path) -> Training:
    return Training(tmp_path, shards_directory)


def check_finished(job: Job, training: Training, straight: Training, restarts: int) -> None:
    """It ended well, and its every step equals that of the undisturbed run bit for bit."""
    assert (job.end(), job.code, job.restarts) == ("COMPLETED", 0, restarts), job.output()
    assert training.curve() == straight.curve()


def test_submitted_trained_finished(straight: Training) -> None:
    assert straight.step() == STEPS
    (start,) = straight.starts()
    assert start["world_size"] == 2


def test_warned_twice_and_preempted(desk: Desk, training: Training, straight: Training) -> None:
    job = desk.submit("pretrain.sh", training.config(), SRUN_MPI="pmi2")
    for start in (1, 2):
        training.wait_for_training(job, start)
        job.warn()
    training.wait_for_training(job, 3)
    desk.cluster.run("srun", "--partition=urgent", "--nodelist=" + job.facts()["NodeList"], "--exclusive", "true")
    check_finished(job, training, straight, restarts=3)


def test_killed_frozen_and_powered_off(desk: Desk, training: Training, straight: Training) -> None:
    job = desk.submit("pretrain.sh", training.config(watch={"silent_seconds": 3}), SLURM_WAIT="5")
    training.wait_for_training(job, 1)
    job.wait(lambda: job.seconds > 5, "more than a broken start")
    (rank,) = desk.cluster.ranks("n2", job.number)
    os.kill(rank, signal.SIGKILL)
    training.wait_for_training(job, 2)
    (rank,) = desk.cluster.ranks("n2", job.number)
    os.kill(rank, signal.SIGSTOP)
    training.wait_for_training(job, 3)
    desk.cluster.power_off("n2")
    try:
        training.wait_for_training(job, 4)
    finally:
        desk.cluster.power_on("n2")
    check_finished(job, training, straight, restarts=3)
    print(job.output())
    print([event for event in training.events() if event["event"] != "save"])
