"""Real training over two nodes, through all that a batch system does to a job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from conftest import ROOT, Desk, Job, Training

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

SLOW_DISK = """
import os, time
flush = os.fsync
os.fsync = lambda descriptor: (time.sleep(15), flush(descriptor))
"""


def check_finished(job: Job, training: Training, straight: Training, restarts: int) -> None:
    """It ended well, and its every step equals that of the undisturbed run bit for bit."""
    assert job.result() == ("COMPLETED", 0, restarts), job.output()
    assert training.curve() == straight.curve()


@pytest.fixture(scope="module", autouse=True)
def hopeless(
    cluster: Cluster, shards_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Job]]]:
    """Two jobs that can never finish. They take a minute, so they run beside the other tests."""
    made, desks = {}, []
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as threads:
        patch.chdir(ROOT)
        for story in (crash_at_every_start, save_slower_than_the_time_limit):
            directory = tmp_path_factory.mktemp(story.__name__)
            desks.append(Desk(cluster, directory))
            training = Training(directory, shards_directory)
            made[story.__name__] = threads.submit(story, desks[-1], training)
        yield made
    for desk in desks:
        desk.clear()


def crash_at_every_start(desk: Desk, training: Training) -> Job:
    """Its rank is killed at each start, before it has saved anything."""
    config = training.config(checkpoint={"every_steps": 1000})
    job = desk.submit("pretrain.sh", config, options="-N1 --nodelist=n3")
    for start in range(1, 5):
        job.wait(lambda start=start: len(training.starts()) == start, f"start {start}")  # type: ignore[misc]
        (rank,) = desk.cluster.ranks("n3", job.number)
        os.kill(rank, signal.SIGKILL)
        job.wait_for_state("PENDING")
    job.end()
    return job


def save_slower_than_the_time_limit(desk: Desk, training: Training) -> Job:
    """The time limit is over before the first save is."""
    (desk.directory / "sitecustomize.py").write_text(SLOW_DISK)
    job = desk.submit(
        "pretrain.sh",
        training.config(),
        options="-N1 --nodelist=n4 -t 1",
        PYTHONPATH=f"{desk.directory}:{os.environ.get('PYTHONPATH', '')}",
    )
    job.end()
    return job


def test_submitted_trained_finished(straight: Training) -> None:
    assert straight.step() == Training.steps
    (start,) = straight.starts()
    assert start["world_size"] == 2


def test_warned_twice_and_preempted(desk: Desk, training: Training, straight: Training) -> None:
    job = desk.submit("pretrain.sh", training.config(), **desk.mpi("pmi2"))
    for start in (1, 2):
        training.wait_for_training(job, start)
        job.warn()
    training.wait_for_training(job, 3)
    nodes = job.facts()["NodeList"]
    desk.cluster.run("srun", "--partition=urgent", "--nodes=2", "--exclusive", f"--nodelist={nodes}", "true")
    assert len(training.starts()) == 3, "the urgent job came first"
    check_finished(job, training, straight, restarts=3)
    assert [event["reason"] for event in training.events() if event["event"] == "stop"] == [
        *["asked to by SIGUSR1"] * 3,
        "finished",
    ]


def test_killed_frozen_and_powered_off(desk: Desk, training: Training, straight: Training) -> None:
    config, host = training.config(watch={"silent_seconds": 3}), desk.cluster.host("n2")
    job = desk.submit("pretrain.sh", config, options="-N2 --exclude=n3,n4", SRUN_MPI="none", SLURM_WAIT="5")
    training.wait_for_training(job, 1)
    os.kill(*desk.cluster.ranks("n2", job.number), signal.SIGKILL)
    job.wait_for_state("PENDING")
    assert f"rank 1 on {host} died" in job.output()

    training.wait_for_training(job, 2)
    os.kill(*desk.cluster.ranks("n2", job.number), signal.SIGSTOP)
    job.wait_for_state("PENDING")
    assert f"rank 1 on {host} silent for 3 s" in job.output()

    training.wait_for_training(job, 3)
    desk.cluster.power_off("n2")
    job.wait_for_state("PENDING")
    desk.cluster.power_on("n2")
    check_finished(job, training, straight, restarts=3)
    faults = [event["reason"] for event in training.events() if event["event"] == "fault"]
    assert len(faults) == 3
    assert all(f"rank 1 on {host}" in fault for fault in faults)


def test_a_chain_where_requeueing_is_not_allowed(desk: Desk, training: Training, straight: Training) -> None:
    chain = "-N2 --no-requeue --dependency=singleton --job-name=chain"
    warned, cancelled, last, more = (
        desk.submit("pretrain.sh", training.config(), options=chain) for _ in range(4)
    )
    training.wait_for_training(warned, 1)
    warned.warn()
    assert warned.result() == ("FAILED", 75, 0)
    training.wait_for_training(cancelled, 2)
    desk.cluster.run("scancel", cancelled.number)
    assert cancelled.end() == "CANCELLED"
    check_finished(last, training, straight, restarts=0)
    assert more.result() == ("COMPLETED", 0, 0)


def test_one_job_at_a_time_saved_and_stopped_by_hand(desk: Desk, training: Training) -> None:
    config, run = (
        training.config(checkpoint={"every_steps": 1000}, train={"steps": 3000}),
        training.directory / "run",
    )
    job = desk.submit("pretrain.sh", config)
    job.wait(training.starts, "the start")
    (run / "save").touch()
    job.wait(lambda: not (run / "save").exists() and len(saves(training)) == 2, "the save")
    second = desk.submit("pretrain.sh", config)
    assert second.result() == ("FAILED", 2, 0)
    assert f'"job": "{job.number}"' in second.output(), "who holds it"
    step = training.step()
    job.wait(lambda: training.step() > step, "a step after the second was refused")
    (run / "stop").touch()
    assert job.result() == ("FAILED", 76, 0)
    assert saves(training)[-1] == training.step()
    again = desk.submit("pretrain.sh", config)
    assert again.result() == ("FAILED", 76, 0)
    assert f"{run / 'stop'} is there; remove it to go on" in again.output()


def saves(training: Training) -> list[Any]:
    """The steps that were saved."""
    return [event["step"] for event in training.events() if event["event"] == "save"]


def test_no_more_than_three_restarts_without_progress(hopeless: dict[str, Future[Job]]) -> None:
    job = hopeless["crash_at_every_start"].result()
    assert job.result() == ("FAILED", 93, 4), job.output()
    assert "without progress" in job.output()


def test_a_time_limit_too_short_for_a_save_does_not_loop(hopeless: dict[str, Future[Job]]) -> None:
    job = hopeless["save_slower_than_the_time_limit"].result()
    assert job.result() == ("TIMEOUT", 0, 0), job.output()
