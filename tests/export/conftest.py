"""Runs that several tests of exports share."""

from __future__ import annotations

from pathlib import Path

import pytest
from runner import Runner


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory, shards_directory: Path) -> Path:
    """A run of two pipeline stages with a head of its own and an MLP that no block of 32 divides."""
    runner = Runner(tmp_path_factory.mktemp("untied"), shards_directory)
    model = {"tied": False, "mlp_size": 48}
    runner.train(runner.config(model=model, parallel={"pipeline_stages": 2}, train={"steps": 2}))
    return runner.directory / "run"


@pytest.fixture(scope="session")
def adapted(finished: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA run of two ranks on the finished run."""
    runner = Runner(tmp_path_factory.mktemp("adapted"), finished.shards)
    start = {"start_from": str(finished.directory / "run")}
    adapter = {"rank": 4, "alpha": 8, "targets": ["query", "value", "down"]}
    settings = {"learning_rate": 0.05}
    runner.train(
        runner.config("lora", run={"name": "lora", "dir": str(runner.directory / "lora"), **start},
                      adapter=adapter, optimizer=settings, train={"steps": 3})
    )  # fmt: skip
    return runner.directory / "lora"
