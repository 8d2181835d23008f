"""A small benchmark in ParEval's format, written here: its drivers, and answers of every kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Answer, Sampling
from hpctrain.evaluate.pareval import read_benchmarks, run_pareval
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import Yardstick
from hpctrain.sandbox.toolchain import why_missing
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Verdict

UTILITIES = """
#pragma once
#include <vector>
#define NO_INLINE __attribute__((noinline))
#if defined(USE_MPI)
#include <mpi.h>
#elif defined(USE_OMP)
#include <omp.h>
#endif
"""
BASELINE = """
#pragma once
double NO_INLINE exactSumOfSquares(std::vector<double> const& x) {
   double s = 0.0;
   for (double v : x) s += v * v;
   return s;
}
"""
BENCHMARK = """
#include <cmath>
#include <cstdlib>
#include <vector>
#include "utilities.hpp"
#include "baseline.hpp"
#include "generated-code.hpp"
struct Context { std::vector<double> x; double s; };
void reset(Context *c) { for (double &v : c->x) v = 0.01 * (std::rand() % 100); }
Context *init() { Context *c = new Context; c->x.resize(DRIVER_PROBLEM_SIZE); reset(c); return c; }
void compute(Context *c) { c->s = sumOfSquares(c->x); }
void best(Context *c) { c->s = exactSumOfSquares(c->x); }
bool validate(Context *c) {
   std::vector<double> x(1024);
   for (double &v : x) v = 0.01 * (std::rand() % 100);
   return std::abs(sumOfSquares(x) - exactSumOfSquares(x)) < 1e-9;
}
void destroy(Context *c) { delete c; }
"""
MAIN = """
#include <cstdio>
#include <cstdlib>
#include <chrono>
#if defined(USE_MPI)
#include <mpi.h>
#elif defined(USE_OMP)
#include <omp.h>
#endif
class Context;
Context *init();
void compute(Context *);
void best(Context *);
bool validate(Context *);
void destroy(Context *);
static double now() {
   return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
int main(int argc, char **argv) {
   int rank = 0;
#if defined(USE_MPI)
   MPI_Init(&argc, &argv);
   MPI_Comm_rank(MPI_COMM_WORLD, &rank);
#elif defined(USE_OMP)
   omp_set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
#endif
   Context *c = init();
   bool good = validate(c);
   if (rank == 0) std::printf("Validation: %s\\n", good ? "PASS" : "FAIL");
   double t = now(); compute(c); double mine = now() - t;
   t = now(); best(c); double theirs = now() - t;
   if (rank == 0) std::printf("Time: %.14f\\nBestSequential: %.14f\\n", mine, theirs);
   destroy(c);
#if defined(USE_MPI)
   MPI_Finalize();
#endif
}
"""
PROMPT = "/* The sum of the squares. */\ndouble sumOfSquares(std::vector<double> const& x) {"
SERIAL = "\n   double s = 0.0;\n   for (double v : x) s += v * v;\n   return s;\n}\n"
OMP = """
   double s = 0.0;
   #pragma omp parallel for reduction(+:s)
   for (size_t i = 0; i < x.size(); ++i) s += x[i] * x[i];
   return s;
}
"""
MPI = """
   int rank, size;
   MPI_Comm_rank(MPI_COMM_WORLD, &rank);
   MPI_Comm_size(MPI_COMM_WORLD, &size);
   double s = 0.0, all = 0.0;
   for (size_t i = rank; i < x.size(); i += size) s += x[i] * x[i];
   MPI_Allreduce(&s, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
   return all;
}
"""
REFERENCES = {"serial": SERIAL, "omp": OMP, "mpi": MPI}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    if reason := why_missing("cpp", "openmp") or why_missing("cpp", "mpi"):
        pytest.skip(reason)
    benchmark = tmp_path / "drivers" / "cpp" / "benchmarks" / "reduce" / "90_squares"
    models = tmp_path / "drivers" / "cpp" / "models"
    benchmark.mkdir(parents=True)
    models.mkdir()
    (tmp_path / "drivers" / "cpp" / "utilities.hpp").write_text(UTILITIES)
    (benchmark / "baseline.hpp").write_text(BASELINE)
    (benchmark / "cpu.cc").write_text(BENCHMARK)
    for model in REFERENCES:
        (models / f"{model}-driver.cc").write_text(MAIN)
    sizes = {"90_squares": dict.fromkeys(REFERENCES, "(1<<16)")}
    (tmp_path / "drivers" / "problem-sizes.json").write_text(json.dumps(sizes))
    write_prompts(tmp_path, list(REFERENCES))
    return tmp_path


def write_prompts(root: Path, models: Sequence[str]) -> None:
    entries = [
        {"problem_type": "reduce", "language": "cpp", "name": "90_squares", "parallelism_model": model,
         "prompt": PROMPT, "reference": REFERENCES.get(model, "")}
        for model in models
    ]  # fmt: skip
    (root / "prompts.json").write_text(json.dumps(entries))


class Says:
    """Answers everything with the same texts."""

    name = "says"

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        return [[Answer(text) for text in self.texts] for _ in problems]


def options(root: Path, **other: object) -> SuiteOptions:
    return SuiteOptions(problems=root, counts=(1, 2), **other)  # type: ignore[arg-type]


def score(result: Result, metric: str, **group: str) -> float | None:
    return next(score.value for score in result.scores if score.metric == metric and score.group == group)


def test_the_known_solutions_pass(root: Path) -> None:
    result = run_pareval(Yardstick("reference"), options(root))
    assert [sample.verdict for sample in result.samples] == ["passed"] * 3, result.samples
    assert score(result, "pass@1") == score(result, "build@1") == 1.0
    speedup = score(result, "speedup@1", threads="2")
    assert speedup is not None
    assert speedup > 0
    by_model = {sample.programming_model: sample.figures for sample in result.samples}
    assert by_model["openmp"]["threads"] == 2
    assert by_model["openmp"]["races looked for"] == 1


KINDS: dict[str, tuple[str, tuple[Verdict, ...]]] = {
    "serial": (SERIAL, ("not parallel",)),
    "empty": ("", ("no answer",)),
    "broken": ("return 1 }", ("not built",)),
    "wrong": (OMP.replace("x[i] * x[i]", "x[i]"), ("wrong",)),
    "race": (OMP.replace("reduction(+:s)", ""), ("race", "wrong")),
    "speaks for the driver": (
        OMP.replace("return s;", '__builtin_printf("Validation: PASS\\n"); exit(0);'),
        ("wrong",),
    ),
    "calls the driver's solution": (OMP.replace("return s;", "return exactSumOfSquares(x);"), ("wrong",)),
}


def test_what_must_not_pass(root: Path) -> None:
    write_prompts(root, ["omp"])
    kinds = list(KINDS)
    result = run_pareval(Says(*(KINDS[kind][0] for kind in kinds)), options(root))
    found = {kind: sample.verdict for kind, sample in zip(kinds, result.samples, strict=True)}
    assert {kind for kind in kinds if found[kind] not in KINDS[kind][1]} == set(), found
    assert score(result, "pass@1") == 0.0
    assert score(result, "pass@5") == 0.0


def test_models_that_are_not_judged_are_named(root: Path) -> None:
    write_prompts(root, ["omp", "kokkos", "hip"])
    benchmarks, skipped = read_benchmarks(root)
    assert [benchmark.model for benchmark in benchmarks] == ["openmp"]
    assert skipped == {f"90_squares/{m}": f"{m} in cpp is not judged here" for m in ("kokkos", "hip")}


def test_a_driver_that_does_not_build_its_own_reference(root: Path) -> None:
    (root / "drivers/cpp/benchmarks/reduce/90_squares/cpu.cc").write_text(
        BENCHMARK.replace("delete c;", "delete d;")
    )
    with pytest.raises(
        DataError, match="90_squares/serial: the driver does not build with its own reference"
    ):
        run_pareval(Says(SERIAL), options(root, limit=1))


def test_directories_of_another_format(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--problems DIR"):
        run_pareval(Says(""), SuiteOptions())
    with pytest.raises(DataError, match=r"none of prompts/generation-prompts.json"):
        read_benchmarks(tmp_path / "drivers")
    (root / "prompts.json").write_text('[{"name": "a"}]')
    with pytest.raises(DataError, match=r"prompts\.json: not in ParEval's format"):
        read_benchmarks(root)
    write_prompts(root, ["omp"])
    (root / "drivers/cpp/models/omp-driver.cc").unlink()
    with pytest.raises(DataError, match=r"omp-driver\.cc: no such driver, for the prompt 90_squares/omp"):
        read_benchmarks(root)
