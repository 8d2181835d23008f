"""The whole job killed at every write, flush, rename and deletion of a save: the next start goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkpoint.conftest import Nursery
from runner import Runner

from hpctrain.checkpoint.inspect import verdicts


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_at_every_operation_of_a_save(
    nursery: Nursery, runner: Runner, straight: Runner, tmp_path: Path, rank: int
) -> None:
    config, run = runner.config(), runner.directory / "run"
    log = tmp_path / "operations"
    killed = 0
    while killed < 60:
        log.unlink(missing_ok=True)
        shutil.rmtree(run, ignore_errors=True)
        fault = {"kind": "kill", "rank": rank, "step": 2, "at": killed + 1, "log": log}
        if not nursery.train(config, fault=fault)["killed"]:
            break
        killed += 1
        last = log.read_text().splitlines()[-1]
        assert set(whole(run)) & {"step-00000000", "step-00000002"}, f"after {last}"
        nursery.train(config)
        assert runner.curve() == straight.curve(), f"after {last}"
        assert whole(run) == ["step-00000004"]
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000004"]
    operations = [line.split()[0] for line in log.read_text().splitlines()]
    assert {"write", "fsync", "rename"} <= set(operations)
    assert killed == len(operations)
    assert killed >= (14 if rank == 0 else 5)


def whole(run: Path) -> list[str]:
    """The names of the checkpoints that are whole."""
    rows = verdicts(run / "checkpoints")
    return [row["checkpoint"] for row in rows if row["verdict"] == "whole"]
