"""What launch/job.sh does about its ranks, on a real Slurm, with ranks that end as they are told to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from conftest import ROOT, Desk, Job

# In place of hpctrain. PLAN is a line of Python for each start; in PLACE ranks leave what they were told.
RANK = """\
#!{python}
import json, os, signal, sys, time
start, rank = int(os.environ.get("SLURM_RESTART_COUNT", 0)), os.environ["SLURM_PROCID"]
def stop_on(number):
    signal.signal(number, lambda *_: sys.exit(75))
    tell("listens", "")
    while True:
        time.sleep(0.05)
def tell(name, text):
    with open(f"{{os.environ['PLACE']}}/{{name}}-{{start}}-{{rank}}", "w") as file:
        file.write(text)
def note(word):
    with open(os.environ["HPCTRAIN_NOTES"], "a") as file:
        file.write(word + "\\n")
tell("start", json.dumps(dict(os.environ)))
exec(os.environ["PLAN"].splitlines()[start])
"""
FAIL_FOR_GOOD = "note('4') or sys.exit(4) if rank == '0' else time.sleep(60)"


class Stage:
    """A directory for a job whose ranks follow a plan."""

    def __init__(self, desk: Desk, directory: Path) -> None:
        self.desk, self.directory = desk, directory
        (directory / "bin").mkdir(parents=True)
        (directory / "bin" / "hpctrain").write_text(RANK.format(python=sys.executable))
        (directory / "bin" / "hpctrain").chmod(0o755)

    def submit(self, *plan: str, script: str = "pretrain.sh", options: str = "-N1", **variables: str) -> Job:
        told = {"VENV": str(self.directory), "PLACE": str(self.directory), "PLAN": "\n".join(plan)}
        return self.desk.submit(script, "CONFIG", options=options, **{**told, **variables})

    def told(self, start: int = 0) -> list[dict[str, str]]:
        """The environment of each rank of a start."""
        return [json.loads(path.read_text()) for path in sorted(self.directory.glob(f"start-{start}-*"))]

    def wait_for(self, job: Job, told: str) -> None:
        """Wait until a rank has told something."""
        job.wait((self.directory / told).exists, told)


@pytest.fixture
def stage(desk: Desk, tmp_path: Path) -> Stage:
    return Stage(desk, tmp_path / "stage")


@pytest.fixture(scope="module")
def jobs(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Job]]:
    """Jobs with all kinds of ends, on as many nodes as there are at once: their waits are long."""
    directory = tmp_path_factory.mktemp("jobs")
    desk = Desk(cluster, directory)
    jobs = {}

    def submit(name: str, *plan: str, **told: str) -> Stage:
        stage = Stage(desk, directory / name)
        jobs[name] = stage.submit(*plan, **told)
        return stage

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        late = submit("late", "stop_on(signal.SIGTERM)", "sys.exit(0)", options="-N1 -t 10")
        cancelled = submit("cancelled", "stop_on(signal.SIGTERM)", "sys.exit(0)")
        late.wait_for(jobs["late"], "listens-0-0")
        cluster.run("scontrol", "update", f"jobid={jobs['late'].number}", "endtime=now+2")
        cancelled.wait_for(jobs["cancelled"], "listens-0-0")
        cluster.run("scancel", jobs["cancelled"].number)
        submit("crashed", "os.kill(os.getpid(), signal.SIGSEGV)", "sys.exit(0)")
        submit("failed for good", FAIL_FOR_GOOD, options="-N2", SLURM_WAIT="5")
        submit("evaluate crashed", "sys.exit(1)", script="evaluate.sh")
        submit("stopped", "sys.exit(75)", "sys.exit(0)")
        submit("requeue forbidden", "sys.exit(75)", options="-N1 --no-requeue")
        submit("broken", *["sys.exit(1)"] * 4)
        submit("crashed often", *["note('ready'); sys.exit(1)"] * 4, "sys.exit(93)")
        submit("no environment", "sys.exit(0)", VENV="/nonexistent")
        for code in (0, 2, 3, 4, 76, 93):
            submit(f"code {code}", f"sys.exit({code})")
        yield jobs
    desk.clear()


@pytest.mark.parametrize(
    ("name", "result", "said"),
    [
        ("code 0", ("COMPLETED", 0, 0), ""),
        ("code 2", ("FAILED", 2, 0), ""),
        ("code 3", ("FAILED", 3, 0), ""),
        ("code 4", ("FAILED", 4, 0), ""),
        ("code 76", ("FAILED", 76, 0), ""),
        ("code 93", ("FAILED", 93, 0), ""),
        ("stopped", ("COMPLETED", 0, 1), "stopped early, its work is saved"),
        ("crashed", ("COMPLETED", 0, 1), "ended with code 139"),
        ("requeue forbidden", ("FAILED", 75, 0), "cannot be requeued"),
        ("broken", ("FAILED", 93, 2), "3 starts in a row ended before a first step"),
        ("crashed often", ("FAILED", 93, 4), "start 5"),
        ("failed for good", ("FAILED", 4, 0), "task 1: Killed"),
        ("evaluate crashed", ("FAILED", 1, 0), ""),
        ("no environment", ("FAILED", 2, 0), "VENV=/nonexistent holds no hpctrain"),
        ("cancelled", ("CANCELLED", 75, 0), "Slurm is ending it"),
        ("late", ("COMPLETED", 0, 1), "DUE TO TIME LIMIT"),
    ],
)
def test_what_follows(jobs: dict[str, Job], name: str, result: tuple[str, int, int], said: str) -> None:
    assert jobs[name].result() == result, jobs[name].output()
    assert said in jobs[name].output()
    assert not list(ROOT.glob(f".hpctrain-{jobs[name].number}"))


def test_a_warning_reaches_ranks_that_do_not_listen_yet(stage: Stage) -> None:
    job = stage.submit("time.sleep(2); stop_on(signal.SIGUSR1)", "sys.exit(0)", options="-N2")
    stage.wait_for(job, "start-0-1")
    job.warn()
    assert job.result() == ("COMPLETED", 0, 1), job.output()


def test_what_ranks_are_told(stage: Stage) -> None:
    job = stage.submit("sys.exit(0)", options="-N2 -t 10", RANKS_PER_NODE="2", SRUN_MPI="pmi2")
    job.end()
    ranks = stage.told()
    assert [int(rank["SLURM_PROCID"]) for rank in ranks] == [0, 1, 2, 3]
    assert [int(rank["SLURM_LOCALID"]) for rank in ranks] == [0, 1, 0, 1]
    assert all(rank["SLURM_CPUS_PER_TASK"] == "2" for rank in ranks)
    assert all("PMI_RANK" in rank for rank in ranks), "--mpi=pmi2"
    (token,) = {rank["HPCTRAIN_TOKEN"] for rank in ranks}
    assert len(token) == 32
    (start,) = {int(rank["HPCTRAIN_JOB_START"]) for rank in ranks}
    (deadline,) = {int(rank["HPCTRAIN_DEADLINE"]) for rank in ranks}
    assert deadline - start == 600


def test_ranks_are_as_many_as_gpus(stage: Stage) -> None:
    if not stage.desk.cluster.gpus:
        pytest.skip("this cluster has no GPU devices: they need root")
    job = stage.submit("sys.exit(0)", options="-N2 --gpus-per-node 2", RANKS_PER_NODE="")
    job.end()
    assert [rank["CUDA_VISIBLE_DEVICES"] for rank in stage.told()] == ["0,1"] * 4


def test_a_corpus_is_built_by_a_rank_for_every_core(stage: Stage) -> None:
    job = stage.submit("sys.exit(0)", script="corpus.sh", options="-N2", RANKS_PER_NODE="")
    assert job.end() == "COMPLETED"
    assert len(stage.told()) == 2 * stage.desk.cluster.cpus


def test_one_node_is_enough_to_export(stage: Stage) -> None:
    job = stage.submit("sys.exit(0)", script="export.sh", options="-N2")
    assert job.end() == "COMPLETED"
    assert len(stage.told()) == 1
    assert "export uses one of 2 nodes" in job.output()
