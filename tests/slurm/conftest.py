"""One real Slurm cluster for all tests of this directory, and jobs on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, ClusterError, best_mode

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 150
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


class Job:
    """A batch job, by what Slurm says of it and what it has written."""

    def __init__(self, cluster: Cluster, number: int, log: Path) -> None:
        self.cluster, self.number, self.log = cluster, number, log

    def facts(self) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = self.cluster.run("scontrol", "show", "job", "--oneliner", self.number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    @property
    def state(self) -> str:
        return self.facts()["JobState"]

    @property
    def code(self) -> int:
        """The exit code of the batch script, once it has ended for good."""
        return int(self.facts()["ExitCode"].split(":")[0])

    @property
    def restarts(self) -> int:
        return int(self.facts()["Restarts"])

    @property
    def seconds(self) -> int:
        """How long it has run since it was last started; less than a day."""
        hours, minutes, seconds = self.facts()["RunTime"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + int(seconds)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds; fail with all that is known if it does not."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"job {self.number}: {what} did not come\n{self.facts()}\n{self.output()[-6000:]}"
                )
            time.sleep(0.1)

    def wait_for_state(self, *states: str) -> str:
        self.wait(lambda: self.state in states, " or ".join(states))
        return self.state

    def end(self) -> str:
        """Wait until it has ended for good; the state it ended in."""
        return self.wait_for_state(*ENDED)

    def warn(self) -> None:
        """Send the warning that Slurm sends before the time limit."""
        self.cluster.run("scancel", "--signal=USR1", "--batch", self.number)


class Desk:
    """Where jobs are submitted: a cluster and a directory for their logs."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster, self.directory = cluster, directory
        self.jobs: list[Job] = []

    def submit(self, script: str, *arguments: object, options: str = "-N2", **variables: str) -> Job:
        """`sbatch OPTIONS slurm/SCRIPT ARGUMENTS`, with a rank on each node if not told otherwise."""
        defaults = {"VENV": sys.prefix, "RANKS_PER_NODE": "1", "OMP_NUM_THREADS": "1"}
        log = self.directory / "%x-%j.log"
        command = [
            "sbatch",
            "--parsable",
            f"--output={log}",
            *options.split(),
            ROOT / "slurm" / script,
            *arguments,
        ]
        number = int(self.cluster.run(*command, **{**defaults, **variables}))
        name = self.cluster.run("squeue", "-h", "-j", number, "-o", "%j").strip()
        self.jobs.append(Job(self.cluster, number, self.directory / f"{name}-{number}.log"))
        return self.jobs[-1]

    def clear(self) -> None:
        """Cancel what a failed test has left behind."""
        left = [job for job in self.jobs if job.state not in ENDED]
        if left:
            self.cluster.run("scancel", *(job.number for job in left))
        for job in left:
            job.end()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes: two for the run of a test, two for others beside it."""
    try:
        mode = best_mode()
    except ClusterError as reason:
        pytest.skip(f"Slurm cannot run here: {reason}")
    made = Cluster(tmp_path_factory.mktemp("cluster"), mode, nodes=4, gpus=2 if mode == "namespaces" else 0)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk in the project directory, as a user's."""
    monkeypatch.chdir(ROOT)
    desk = Desk(cluster, tmp_path)
    yield desk
    desk.clear()
