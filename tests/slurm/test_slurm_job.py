"""What a batch job does about its ranks: launch/job.sh on a real Slurm, with ranks that end as they are told to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import Desk, Job

# In place of hpctrain. PLAN holds a line of Python for each start; PLACE is where ranks leave what they were told.
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
tell("start", json.dumps(dict(os.environ)))
exec(os.environ["PLAN"].splitlines()[start])
"""


class Stage:
    """Submits jobs whose ranks follow a plan."""

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


def test_codes_that_end_a_job(stage: Stage) -> None:
    codes = (0, 2, 3, 4, 76, 93)
    jobs = [stage.submit(f"sys.exit({code})") for code in codes]
    jobs.append(stage.submit("sys.exit(1)"))
    jobs.append(stage.submit("time.sleep(6); sys.exit(1)", script="evaluate.sh"))
    assert [(job.end(), job.code, job.restarts) for job in jobs] == [
        ("COMPLETED", 0, 0),
        *(("FAILED", code, 0) for code in codes[1:]),
        ("FAILED", 1, 0),
        ("FAILED", 1, 0),
    ]
    assert "too early for a restart to help" in jobs[-2].output()


def test_jobs_that_run_again(stage: Stage) -> None:
    stopped = stage.submit("sys.exit(75)", "sys.exit(0)")
    crashed = stage.submit("time.sleep(6); os.kill(os.getpid(), signal.SIGSEGV)", "sys.exit(0)")
    forbidden = stage.submit("sys.exit(75)", options="-N1 --no-requeue")
    assert (forbidden.end(), forbidden.code, forbidden.restarts) == ("FAILED", 75, 0)
    for job in (stopped, crashed):
        assert (job.end(), job.code, job.restarts) == ("COMPLETED", 0, 1), job.output()
        assert "start 2 of train" in job.output(), "the log is appended to"
    assert "ended with code 139" in crashed.output()


def test_a_warning_reaches_ranks_that_do_not_listen_yet(stage: Stage) -> None:
    job = stage.submit("time.sleep(2); stop_on(signal.SIGUSR1)", "sys.exit(0)", options="-N2")
    stage.wait_for(job, "start-0-1")
    job.warn()
    assert (job.end(), job.restarts) == ("COMPLETED", 1), job.output()


def test_a_job_at_its_time_limit_runs_again_and_a_cancelled_one_does_not(desk: Desk, tmp_path: Path) -> None:
    plan = ("stop_on(signal.SIGTERM)", "sys.exit(0)")
    stages = [Stage(desk, tmp_path / name) for name in ("late", "cancelled")]
    late, cancelled = (stage.submit(*plan, options="-N1 -t 10") for stage in stages)
    for stage, job in zip(stages, (late, cancelled), strict=True):
        stage.wait_for(job, "listens-0-0")
    desk.cluster.run("scancel", cancelled.number)
    desk.cluster.run("scontrol", "update", f"jobid={late.number}", "endtime=now+2")
    assert (cancelled.end(), cancelled.restarts) == ("CANCELLED", 0)
    assert "Slurm is ending it" in cancelled.output()
    assert (late.end(), late.restarts) == ("COMPLETED", 1), late.output()


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


def test_ranks_are_as_many_as_gpus_or_cores(stage: Stage) -> None:
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


def test_without_an_environment_nothing_starts(stage: Stage) -> None:
    job = stage.submit("sys.exit(0)", VENV="/nonexistent")
    assert (job.end(), job.code) == ("FAILED", 2)
    assert "VENV=/nonexistent holds no hpctrain" in job.output()
