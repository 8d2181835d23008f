"""Compilers in the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpctrain.errors import LaunchError
from hpctrain.sandbox import toolchain
from hpctrain.sandbox.run import Sandbox
from hpctrain.sandbox.toolchain import build, execute, find_compiler, syntax_check, why_missing

GOOD = {
    "c": "int main(void) { return 0; }\n",
    "cpp": "#include <vector>\nint main() { return std::vector<int>().size(); }\n",
    "fortran-free": "program a\n  integer :: i\n  i = 1\nend program a\n",
    "fortran-fixed": "C     COMMENT\n      PROGRAM A\n      I = 1\n      END\n",
}
MPI = """
#include <mpi.h>
#include <stdio.h>
int main(int argc, char **argv) {
    int rank, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    ++rank;
    MPI_Reduce(&rank, &sum, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 1) printf("%d\\n", sum);
    MPI_Finalize();
}
"""
THREADS = """
#include <omp.h>
#include <stdio.h>
int main(void) {
    int n = 0;
#pragma omp parallel reduction(+ : n)
    n += 1;
    printf("%d\\n", n);
}
"""


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.mark.parametrize("language", sorted(GOOD))
def test_syntax(sandbox: Sandbox, language: str) -> None:
    if why_missing(language):
        pytest.skip(why_missing(language))
    assert syntax_check(sandbox, GOOD[language], language).status == "ok"
    broken = syntax_check(sandbox, GOOD[language].replace("1", ")").replace("return", ")"), language)
    assert broken.status == "failed"
    assert "rror" in broken.stderr


def test_the_suffix_of_a_name_asks_for_the_preprocessor(sandbox: Sandbox) -> None:
    code = "#ifdef NEVER\n      )\n#endif\n      END\n"
    assert syntax_check(sandbox, code, "fortran-fixed", name="a.F").status == "ok"
    assert syntax_check(sandbox, code, "fortran-fixed", name="a.f").status == "failed"


def test_a_source_cannot_include_what_is_not_the_systems(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h"
    secret.write_text("#error secret\n")
    outcome = syntax_check(sandbox, f'#include "{secret}"\n', "c")
    assert "secret.h: No such file" in outcome.stderr


@pytest.mark.parametrize(("code", "model", "expected"), [(THREADS, "openmp", "3\n"), (MPI, "mpi", "6\n")])
def test_threads_and_ranks(sandbox: Sandbox, tmp_path: Path, code: str, model: str, expected: str) -> None:
    if why_missing("c", model):
        pytest.skip(why_missing("c", model))
    (tmp_path / "a.c").write_text(code)
    built = build(sandbox, tmp_path, ["a.c"], "a", "c", model)
    assert built.status == "ok", built.message
    ran = execute(sandbox, tmp_path, "a", model, 3)
    assert ran.stdout == expected, ran.message


def test_a_missing_compiler_is_named(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler("fortran-free") is None
    with pytest.raises(LaunchError, match=r"no compiler for c with mpi: mpicc on PATH; load a module"):
        build(sandbox, tmp_path, ["a.c"], "a", "c", "mpi")
    assert "hipcc" in why_missing("hip")
    assert "no compiler is known for opencl" in why_missing("opencl")


def test_a_compiler_in_a_tree_of_its_own_is_made_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "site" / "gcc" / "bin" / "gfortran"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert tool.parent.parent in toolchain.readable()
    assert tmp_path not in toolchain.readable()
