"""The suite mpi: calls and places are compared, and what is put together again is built and run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from stages import write_corpus

from hpctrain.corpus.document import Document
from hpctrain.errors import DataError
from hpctrain.evaluate import restored
from hpctrain.evaluate.candidate import Answer, Sampling
from hpctrain.evaluate.held_back import HeldBack, read_pairs
from hpctrain.evaluate.kernels import default_pairs
from hpctrain.evaluate.mpi_calls import METRICS, compare_calls, kernel_tasks, put_back, run_mpi
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import yardstick
from hpctrain.tasks.build import build_task_data
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result

KNOWN = "3|MPI_Init(&argc, &argv);\n3|MPI_Comm_rank(c,\n3|  &rank);\n9|MPI_Finalize();\n"
PROGRAM = """\
#include <mpi.h>
%s
int main(int argc, char **argv)
{
    int rank = 0;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Finalize();
    return rank;
}
"""
needs_mpi = pytest.mark.skipif(
    not all(map(shutil.which, ("mpicc", "mpiexec", "bwrap"))), reason="needs mpicc, mpiexec and bubblewrap"
)


def problem(reference: str = KNOWN, language: str = "c") -> Problem:
    return Problem("p", "mpi", language, "mpi", "a.c", "1|a\n[MPI]\n", reference)


@pytest.mark.parametrize(
    ("answer", "figures"),
    [
        (KNOWN, (1, 1, 1, 1)),
        ("3|MPI_Init( &argc,&argv );\n3|MPI_Comm_rank(c, &rank);\n9|MPI_Finalize();\nmore", (1, 1, 1, 1)),
        ("4|MPI_Init(0, 0);\n4|MPI_Comm_rank(c, &rank);\n9|MPI_Finalize();\n", (0, 1, 1, 1 / 3)),
        ("20|MPI_Finalize();\n", (0, 2 / 4, 0, 0)),
        ("3|MPI_Init(&argc, &argv);\n3|MPI_Init(&argc, &argv);\n", (0, 2 / 5, 2 / 5, 2 / 5)),
        ("I do not know", (0, 0, 0, 0)),
    ],
)
def test_figures_of_an_answer(answer: str, figures: tuple[float, ...]) -> None:
    found = compare_calls(problem(), answer)
    assert [found[name] for name in METRICS[:4]] == pytest.approx(figures)


def test_near_calls_are_paired_once_and_as_many_as_can_be() -> None:
    known = problem("1|MPI_Barrier(c);\n2|MPI_Barrier(c);\n")
    assert compare_calls(known, "2|MPI_Barrier(c);\n3|MPI_Barrier(c);\n")["places F1"] == 1
    assert compare_calls(known, "1|MPI_Barrier(c);\n9|MPI_Barrier(c);\n")["places F1"] == 0.5


def test_fortran_is_compared_without_case_and_continuation() -> None:
    known = problem("2|      CALL MPI_BCAST(N, 1,\n2|     &  MPI_INTEGER, IERR)\n", "fortran-fixed")
    assert compare_calls(known, "2|      call mpi_bcast(n,1,mpi_integer,ierr)\n")["exact match"] == 1


@pytest.fixture(scope="module")
def pairs() -> list[HeldBack]:
    return [pair for pair in read_pairs(default_pairs()) if pair.job.model == "mpi"]


def test_every_pair_is_asked_for_without_its_calls_and_comes_back_whole(pairs: list[HeldBack]) -> None:
    assert len(pairs) == 8
    for pair in pairs:
        (task,) = kernel_tasks(pair)
        assert "mpi_comm_rank(" not in task.problem.prompt.lower()
        assert put_back(task.problem, task.problem.reference) == pair.problem.reference
        assert task.unit(task.problem.reference).text == pair.problem.reference


@dataclass
class Says:
    """A candidate with one answer to everything."""

    text: str
    name: str = "says"

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        return [[Answer(self.text)] for _ in problems]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two programs held back: one that builds, one that lacks a header."""
    documents = [
        Document("tree", f"{n}.c", "c", "MIT", f"family-{n}", split, (PROGRAM % text).encode(), "mpi")
        for n, (split, text) in enumerate(
            [("train", ""), ("test", "int one;"), ("test", '#include "of_its_own.h"')]
        )
    ]
    corpus = write_corpus(tmp_path / "corpus", documents)
    task = TaskConfig.model_validate({"name": "mpi", "data": "data", "corpus": str(corpus)})
    return build_task_data(task, tmp_path / "data")


def values(result: Result) -> dict[tuple[str, str], tuple[float | None, int]]:
    return {
        (score.metric, score.group.get("set", "")): (score.value, score.count)
        for score in result.scores
        if set(score.group) <= {"set"}
    }


@needs_mpi
@pytest.mark.slow
def test_the_references_score_in_full_and_nonsense_does_not(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_pair(root: Path, counts: tuple[int, ...] | None) -> list[HeldBack]:
        return [pair for pair in read_pairs(root, counts) if pair.problem.id == "dot_c_mpi"]

    monkeypatch.setattr(restored, "read_pairs", one_pair)
    options = SuiteOptions(problems=data, counts=(2,))
    reference = yardstick("reference")
    assert reference is not None
    found = values(run_mpi(reference, options))
    assert {value for value, _ in found.values()} == {1.0}
    assert found["build rate", "corpus"] == (1.0, 1)  # of the one that can be built
    assert found["pass@1", "kernels"] == (1.0, 1)
    result = run_mpi(Says("1|MPI_Nonsense(;\n"), options)
    nonsense = values(result)
    assert nonsense["build rate", "corpus"] == (0.0, 1)
    assert nonsense["build@1", "kernels"] == (0.0, 1)
    assert nonsense["calls F1", ""] == (0.0, 3)
    assert {sample.verdict for sample in result.samples} == {"not built", "wrong"}
    serial = run_mpi(Says(""), options).samples
    assert {sample.verdict for sample in serial} == {"no answer", "not parallel"}


def test_nothing_to_ask_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    monkeypatch.setattr(restored, "default_pairs", lambda: tmp_path / "none")
    with pytest.raises(DataError, match="the suite mpi has nothing to ask"):
        run_mpi(Says(""), SuiteOptions())
    with pytest.raises(DataError, match="build it first"):
        run_mpi(Says(""), SuiteOptions(problems=tmp_path / "none"))
