# SPDX-License-Identifier: Apache-2.0
"""Build every kernel pair with the compilers at hand and prove serial and parallel equal."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

Status = Literal["PASS", "SKIP", "FAIL"]

NO_DEVICE = 77
TIME_LIMIT_S = 120
WARNINGS = ["-O2", "-Wall", "-Wextra", "-Werror"]
# mpif.h declares far more constants than any program uses.
FORTRAN = [*WARNINGS, "-Wno-unused-parameter"]
FLAGS = {
    "c": ["-std=c11", *WARNINGS],
    "fortran-fixed": FORTRAN,
    "fortran-free": FORTRAN,
    "cuda": ["-O2", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"],
}
MODEL_FLAGS = {"openmp": ["-fopenmp"], "openacc": ["-fopenacc"]}
RUN_ENV = {
    "OMP_WAIT_POLICY": "passive",
    # Open MPI: ranks may outnumber cores, and containers often run as root.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


@dataclass(frozen=True)
class Kernel:
    """One pair, as its kernel.yaml describes it; `counts` are thread or rank counts."""

    path: Path
    name: str
    language: str
    model: str
    summary: str
    entry: dict[str, str]
    sources: dict[str, str]
    counts: tuple[int, ...]
    tolerance: float


@dataclass(frozen=True)
class Outcome:
    """What became of a pair; `returncode` is the driver's last exit code, None if it never ran."""

    name: str
    status: Status
    detail: str
    returncode: int | None = None


def discover(root: Path) -> list[Kernel]:
    """Read every `<root>/<pair>/kernel.yaml`, sorted by name."""
    kernels = []
    for spec in sorted(root.glob("*/kernel.yaml")):
        data = yaml.safe_load(spec.read_text(encoding="utf-8"))
        counts = tuple(data.pop("ranks", None) or data.pop("threads", None) or (1,))
        kernels.append(Kernel(path=spec.parent.resolve(), counts=counts, **data))
    return kernels


def compilers(kernel: Kernel) -> list[str]:
    """Name the compilers that can build a pair, best first."""
    if kernel.language == "cuda":
        return ["nvcc"]
    if kernel.language == "c":
        return ["mpicc"] if kernel.model == "mpi" else ["gcc", "cc"]
    return ["mpifort", "mpif90"] if kernel.model == "mpi" else ["gfortran"]


def check(kernel: Kernel, build_dir: Path) -> Outcome:
    """Build one pair in `build_dir` and run its driver at each thread or rank count."""
    name, compiler = kernel.name, _find(compilers(kernel))
    if compiler is None:
        return Outcome(name, "SKIP", f"no compiler: {' or '.join(compilers(kernel))}")
    launcher = _find(["mpiexec", "mpirun"])
    if kernel.model == "mpi" and launcher is None:
        return Outcome(name, "SKIP", "no MPI launcher: mpiexec or mpirun")
    flags = MODEL_FLAGS.get(kernel.model, [])
    if kernel.language == "c" and flags:
        # On some systems gcc is another compiler, which may lack OpenMP or OpenACC.
        (build_dir / "probe.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
        if _run([compiler, *flags, "probe.c", "-o", "probe"], build_dir)[0] != 0:
            return Outcome(name, "SKIP", f"{compiler} does not support {' '.join(flags)}")

    # Free-form sources define modules, so serial and parallel must precede the driver.
    sources = [str(kernel.path / kernel.sources[role]) for role in ("serial", "parallel", "driver")]
    build = [compiler, *FLAGS[kernel.language], *flags, *sources, "-o", "driver", "-lm"]
    code, output = _run(build, build_dir)
    if code != 0:
        return Outcome(name, "FAIL", f"build:\n{output}")

    worst = 0.0
    for count in kernel.counts:
        ranks = [launcher, "-n", str(count)] if kernel.model == "mpi" and launcher else []
        code, output = _run([*ranks, str(build_dir.resolve() / "driver")], build_dir, threads=count)
        line = next((text for text in output.splitlines() if text.startswith(("PASS ", "SKIP "))), "")
        if code == NO_DEVICE and line.startswith(f"SKIP {name}:"):
            return Outcome(name, "SKIP", f"built;{line.partition(':')[2]}", code)
        if code != 0 or not line.startswith(f"PASS {name} max_diff="):
            return Outcome(name, "FAIL", f"count {count}, exit code {code}:\n{output}", code)
        worst = max(worst, float(line.rpartition("=")[2]))
    return Outcome(name, "PASS", f"max_diff={worst:.1e} tolerance={kernel.tolerance:.1e}", 0)


def _find(names: list[str]) -> str | None:
    return next((path for path in map(shutil.which, names) if path), None)


def _run(command: list[str], cwd: Path, threads: int = 1) -> tuple[int, str]:
    env = {**os.environ, **RUN_ENV, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        return 124, f"stopped after {TIME_LIMIT_S} s"
    return done.returncode, (done.stdout + done.stderr).strip()


def main() -> int:
    """Check all pairs, print one line for each and a closing count, and return the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    tally = {"PASS": 0, "SKIP": 0, "FAIL": 0}
    for kernel in discover(Path(__file__).parent):
        with tempfile.TemporaryDirectory() as folder:
            outcome = check(kernel, Path(folder))
        tally[outcome.status] += 1
        print(f"{outcome.status} {outcome.name} ({outcome.detail})", flush=True)
    print(", ".join(f"{number} {status}" for status, number in tally.items()))
    return 1 if tally["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
