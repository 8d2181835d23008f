"""Syntax of functions written anew: the originals pass, what is broken does not, in a real sandbox."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpctrain.corpus.document import CORPUS_FORMAT, CORPUS_KIND, Document, write_corpus_files
from hpctrain.errors import LaunchError
from hpctrain.evaluate.candidate import Answer, Sampling
from hpctrain.evaluate.ngram import NgramModel
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.syntax import run_syntax
from hpctrain.evaluate.yardsticks import Yardstick
from hpctrain.manifest import write_stage
from hpctrain.sandbox.run import Sandbox
from hpctrain.shards.pack import build_shards
from hpctrain.tasks.problem import Problem

FILES = [
    ("c", "sum.c", b"double sum(int n, const double *x)\n{\n  double s = 0;\n"
                   b"#pragma omp parallel for reduction(+ : s)\n"
                   b"  for (int i = 0; i < n; i++)\n    s += x[i];\n  return s;\n}\n"),
    ("c", "lonely.c", b'#include "not/there.h"\nint lonely(void)\n{\n  return its_macro(3, 4);\n}\n'),
    ("cpp", "twice.cc", b"namespace n {\ntemplate <class T> T twice(T x) {\n  x += x;\n  return x;\n}\n}"),
    ("fortran-free", "s.f90", b"module m\ncontains\nsubroutine s(x)\n  real, intent(inout) :: x(:)\n"
                              b"  x = 2 * x\nend subroutine s\nend module m\n"),
    ("fortran-fixed", "axpy.f", b"      SUBROUTINE AXPY(N, A, X, Y)\n      INTEGER N, I\n"
                                b"      DOUBLE PRECISION A, X(*), Y(*)\nC     END\n      DO 10 I = 1, N\n"
                                b"         Y(I) = Y(I) +\n     & A*X(I)\n   10 CONTINUE\n      END\n"),
    ("hip", "scale.hip", b"__global__ void scale(float *x, float a) {\n  x[threadIdx.x] *= a;\n}\n"),
]  # fmt: skip


def sandbox_works() -> bool:
    try:
        Sandbox()
    except LaunchError:
        return False
    return all(map(shutil.which, ("gcc", "g++", "gfortran")))


pytestmark = pytest.mark.skipif(not sandbox_works(), reason="needs bubblewrap, gcc, g++ and gfortran")


def _counts(documents: list[Document], what: str) -> dict[str, dict[str, int]]:
    """Documents or bytes by split and language."""
    found: dict[str, dict[str, int]] = {"train": {}, "validation": {}}
    for each in documents:
        amount = 1 if what == "documents" else len(each.content)
        found[each.split][each.language] = found[each.split].get(each.language, 0) + amount
    return found


@pytest.fixture(scope="module")
def shards(tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("syntax")
    documents = [
        Document("made", f"{split}/{name}", language, "Apache-2.0", f"{split}-{name}", split, content)
        for split in ("train", "validation")
        for language, name, content in FILES
    ]
    with write_stage(place / "corpus", CORPUS_KIND, CORPUS_FORMAT) as stage:
        write_corpus_files(stage, documents)
        stage.counts = {name: _counts(documents, name) for name in ("documents", "bytes")}
    build_shards(place / "corpus", tokenizer_directory, place / "shards")
    return place / "shards"


class Saying:
    """Answers every problem with one text."""

    name = "saying"

    def __init__(self, text: str) -> None:
        self.text = text

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        return [[Answer(self.text)] * sampling.samples for _ in problems]


def options(shards: Path) -> SuiteOptions:
    return SuiteOptions(Sampling(max_tokens=60), shards=shards)


def test_the_known_functions_compile_and_others_are_told_apart(shards: Path) -> None:
    result = run_syntax(Yardstick("reference"), options(shards))
    assert {sample.problem.split("/")[1].split(":")[0] for sample in result.samples} == {
        "sum.c", "twice.cc", "s.f90", "axpy.f"
    }  # fmt: skip
    assert {score.value for score in result.scores} == {1.0}
    assert result.settings["files that compile as they are"]["c"] == [1, 2]
    if not shutil.which("hipcc"):
        assert any("no compiler for hip" in reason for reason in result.skipped.values())


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("  }}} no code at all (", "not built"), ("\n   ", "no answer")],
)
def test_what_does_not_compile_does_not_pass(shards: Path, text: str, verdict: str) -> None:
    result = run_syntax(Saying(text), options(shards))
    assert {sample.verdict for sample in result.samples} == {verdict}
    assert {score.value for score in result.scores} == {0.0}
    assert verdict == "no answer" or all("error" in sample.detail.lower() for sample in result.samples)


def test_another_function_that_compiles_passes(shards: Path) -> None:
    result = run_syntax(Saying("\n  return n * x[0];\n}"), options(shards))
    passed = [sample.problem for sample in result.samples if sample.verdict == "passed"]
    assert [each.split(":")[0] for each in passed] == ["validation/sum.c"]
    assert result.scores[0].value == pytest.approx(1 / 4)


def test_the_floor_is_scored_too(shards: Path) -> None:
    result = run_syntax(NgramModel(shards), options(shards))
    assert {sample.verdict for sample in result.samples} <= {"passed", "not built"}
    assert len(result.samples) == 4
