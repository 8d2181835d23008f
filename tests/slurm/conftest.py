"""One real Slurm cluster for all tests of this directory, jobs on it, and a run that nothing disturbed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, ClusterError, best_mode
from runner import Runner

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

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds; fail with all that is known if it does not."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                known = f"{self.facts()}\n{self.output()[-6000:]}"
                raise AssertionError(f"job {self.number}: {what} did not come\n{known}")
            time.sleep(0.1)

    def wait_for_state(self, *states: str) -> str:
        self.wait(lambda: self.state in states, " or ".join(states))
        return self.state

    def end(self) -> str:
        """Wait until it has ended for good; the state it ended in."""
        return self.wait_for_state(*ENDED)

    def result(self) -> tuple[str, int, int]:
        """The state it ended in, its exit code, and how often it was started again."""
        return self.end(), self.code, self.restarts

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
        if self.cluster.mode == "loopback":  # where the nodes' names are known to Slurm only
            defaults["MASTER_ADDR"] = socket.gethostname()
        log, script = f"--output={self.directory}/%x-%j.log", str(ROOT / "slurm" / script)
        command = ["sbatch", "--parsable", log, *options.split(), script, *arguments]
        number = int(self.cluster.run(*command, **{**defaults, **variables}))
        name = self.cluster.run("squeue", "-h", "-j", number, "-t", "all", "-o", "%j").strip()
        self.jobs.append(Job(self.cluster, number, self.directory / f"{name}-{number}.log"))
        return self.jobs[-1]

    def mpi(self, kind: str) -> dict[str, str]:
        """Variables for srun --mpi=KIND; none, with a warning, where this Slurm has no such plugin."""
        srun = subprocess.run(
            self.cluster.command("srun", "--mpi=list"), env=self.cluster.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
        if kind in srun.stdout.split():
            return {"SRUN_MPI": kind}
        warnings.warn(f"this Slurm has no --mpi={kind}: not tested", stacklevel=2)
        return {}

    def clear(self) -> None:
        """Cancel and remove what tests have left behind."""
        left = [job for job in self.jobs if job.state not in ENDED]
        if left:
            self.cluster.run("scancel", *(job.number for job in left))
        for job in left:
            job.end()
        for job in self.jobs:  # one that was killed could not clean up
            (ROOT / f".hpctrain-{job.number}").unlink(missing_ok=True)


class Training(Runner):
    """A run in a directory that all nodes see; so long that much can happen to it, and saved often."""

    steps = 200
    every_steps = 20

    def config(self, name: str = "run", **sections: dict[str, Any]) -> Path:
        sections["train"] = {"steps": self.steps, **sections.get("train", {})}
        sections["checkpoint"] = {
            "every_steps": self.every_steps,
            "keep": 3,
            **sections.get("checkpoint", {}),
        }
        return super().config(name, **sections)

    def step(self) -> int:
        """The last step that was logged."""
        return max(self.curve(), default=0)

    def starts(self) -> list[dict[str, Any]]:
        """The starts that came as far as training."""
        exists = (self.directory / "run" / "events.jsonl").exists()
        return [event for event in self.events() if event["event"] == "ready"] if exists else []

    def wait_for_training(self, job: Job, start: int) -> None:
        """Wait until a start, counted from 1, has saved something new and goes on."""
        job.wait(lambda: len(self.starts()) >= start, f"start {start}")
        goal = self.starts()[-1]["step"] + self.every_steps + 5
        job.wait(lambda: self.step() >= goal, f"step {goal} of start {start}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes: two for the run of a test, two for others beside it. CLUSTER_MODE chooses its mode."""
    try:
        mode = os.environ.get("CLUSTER_MODE") or best_mode()
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


@pytest.fixture
def training(tmp_path: Path, shards_directory: Path) -> Training:
    """A run of its own for a test."""
    return Training(tmp_path, shards_directory)


@pytest.fixture(scope="session")
def straight(cluster: Cluster, shards_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A run on two nodes that nothing disturbed; tests must not change it."""
    directory = tmp_path_factory.mktemp("straight")
    training = Training(directory, shards_directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        desk = Desk(cluster, directory)
        job = desk.submit("pretrain.sh", training.config(), **desk.mpi("pmix"))
        assert job.result() == ("COMPLETED", 0, 0), job.output()
    return training
