"""What is installed, against what hpctrain asks for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hpctrain.doctor.finding import Finding, brief
from hpctrain.doctor.subject import Subject

_SHOWN = ("torch", "deepspeed", "mpi4py", "h5py")
_SLOW_IMPORT_SECONDS = 15.0
# Starting MPI may end a process that no MPI launcher started; asking its name does not start it.
_NAME_MPI = (
    "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
)


def installed(subject: Subject) -> Iterator[Finding]:
    """Python and the packages, by their metadata alone."""
    python, wanted = platform.python_version(), metadata("hpctrain")["Requires-Python"]
    text = f"{python}; hpctrain {version('hpctrain')}"
    if SpecifierSet(wanted or "").contains(python, prereleases=True):
        yield Finding("python", text)
    else:
        yield Finding("python", text, "wrong", f"hpctrain wants {wanted}")
    problems, seen = [], 0
    for requirement in map(Requirement, requires("hpctrain") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        seen += 1
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} is {found}, wanted {requirement.specifier}")
    shown = ", ".join(f"{name} {version(name)}" for name in _SHOWN if not _is_missing(name))
    if problems:
        remedy = "install again: launch/install.sh"
        yield Finding("packages", f"{shown}; {'; '.join(problems)}", "wrong", remedy)
    else:
        yield Finding("packages", f"{shown}; all {seen} as asked for")


def _is_missing(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return True
    return False


def mpi(subject: Subject) -> Iterator[Finding]:
    """Which MPI library mpi4py would load. Training starts without; building data on many nodes does not."""
    asked = subprocess.run(
        [sys.executable, "-c", _NAME_MPI], capture_output=True, text=True, check=False,
        timeout=subject.request.seconds / 4,
    )  # fmt: skip
    if asked.returncode == 0:
        yield Finding("MPI", " ".join(asked.stdout.split(",")[0].split()))
        return
    said = (asked.stderr.strip().splitlines() or ["mpi4py said nothing"])[-1]
    remedy = "only `mpiexec hpctrain corpus build` needs it: load the site's MPI module, or install one"
    yield Finding("MPI", f"none: {said}", "warning", remedy)


def start_up(subject: Subject) -> Iterator[Finding]:
    """Import torch and DeepSpeed, as every start of a job must; the slowest rank counts."""
    start = time.monotonic()
    took = None
    try:
        from hpctrain.parallel.process import choose_accelerator

        choose_accelerator()
        import deepspeed  # noqa: F401 - the import is what is measured

        took = time.monotonic() - start
    finally:  # however it went: the ranks wait for each other here, for their imports may differ by much
        times = subject.exchange.gather("start-up", took, 0.5 * subject.request.seconds)
        subject.exchange.tell("started", seconds=0.6 * subject.request.seconds)
    known = {rank: seconds for rank, seconds in times.items() if seconds is not None}
    if subject.world.rank != 0 or not known:
        return
    slowest = max(known, key=lambda rank: known[rank])
    where = f" on the slowest, rank {slowest}" if subject.world.size > 1 else ""
    text = f"torch and DeepSpeed imported in {brief(known[slowest])}{where}"
    if known[slowest] < _SLOW_IMPORT_SECONDS:
        yield Finding("start-up", text)
    else:
        remedy = "Python's files come from a slow file system: copy the environment to the nodes first"
        yield Finding("start-up", text, "warning", remedy)


def torch_build(subject: Subject) -> Iterator[Finding]:
    """What torch was built for."""
    import torch
    import torch.distributed as dist

    parts = [str(torch.__version__)]
    if torch.version.hip:
        parts.append(f"ROCm {torch.version.hip}")
    elif torch.version.cuda:
        parts.append(f"CUDA {torch.version.cuda}")
    else:
        parts.append("CPU only")
    if dist.is_nccl_available():
        name = "RCCL" if torch.version.hip else "NCCL"
        numbers = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        parts.append(f"{name} {'.'.join(map(str, numbers))}")
    if dist.is_gloo_available():
        parts.append("gloo")
    needed = "nccl" if torch.cuda.is_available() else "gloo"
    if dist.is_backend_available(needed):
        yield Finding("torch", ", ".join(parts))
    else:
        remedy = f"use a torch that was built with {needed}"
        yield Finding("torch", ", ".join(parts), "wrong", remedy)


def hdf5(subject: Subject) -> Iterator[Finding]:
    """The HDF5 library behind h5py."""
    import h5py

    locking = os.environ.get("HDF5_USE_FILE_LOCKING")
    said = f", HDF5_USE_FILE_LOCKING={locking}" if locking else ""
    yield Finding("HDF5", f"{h5py.version.hdf5_version}{said}")
