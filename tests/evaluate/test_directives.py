"""The suite openmp: what directives say is compared, and the answer is run in its program."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import write_corpus

from hpctrain.corpus.document import Document
from hpctrain.evaluate import restored
from hpctrain.evaluate.candidate import Answer, Candidate, Sampling
from hpctrain.evaluate.directives import extract_directive, f1, kernel_tasks, look, run_openmp
from hpctrain.evaluate.executed import Task, run_tasks
from hpctrain.evaluate.held_back import HeldBack, read_pairs
from hpctrain.evaluate.judge import Judge
from hpctrain.evaluate.kernels import default_pairs
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import yardstick
from hpctrain.sandbox.run import Sandbox
from hpctrain.tasks.build import build_task_data
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.directive import Item
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Sample

LOOP = """\
void f%d(int n, double *x)
{
%s    for (int i = 0; i < n; ++i)
        x[i] += %d;
}
"""
PRAGMAS = ("#pragma omp parallel for\n", "#pragma omp parallel for schedule(static)\n")
needs_compilers = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "gfortran", "bwrap"))), reason="needs gcc, gfortran and bubblewrap"
)


@dataclass
class Says:
    """A candidate with the same answers to everything."""

    texts: tuple[str, ...]
    name: str = "says"

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        return [[Answer(text) for text in self.texts] for _ in problems]


def problem(reference: str, language: str = "c") -> Problem:
    return Problem("p", "openmp", language, "openmp", "a.c", "for (;;);\n", reference)


@pytest.mark.parametrize(
    ("answer", "figures", "verdict"),
    [
        ("#pragma omp parallel for reduction(+:s) private(j, i)\n", (1, 1, 1), "passed"),
        ("Use this:\n#pragma omp parallel for private(i)\nfor (;;)", (0, 1, 2 / 4), "wrong"),
        ("#pragma omp simd reduction(*:s)", (0, 0, 0), "wrong"),
        ("// #pragma omp parallel for\n", (0, 0, 0), "no answer"),
        ("", (0, 0, 0), "no answer"),
    ],
)
def test_figures_of_an_answer(answer: str, figures: tuple[float, ...], verdict: str) -> None:
    seen = look(problem("#pragma omp parallel for private(i,j) \\\n reduction(+ : s)\n"), answer)
    assert seen.verdict == verdict
    assert [seen.figures[name] for name in ("exact match", "constructs", "clause F1")] == pytest.approx(
        figures
    )


def test_where_no_clauses_are_there_is_no_f1() -> None:
    seen = look(problem("!$omp parallel do\n", "fortran-free"), "  !$OMP PARALLEL DO\n  do i = 1, n")
    assert seen.figures == {"exact match": 1.0, "constructs": 1.0}


def test_the_lines_of_an_answer() -> None:
    found = extract_directive(
        "text\n  !$omp parallel do & ! all\n  !$omp  private(i)\n  do i = 1, 2", "fortran-free"
    )
    assert found is not None
    assert found[0].endswith("!$omp  private(i)\n")
    assert str(found[1]) == "parallel do private(i)"
    assert (
        extract_directive("      !$omp parallel do\n", "fortran-fixed") is None
    )  # no column 1, no directive


_items = st.frozensets(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")))


@given(_items, _items)
def test_f1_is_symmetric_and_one_only_for_the_same(answered: frozenset[Item], known: frozenset[Item]) -> None:
    assert f1(answered, known) == f1(known, answered)
    assert 0 <= f1(answered, known) <= 1
    assert (f1(answered, known) == 1) == (answered == known)


@pytest.fixture(scope="module")
def pairs() -> dict[str, HeldBack]:
    return {pair.problem.id: pair for pair in read_pairs(default_pairs(), (2,))}


def test_each_loop_is_asked_for_in_a_program_that_is_parallel_by_the_answer_alone(
    pairs: dict[str, HeldBack],
) -> None:
    tasks = kernel_tasks(pairs["cg_f90_openmp"])
    assert [task.problem.id for task in tasks] == [f"cg_f90_openmp/{number}" for number in (1, 2, 3, 4)]
    for number, task in enumerate(tasks, 1):
        unit = task.unit(task.problem.reference).text
        assert unit.count("!$omp") == 1
        assert task.problem.prompt in unit.replace(task.problem.reference, "")
        assert task.problem.prompt.lstrip().startswith("subroutine kr_parallel") or number > 1
        assert "!$omp" not in task.problem.prompt
        assert task.unit("no idea").text == ""
    (inside,) = kernel_tasks(pairs["sor_f77_openmp"])
    assert (
        inside.unit(inside.problem.reference).text.upper().count("!$OMP") == 4
    )  # the region, in three lines, stays
    assert kernel_tasks(pairs["scan_c_openmp"]) == []


def test_the_order_of_the_data_is_that_of_the_kernels(pairs: dict[str, HeldBack]) -> None:
    (after,) = kernel_tasks(pairs["axpy_c_openmp"])
    (in_place,) = kernel_tasks(pairs["axpy_c_openmp"], "pragma-first", 10)
    assert after.problem.suffix is None
    assert in_place.problem.prompt == "{\n"
    assert in_place.problem.suffix is not None
    assert after.problem.prompt.endswith(in_place.problem.prompt + in_place.problem.suffix)
    assert in_place.unit(in_place.problem.reference) == after.unit(after.problem.reference)


def judged(task: Task, *answers: str) -> list[Sample]:
    return run_tasks("openmp", Says(answers), [task], SuiteOptions(), Judge(Sandbox())).samples


@needs_compilers
def test_the_answer_is_run(pairs: dict[str, HeldBack]) -> None:
    (task,) = kernel_tasks(pairs["trapezoid_f77_openmp"])
    reference = task.problem.reference
    known, bare, fenced, none, serial, broken = judged(
        task, reference, task.problem.parallel_for, f"Like this:\n```fortran\n{reference}```\n",
        "do it yourself", "!$OMP SIMD REDUCTION(+:S)\n", "!$OMP PARALLEL DO PRIVATE(NOBODY\n",
    )  # fmt: skip
    assert known.verdict == fenced.verdict == "passed", known.detail
    assert bare.verdict in ("wrong", "race")  # the sum is shared
    assert none.verdict == "no answer"
    assert serial.verdict in ("not parallel", "not built", "wrong")
    assert broken.verdict == "not built"
    assert broken.detail


def few_pairs(root: Path, counts: tuple[int, ...] | None) -> list[HeldBack]:
    few = ("axpy_c_openmp", "trapezoid_f77_openmp")
    return [pair for pair in read_pairs(root, counts) if pair.problem.id in few]


@needs_compilers
@pytest.mark.slow
def test_the_references_pass_and_the_floor_stands_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [
        Document("tree", f"{n}.c", "c", "MIT", f"family-{n}", split,
                 (LOOP % (n, PRAGMAS[n % 2], n)).encode(), "openmp")
        for n, split in enumerate(("train", "test", "test"))
    ]  # fmt: skip
    corpus = write_corpus(tmp_path / "corpus", documents)
    task = TaskConfig.model_validate({"name": "openmp", "data": "data", "corpus": str(corpus)})
    data = build_task_data(task, tmp_path / "data")
    monkeypatch.setattr(restored, "read_pairs", few_pairs)
    options = SuiteOptions(problems=data, counts=(2,))

    def values(name: str) -> dict[tuple[str, str], float | None]:
        candidate: Candidate | None = yardstick(name)
        assert candidate is not None
        result: Result = run_openmp(candidate, options)
        assert len(result.samples) == 4
        return {(s.metric, s.group.get("set", "")): s.value for s in result.scores if set(s.group) <= {"set"}}

    reference = values("reference")
    assert set(reference.values()) == {1.0}
    floor = values("floor:parallel-for")
    assert floor["exact match", "corpus"] == 0.5
    assert floor["constructs", ""] == pytest.approx(3 / 4)  # axpy is `parallel for simd`
    assert floor["build@1", "kernels"] == 1.0
    assert floor["pass@1", "kernels"] == 0.5  # the sum needs its reduction
