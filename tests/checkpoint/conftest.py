"""A nursery of ranks for the tests of this folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runner import Runner, environment


class Nursery:
    """Runs jobs of several ranks in forks of one warm process."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("nursery.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env=environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._read("ready")

    def run(
        self, what: str, ranks: int = 2, codes: list[int] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run a function of nursery.py in every rank; checks exit codes (all 0 if not told) unless killed."""
        assert self.process.stdin
        self.process.stdin.write(
            json.dumps({"what": what, "ranks": ranks, "options": options}, default=str) + "\n"
        )
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._read("{"))
        if not answer["killed"]:
            assert answer["codes"] == (codes or [0] * ranks), answer["errors"]
        return answer

    def train(self, config: Path, **options: Any) -> dict[str, Any]:
        """Train by a config on two ranks, or as told."""
        return self.run("run_training", config=config, **options)

    def _read(self, start: str) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise AssertionError("the nursery has died")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """One for all tests."""
    nursery = Nursery()
    yield nursery
    nursery.process.stdin.close()  # type: ignore[union-attr]
    nursery.process.wait(30)


@pytest.fixture
def runner(tmp_path: Path, shards_directory: Path) -> Runner:
    """Configs of tiny runs in a directory of their own: four steps, saved every second."""
    return SmallRunner(tmp_path, shards_directory)


class SmallRunner(Runner):
    """Runs of four steps."""

    def config(self, name: str = "run", **sections: dict[str, Any]) -> Path:
        """See `Runner`."""
        sections["train"] = {"steps": 4, **sections.get("train", {})}
        sections["model"] = {"layers": 1, **sections.get("model", {})}
        sections["checkpoint"] = {"every_steps": 2, "keep": 1, **sections.get("checkpoint", {})}
        return super().config(name, **sections)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, where this machine lets us mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, shards_directory: Path, nursery: Nursery) -> Runner:
    """A run of four steps that nothing happened to, every checkpoint kept; tests must not change it."""
    runner = SmallRunner(tmp_path_factory.mktemp("straight"), shards_directory)
    nursery.train(
        runner.config(checkpoint={"keep": 9}, train={"evaluate_every_steps": 2, "evaluate_sequences": 4})
    )
    return runner
