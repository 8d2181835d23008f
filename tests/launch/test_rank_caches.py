"""launch/rank.sh: what ranks write beside the run lies in their job's directory on the node, not in $HOME."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from runner import Runner, environment

RANK = Path(__file__).parents[2] / "launch" / "rank.sh"
CACHES = {
    "XDG_CACHE_HOME", "TRITON_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "CUDA_CACHE_PATH", "MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR",
    "HF_HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR",
}  # fmt: skip


def rank(**variables: str) -> subprocess.CompletedProcess[str]:
    """The environment of a rank, one variable a line."""
    jobs = ("SLURM_", "PBS_", "FLUX_", "HPCTRAIN_")
    kept = {k: v for k, v in os.environ.items() if k not in CACHES and not k.startswith(jobs)}
    return subprocess.run([RANK, "env"], env={**kept, **variables}, capture_output=True, text=True)


def caches(**variables: str) -> dict[str, str]:
    """The cache variables of a rank that starts."""
    done = rank(**variables)
    assert done.returncode == 0, done.stderr
    lines = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return {name: value for name, value in lines.items() if name in CACHES}


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "PBS_JOBID"])
def test_each_job_has_its_own_caches_on_the_node(variable: str) -> None:
    jobs = [f"{uuid.uuid4()}.server" for _ in range(2)]
    directories = [Path(f"/tmp/hpctrain-{os.getuid()}-{re.sub(r'[-.]', '_', job)}") for job in jobs]
    try:
        for job, directory in zip(jobs, directories, strict=True):
            found = caches(**{variable: job})
            assert set(found) == CACHES
            assert all(Path(value).is_relative_to(directory / "cache") for value in found.values())
            assert directory.stat().st_mode & 0o777 == 0o700
            assert found == caches(**{variable: job}), "all ranks of a node share them"
    finally:
        for directory in directories:
            directory.rmdir()


def test_what_is_set_stays_and_without_a_job_nothing_is_set(tmp_path: Path) -> None:
    assert caches(HF_HOME="/mine", HPCTRAIN_LOCAL=str(tmp_path / "local"))["HF_HOME"] == "/mine"
    assert caches() == {}


def test_a_strangers_directory_is_not_used(tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.symlink_to(tmp_path)
    done = rank(HPCTRAIN_LOCAL=str(local))
    assert done.returncode == 2
    assert f"{local} on " in done.stderr
    assert "set HPCTRAIN_LOCAL" in done.stderr
    if os.getuid() == 0:
        local.unlink()
        local.mkdir()
        os.chown(local, 65534, 65534)
        assert rank(HPCTRAIN_LOCAL=str(local)).returncode == 2


@pytest.mark.ranks
@pytest.mark.parametrize("home", ["empty", "cannot be written"])
def test_a_run_writes_nothing_in_home(runner: Runner, home: str) -> None:
    """A home that is a file cannot be written to by anyone, root included."""
    place, local = runner.directory / "home", runner.directory / "local"
    if home == "empty":
        place.mkdir()
    else:
        place.touch()
    config = runner.config(train={"steps": 2}, log={"wandb": "offline"})
    kept = {k: v for k, v in environment().items() if not k.startswith("XDG_") and k not in CACHES}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [*launcher, RANK, sys.executable, "-m", "hpctrain", "train", config],
        env={**kept, "HOME": str(place), "HPCTRAIN_LOCAL": str(local)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert max(runner.curve()) == 2
    assert list(place.rglob("*")) == []
    assert (runner.directory / "run" / "wandb").is_dir()
