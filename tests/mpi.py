"""Commands in several ranks under whatever MPI is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest


def mpiexec(ranks: int) -> list[str]:
    """The command that starts this Python in so many ranks; skips the test where there is no MPI."""
    launcher = shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("no mpiexec here")
    probe = [sys.executable, "-c", "from mpi4py import MPI"]
    if (found := subprocess.run(probe, capture_output=True, check=False)).returncode:
        pytest.skip(f"mpi4py finds no MPI library: {found.stderr.decode().splitlines()[-1]}")
    is_open_mpi = b"Open" in subprocess.check_output([launcher, "--version"])
    return [launcher, *(["--oversubscribe"] if is_open_mpi else []), "-n", str(ranks), sys.executable]


def mpi_environment() -> dict[str, str]:
    """No variables of a launcher that the tests may run under; MPI may be used by root."""
    foreign = ("SLURM_", "OMPI_", "PMI", "RANK", "WORLD_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
