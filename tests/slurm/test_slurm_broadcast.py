"""The environment on every node's own storage: launch/broadcast.sh with a real sbcast, in real batch jobs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import Desk, Job
from small_venv import add_script, make_small_venv

# In place of hpctrain: each rank tells where it runs, or waits to be cancelled.
TELL = """
import json, os, socket, sys, time
if sys.argv[2] == "wait":
    time.sleep(600)
facts = [socket.gethostname(), sys.prefix, os.environ["TRITON_CACHE_DIR"]]
with open(f"{sys.argv[2]}/{os.environ['SLURM_PROCID']}", "w") as file:
    json.dump(facts, file)
"""
LOCAL = Path("/dev/shm")  # each node of the test cluster has its own


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small environment whose hpctrain is the script above."""
    venv = make_small_venv(tmp_path_factory.mktemp("shared"))
    add_script(venv, "hpctrain", TELL)
    return venv


@pytest.fixture
def apart(desk: Desk) -> Desk:
    """A cluster whose nodes have storage of their own."""
    if desk.cluster.mode != "namespaces":
        pytest.skip("the nodes of a cluster on loopback share all storage")
    return desk


def on_nodes(desk: Desk, *command: str) -> str:
    """Run a command on the nodes that the jobs below use."""
    return desk.cluster.run("srun", "--nodelist=n1,n2", "--ntasks-per-node=1", "--nodes=2", *command)


def submit(desk: Desk, venv: Path, told: object, **variables: str) -> Job:
    return desk.submit(
        "pretrain.sh", told, options="--nodes=2 --nodelist=n1,n2", VENV=str(venv), BROADCAST=str(LOCAL),
        **variables,
    )  # fmt: skip


def check_ranks(job: Job, told: Path) -> None:
    """Two ranks on two nodes ran from the copy, with caches beside it."""
    assert job.end() == "COMPLETED", job.output()
    facts = [json.loads(path.read_text()) for path in sorted(told.iterdir())]
    local = LOCAL / f"hpctrain-{os.getuid()}-{job.number}"
    assert facts == [[node, str(local / "env"), str(local / "cache" / "triton")] for node in ("n1", "n2")]


def test_ranks_run_from_the_copy_and_nothing_is_left(apart: Desk, venv: Path, tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    job = submit(apart, venv, tmp_path / "told")
    check_ranks(job, tmp_path / "told")
    assert "on every node" in job.output()
    assert "shared file system" not in job.output(), "sbcast did it"
    assert "hpctrain" not in on_nodes(apart, "ls", str(LOCAL))


def test_without_sbcast_each_node_reads_the_archive(apart: Desk, venv: Path, tmp_path: Path) -> None:
    commands, told = tmp_path / "commands", tmp_path / "told"
    commands.mkdir()
    told.mkdir()
    for directory in apart.cluster.environment["PATH"].split(":"):
        for path in Path(directory).iterdir() if Path(directory).is_dir() else ():
            if path.name != "sbcast" and not (commands / path.name).is_symlink():
                (commands / path.name).symlink_to(path)
    assert shutil.which("sbcast", path=str(commands)) is None
    job = submit(apart, venv, told, PATH=str(commands))
    check_ranks(job, told)
    assert "there is no sbcast: each node reads" in job.output()


def test_what_a_cancelled_job_left_goes_with_the_next(apart: Desk, venv: Path, tmp_path: Path) -> None:
    cancelled = submit(apart, venv, "wait")
    cancelled.wait(lambda: "on every node" in cancelled.output(), "the broadcast")
    apart.cluster.run("scancel", "--signal=KILL", "--full", cancelled.number)
    cancelled.end()
    left = LOCAL / f"hpctrain-{os.getuid()}-{cancelled.number}"
    assert left.name in on_nodes(apart, "ls", str(LOCAL))
    on_nodes(apart, "touch", "--date=1 hour ago", str(left))
    (tmp_path / "told").mkdir()
    check_ranks(submit(apart, venv, tmp_path / "told"), tmp_path / "told")
    assert "hpctrain" not in on_nodes(apart, "ls", str(LOCAL))
