"""The compilers and MPI launchers of this machine, used inside the sandbox."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hpctrain.errors import LaunchError
from hpctrain.sandbox.run import Limits, Outcome, Sandbox

SUFFIXES = {
    "c": ".c",
    "cpp": ".cc",
    "cuda": ".cu",
    "hip": ".hip",
    "fortran-fixed": ".f",
    "fortran-free": ".f90",
}
"""The file suffix by which compilers know a language; a capital F asks for the preprocessor."""
BUILD_LIMITS = Limits(seconds=60, cpu_seconds=60, processes=64)
CUDA_BUILD_LIMITS = replace(BUILD_LIMITS, seconds=180, cpu_seconds=180, address_space=False)

_SERIAL = {
    "c": ("gcc", "cc"),
    "cpp": ("g++", "c++"),
    "fortran-fixed": ("gfortran",),
    "fortran-free": ("gfortran",),
    "cuda": ("nvcc",),
    "hip": ("hipcc",),
}
_MPI = {
    "c": ("mpicc",),
    "cpp": ("mpicxx", "mpic++"),
    "fortran-fixed": ("mpifort", "mpif90"),
    "fortran-free": ("mpifort", "mpif90"),
}
_LAUNCHERS = ("mpiexec", "mpirun")
_FLAGS = {
    "c": ("-std=gnu11", "-O2"),
    "cpp": ("-std=c++17", "-O2"),
    "fortran-fixed": ("-O2",),
    "fortran-free": ("-O2", "-ffree-line-length-none"),
    "cuda": ("-O2",),
    "hip": ("-O2",),
}
_MODEL_FLAGS = {"openmp": ("-fopenmp",), "openacc": ("-fopenacc",)}
_RUN_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "OMP_DYNAMIC": "false",
    # Ranks may outnumber cores; there is no network, and the filter refuses cross-memory attach.
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_pml": "ob1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # without a sandbox, in a container
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "HYDRA_LAUNCHER": "fork",
}


def candidates(language: str, model: str = "") -> tuple[str, ...]:
    """The programs that can build this, best first."""
    return (_MPI if model.startswith("mpi") else _SERIAL).get(language, ())


def find_compiler(language: str, model: str = "") -> Path | None:
    """The compiler for a language under a programming model, or None."""
    return next((Path(found) for name in candidates(language, model) if (found := shutil.which(name))), None)


def require_compiler(language: str, model: str = "") -> Path:
    """As `find_compiler`; raises LaunchError that names what is missing."""
    if found := find_compiler(language, model):
        return found
    raise LaunchError(f"{why_missing(language, model)}; load a module or install it")


def why_missing(language: str, model: str = "") -> str:
    """Which program that is needed to build and run this is not there; empty if all are."""
    names = candidates(language, model)
    if not names:
        return f"no compiler is known for {language}{' with ' + model if model else ''}"
    if find_compiler(language, model) is None:
        return f"no compiler for {language}{' with ' + model if model else ''}: {' or '.join(names)} on PATH"
    if model.startswith("mpi") and _launcher() is None:
        return f"no MPI launcher: {' or '.join(_LAUNCHERS)} on PATH"
    return ""


def flags(language: str, model: str = "") -> list[str]:
    """The options that a language and a programming model are built with."""
    extra = [flag for part in model.split("+") for flag in _MODEL_FLAGS.get(part, ())]
    return [*_FLAGS[language], *extra]


def build(
    sandbox: Sandbox,
    directory: Path,
    sources: Sequence[str],
    output: str,
    language: str,
    model: str = "",
    options: Sequence[str] = (),
    limits: Limits | None = None,
) -> Outcome:
    """Compile `sources` in their order and link them to `output`; with `-c` in `options`, only compile.

    Names are relative to `directory`. Raises LaunchError if there is no compiler.
    """
    compiler = require_compiler(language, model)
    libraries = [] if {"-c", "-fsyntax-only"} & {*options} else ["-lm"]
    to = ["-o", output] if output else []
    command = [str(compiler), *flags(language, model), *options, *sources, *to, *libraries]
    default = CUDA_BUILD_LIMITS if language in ("cuda", "hip") else BUILD_LIMITS
    return sandbox.run(command, directory, limits or default, readable=readable())


def syntax_check(sandbox: Sandbox, content: str, language: str, model: str = "", name: str = "") -> Outcome:
    """Whether one file compiles by itself, without making code. Includes must be the system's.

    `name` gives the file's name where its suffix matters (`.F90`).
    """
    file = Path(name).name if name else f"code{SUFFIXES[language]}"
    only = ["-fsyntax-only"] if language not in ("cuda", "hip") else ["-c"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, file).write_text(content, encoding="utf-8")
        return build(
            sandbox, Path(folder), [file], "" if only[0] != "-c" else "code.o", language, model, only
        )


def execute(
    sandbox: Sandbox,
    directory: Path,
    program: str,
    model: str = "",
    count: int = 1,
    arguments: Sequence[str] = (),
    limits: Limits | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Outcome:
    """Run a built program with `count` threads, or ranks where the model is MPI; `prefix` stands before it.

    Raises LaunchError if MPI is asked for and no launcher is there.
    """
    command = [*prefix, f"./{program}", *arguments]
    threads = 1 if model == "mpi" else count
    if model.startswith("mpi"):
        launcher = _launcher()
        if launcher is None:
            raise LaunchError(f"{why_missing('c', 'mpi')}; load a module or install it")
        command = [launcher, "-n", str(count), *command]
    variables = {**_RUN_ENVIRONMENT, "OMP_NUM_THREADS": str(threads), **(environment or {})}
    devices: tuple[Path, ...] = ()
    if model == "cuda":
        limits, devices = replace(limits or Limits(), address_space=False), cuda_devices()
    return sandbox.run(command, directory, limits, variables, readable(), devices)


def cuda_devices() -> tuple[Path, ...]:
    """The device files of NVIDIA's driver, if there is a device."""
    if not Path("/dev/nvidiactl").exists():
        return ()
    return tuple(sorted(path for path in Path("/dev").glob("nvidia*") if not path.is_dir()))


def versions() -> dict[str, str]:
    """The first line that each compiler here says of itself."""
    names = sorted({name for table in (_SERIAL, _MPI) for names in table.values() for name in names})
    found = {name: path for name in names if (path := shutil.which(name))}
    return {name: _version(path) for name, path in found.items()}


@lru_cache(maxsize=64)
def _version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if re.search(r"\d+\.\d+", line)]
    return lines[0].strip() if lines else "unknown"


def readable() -> tuple[Path, ...]:
    """Where compilers, launchers and their libraries are, if not among the system's own directories.

    A site's compilers stand in a tree of their own: that tree, not its parents.
    """
    names = {name for table in (_SERIAL, _MPI) for names in table.values() for name in names} | {*_LAUNCHERS}
    places = {
        path
        for name in names
        if (found := shutil.which(name))
        for path in (Path(found).parent, Path(found).resolve().parent.parent)
    }
    for variable in ("LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "CUDA_HOME", "OPAL_PREFIX", "I_MPI_ROOT"):
        places |= {Path(part) for part in os.environ.get(variable, "").split(":") if part}
    return tuple(sorted(place for place in places if place.is_dir() and not _is_system(place)))


def _is_system(place: Path) -> bool:
    resolved = place.resolve()
    return resolved == Path("/") or resolved.parts[1] in ("usr", "bin", "sbin", "lib", "lib32", "lib64")


def _launcher() -> str | None:
    return next((found for name in _LAUNCHERS if (found := shutil.which(name))), None)
