"""Answers that should not pass, and one that should, for one small problem each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpctrain.errors import DataError
from hpctrain.evaluate.driver import Argument, Interface, c_driver
from hpctrain.evaluate.judge import Expected, Job, Judge, Unit, compare
from hpctrain.sandbox.run import Limits, Sandbox
from hpctrain.sandbox.toolchain import why_missing

SERIAL = """
#include <stddef.h>
double sum_serial(size_t n, const double *x)
{
    double s = 0.0;
    for (int r = 0; r < 40; ++r)
        for (size_t i = 0; i < n; ++i)
            s += x[i];
    return s;
}
"""
HEAD = "#include <stddef.h>\ndouble sum_parallel(size_t n, const double *x)\n{\n    double s = 0.0;\n"
LOOP = """\
    for (int r = 0; r < 40; ++r)
        for (size_t i = 0; i < n; ++i)
            s += x[i];
    return s;
}
"""
GOOD = f"{HEAD}#pragma omp parallel for reduction(+ : s)\n{LOOP}"
INTERFACE = Interface(
    returns="double",
    arguments=(Argument.parse("in size_t count = n"), Argument.parse("in double x[n] = draw(0, 1)")),
    cases=({"n": 0}, {"n": 5}, {"n": 3001}),
    timed={"n": 6_000_001},  # long enough that the making of a thread is no share of it
)
JOB = Job(
    serial=Unit(SERIAL, "c", "sum_serial"),
    model="openmp",
    driver=Unit(c_driver(INTERFACE), "c"),
    counts=(1, 2),
    tolerance=1e-9,  # sums of 240 million numbers differ by 1e-12 with their order
    repeats=2,
)
MPI_GOOD = """
#include <mpi.h>
#include <stddef.h>
double sum_parallel(size_t n, const double *x)
{
    int rank, size;
    double s = 0.0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int r = 0; r < 40; ++r)
        for (size_t i = (size_t)rank; i < n; i += (size_t)size)
            s += x[i];
    MPI_Allreduce(MPI_IN_PLACE, &s, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return s;
}
"""


@pytest.fixture(scope="module")
def judge() -> Judge:
    if reason := why_missing("c", "openmp"):
        pytest.skip(reason)
    return Judge(Sandbox(), Limits(seconds=5, cpu_seconds=10, memory_bytes=512 << 20, processes=64))


@pytest.fixture(scope="module")
def expected(judge: Judge) -> Expected:
    return judge.expect(JOB)


def unit(text: str) -> Unit:
    return Unit(text, "c", "sum_parallel")


def test_a_good_answer_passes_with_its_figures(judge: Judge, expected: Expected) -> None:
    found = judge.judge(JOB, unit(GOOD), expected)
    assert (found.verdict, found.detail) == ("passed", "")
    assert found.figures["threads"] == 2
    assert found.figures["calls"] > 0
    assert found.figures["races looked for"] == 1
    assert found.figures["speedup 2 threads"] > 0


WRONG_CASES = {
    "no answer": ("  \n", ""),
    "not built": (GOOD.replace("return s;", "return s"), "expected ';'"),
    "serial copy": (HEAD + LOOP, "calls nothing of openmp"),
    "simd alone": (f"{HEAD}#pragma omp simd reduction(+ : s)\n{LOOP}", "calls nothing of openmp"),
    "a race": (f"{HEAD}#pragma omp parallel for\n{LOOP}", ""),
    "wrong result": (GOOD.replace("s += x[i]", "s += 2 * x[i]"), "result: expected"),
    "crash": (GOOD.replace("s += x[i]", "s += x[i + (n > 2) * ((size_t)1 << 40)]"), "signal 11"),
    "endless": (GOOD.replace("return s;", "while (s >= 0) s += s != s;\n return s;"), "ran longer"),
    "memory": (
        GOOD.replace("#include", "#include <stdlib.h>\n#include <string.h>\n#include").replace(
            "return s;", "for (;;) memset(malloc(1 << 20), 1, 1 << 20);"
        ),
        "MiB of memory",
    ),
    "threads for show": (
        f"{HEAD}#pragma omp parallel\n    {{ volatile int v = 1; (void)v; }}\n{LOOP}",
        "threads other than the first did",
    ),
    "never called": (
        f"{HEAD}    if (n == 77)\n#pragma omp parallel\n        s = 0.0;\n{LOOP}",
        "never called",
    ),
    "prints for the driver": (
        GOOD.replace("#include", "#include <stdio.h>\n#include <stdlib.h>\n#include").replace(
            "return s;", 'printf("result 0\\n"); exit(0);'
        ),
        "has no use for",
    ),
    "assembly": (GOOD.replace("return s;", '__asm__("nop");\n    return s;'), "assembly"),
}
VERDICTS = {
    "no answer": ("no answer",), "not built": ("not built",), "serial copy": ("not parallel",),
    "simd alone": ("not parallel",), "a race": ("race", "wrong"), "wrong result": ("wrong",),
    "crash": ("crashed",), "endless": ("too slow",), "memory": ("over limit",),
    "threads for show": ("not parallel",), "never called": ("not parallel",),
    "prints for the driver": ("wrong",), "assembly": ("wrong",),
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(WRONG_CASES))
def test_what_must_not_pass(judge: Judge, expected: Expected, kind: str) -> None:
    text, detail = WRONG_CASES[kind]
    found = judge.judge(JOB, unit(text), expected)
    assert found.verdict in VERDICTS[kind], found
    assert detail in found.detail


def test_a_race_that_does_no_harm_to_the_result_is_found(judge: Judge) -> None:
    """All threads write the same value to the same place: right by luck, and a data race."""
    job = replace(JOB, counts=(2,), repeats=0)
    text = GOOD.replace("double sum", "double last;\ndouble sum").replace(
        "s += x[i]", "{ last = 1.0; s += x[i]; }"
    )
    assert judge.judge(job, unit(text), judge.expect(job)).verdict == "race"


def test_what_the_checking_runtime_lacks_is_not_called_free_of_races(judge: Judge) -> None:
    job = replace(JOB, counts=(2,), repeats=0)
    tasks = (
        f"{HEAD}#pragma omp parallel\n#pragma omp single\n#pragma omp task shared(s)\n    {{\n{LOOP}".replace(
            "    return s;\n", "    }\n    return s;\n"
        )
    )
    found = judge.judge(job, unit(tasks), judge.expect(job))
    assert found.verdict == "passed", found
    assert found.figures["races looked for"] == 0
    assert "races were not looked for" in found.detail


def test_a_unit_cannot_stand_in_for_a_function_of_the_driver(judge: Judge, expected: Expected) -> None:
    clock = (
        "#include <time.h>\n"
        "int clock_gettime(clockid_t c, struct timespec *t)\n"
        "{ (void)c; t->tv_sec = t->tv_nsec = 0; return 0; }\n"
    )
    found = judge.judge(JOB, unit(clock + GOOD), expected)
    assert found.verdict == "passed"
    assert found.seconds > 0, "the driver's own clock must be the system's"


def test_mpi_counts_ranks_and_calls(judge: Judge) -> None:
    job = replace(JOB, model="mpi", counts=(1, 3))
    if reason := judge.missing(job):
        pytest.skip(reason)
    expected = judge.expect(job)
    found = judge.judge(job, unit(MPI_GOOD), expected)
    assert found.verdict == "passed", found
    assert found.figures["ranks"] == 3
    assert found.figures["calls"] > 0
    alone = MPI_GOOD.replace(
        "MPI_Allreduce(MPI_IN_PLACE, &s, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);", ""
    ).replace("i = (size_t)rank; i < n; i += (size_t)size", "i = 0; i < n; ++i")
    assert judge.judge(job, unit(alone), expected).verdict == "not parallel"


def test_a_whole_program_is_judged_by_what_it_prints(judge: Judge) -> None:
    program = '#include <stdio.h>\nint main(void) {{ printf("%.3f\\n", {}); return 0; }}\n'
    job = Job(serial=Unit(program.format("0.5"), "c"), model="", counts=(1,), tolerance=1e-2)
    expected = judge.expect(job)
    assert judge.judge(job, Unit(program.format("0.501"), "c"), expected).verdict == "passed"
    assert judge.judge(job, Unit(program.format("0.6"), "c"), expected).verdict == "wrong"


def test_serial_code_that_does_not_build_is_the_problems_fault(judge: Judge) -> None:
    broken = replace(JOB, serial=Unit("double sum_serial(", "c", "sum_serial"))
    with pytest.raises(DataError, match="the problem's own serial code is not built"):
        judge.expect(broken)


@pytest.mark.parametrize(
    ("want", "got", "tolerance", "difference"),
    [
        ("x 1 2", "x 1 2", 0.0, ""),
        ("x 1 2", "x 1 2.1", 0.0, "x: expected 2, got 2.1"),
        ("x 100", "x 101", 0.011, ""),
        ("x nan", "x nan", 0.0, ""),
        ("x nan", "x 1", 0.5, "x: expected nan, got 1"),
        ("x 1D+2", "x 100.0", 0.0, ""),
        ("x 1", "x one", 1.0, "x: expected 1, got one"),
        ("x 1", "x 1 2", 0.0, "expected 2 words of output, got 3"),
        ("x inf", "x 1", 1.0, "x: expected inf, got 1"),
    ],
)
def test_compare(want: str, got: str, tolerance: float, difference: str) -> None:
    assert compare(want, got, tolerance) == difference
