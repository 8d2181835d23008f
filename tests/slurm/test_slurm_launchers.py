"""Other ways to start the ranks, and what must not start at all."""

from __future__ import annotations

import shutil

import pytest
from conftest import Desk, Training

pytestmark = [pytest.mark.ranks, pytest.mark.slow]


def test_mpirun_inside_the_allocation(desk: Desk, training: Training, straight: Training) -> None:
    if shutil.which("mpirun") is None:
        pytest.skip("no mpirun here")
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    job = desk.submit("pretrain.sh", training.config(), LAUNCHER="mpirun", **allowed)
    training.wait_for_training(job, 1)
    job.warn()
    assert job.result() == ("COMPLETED", 0, 1), job.output()
    assert [start["world_size"] for start in training.starts()] == [2, 2]
    assert training.curve() == straight.curve()


def test_wrong_master_addresses(desk: Desk, training: Training) -> None:
    if desk.cluster.mode != "namespaces":
        pytest.skip("the nodes of this cluster share their addresses")
    config = training.config()
    foreign = desk.submit("pretrain.sh", config, MASTER_ADDR="10.77.0.99", SLURM_WAIT="3")
    loopback = desk.submit("pretrain.sh", config, MASTER_ADDR="127.0.0.1")
    assert foreign.result() == ("FAILED", 2, 0), foreign.output()
    assert "MASTER_ADDR is 10.77.0.99, but rank 0 is on n" in foreign.output()
    assert loopback.result() == ("FAILED", 2, 0), loopback.output()
    assert "MASTER_ADDR is 127.0.0.1, which every node takes for itself" in loopback.output()
