"""Copies of benchmarks are found in another dress, and other code is not mistaken for one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpctrain.config import load_config
from hpctrain.corpus.benchmarks import BenchmarkConfig, defined_names, read_benchmark
from hpctrain.corpus.contamination import Benchmarks, ContaminationConfig
from hpctrain.corpus.languages import UNDECIDED
from hpctrain.errors import ConfigError, DataError

KERNELS = Path(__file__).parents[2] / "examples" / "kernels"
JACOBI = b"""\
/* A Jacobi sweep. */
#include <stdio.h>
static void jacobi_sweep(int n, const double *restrict old, double *restrict new_values)
{
    for (int i = 1; i < n - 1; i++)
        for (int j = 1; j < n - 1; j++)
            new_values[i * n + j] = 0.25 * (old[(i - 1) * n + j] + old[(i + 1) * n + j]
                                          + old[i * n + j - 1] + old[i * n + j + 1]);
}
static double residual_of_sweep(int n, const double *a, const double *b)
{
    double sum = 0.0;
    for (int k = 0; k < n * n; k++)
        sum += (a[k] - b[k]) * (a[k] - b[k]);
    return sum;
}
void print_jacobi_result(int n, const double *a)
{
    for (int k = 0; k < n; k++)
        printf("%g\\n", a[k]);
}
"""
FIXED = b"""\
C     Power iteration
      SUBROUTINE POWITR(N, A, LDA, X, Y, TOL, MAXIT, ITER)
      INTEGER N, LDA, MAXIT, ITER, I, J
      DOUBLE PRECISION A(LDA, *), X(*), Y(*), TOL, S, T
      DO 30 ITER = 1, MAXIT
         S = 0.0D0
         DO 20 I = 1, N
            T = 0.0D0
            DO 10 J = 1, N
               T = T + A(I, J) * X(J)
 10         CONTINUE
            Y(I) = T
            S = MAX(S, ABS(T))
 20      CONTINUE
         IF (ABS(S - X(N+1)) .LE. TOL * S) RETURN
 30   CONTINUE
      END
"""
FREE = b"""\
! the same by hand in free form
subroutine powitr(n, a, lda, x, y, tol, maxit, iter)
  integer :: n, lda, maxit, iter, i, j
  real :: a(lda, *), x(*), y(*), tol, s, t
  do 30 iter = 1, maxit   ! outer
    s = 0.0
    do 20 i = 1, n
      t = 0.0
      do 10 j = 1, n
        t = t + a(i, j) * x(j)
 10   continue
      y(i) = t
      s = max(s, abs(t))
 20 continue
    if (abs(s - x(n+1)) <= tol * s) return
 30 continue
end
"""
OTHER = b"""\
#include <stdio.h>
int main(int argc, char **argv)
{
    double total = 0.0;
    for (int i = 0; i < argc; i++) total += i;
    printf("%g %s\\n", total, argv[0]);
    return total > 3 ? 1 : 0;
}
"""


def _load(root: Path, **settings: Any) -> Benchmarks:
    return Benchmarks.load(
        ContaminationConfig(benchmarks=[BenchmarkConfig(name="planted", path=str(root))], **settings)
    )


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/jacobi.c").write_bytes(JACOBI)
    (tmp_path / "src/powitr.f").write_bytes(FIXED)
    return tmp_path


def test_copies_in_another_dress_are_found(planted: Path) -> None:
    benchmarks = _load(planted)
    dressed = re.sub(rb"/\*.*?\*/", b"", JACOBI).replace(b"    ", b"\t").replace(b"double", b"float")
    excerpt = JACOBI[JACOBI.index(b"    for (int i") : JACOBI.index(b"static double")]
    for content, language in (
        (JACOBI, "c"), (dressed, "cpp"), (dressed, UNDECIDED), (OTHER * 20 + JACOBI, "c"), (excerpt, "cuda"),
    ):  # fmt: skip
        found = benchmarks.find(content, language)
        assert found is not None
        assert (found.benchmark, found.path, found.by) == ("planted", "src/jacobi.c", "runs of tokens")
    found = benchmarks.find(FREE, "fortran-free")
    assert found is not None
    assert found.path == "src/powitr.f"
    assert str(found) == f"planted: src/powitr.f, {found.share:.0%} by runs of tokens"
    assert benchmarks.match(FREE, "fortran-free") == "planted"


def test_other_code_is_not(planted: Path) -> None:
    benchmarks = _load(planted)
    assert benchmarks.match(OTHER, "c") == ""
    assert benchmarks.match(b"", "c") == ""
    assert benchmarks.match(JACOBI[:120], "c") == ""  # too little to be a copy
    assert Benchmarks.load(ContaminationConfig()).match(JACOBI, "c") == ""


def test_a_rewritten_file_is_found_by_its_functions(planted: Path) -> None:
    rewritten = b"".join(
        b"double %b(std::vector<double>& v, int m)\n{ return compute<%d>(v, m); }\n" % (name, number)
        for number, name in enumerate([b"jacobi_sweep", b"residual_of_sweep", b"print_jacobi_result"])
    )
    found = _load(planted).find(rewritten, "cpp")
    assert found is not None
    assert (found.by, found.share) == ("function names", 1.0)
    calls = rewritten.replace(b"\n{ return", b"; // {").replace(b"; }", b"")
    assert _load(planted).find(calls, "cpp") is None  # who calls a function is no copy of it
    assert _load(planted, min_names=4).find(rewritten, "cpp") is None


def test_what_a_harness_repeats_does_not_count(tmp_path: Path) -> None:
    for name in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta"):
        (tmp_path / name).mkdir()
        own = b"int %b_kernel(int q) { return q; }\n" % name.encode()
        (tmp_path / name / "main.c").write_bytes(JACOBI + own)
    assert _load(tmp_path).match(JACOBI + OTHER, "c") == ""


def test_a_large_file_is_held_by_a_sample(tmp_path: Path) -> None:
    def lines_of(name: bytes, count: int) -> bytes:
        return b"".join(
            b"    %b[%d] = %b[%d] + b[i + %d];\n" % (name, n, name, n * 7, n) for n in range(count)
        )

    body = lines_of(b"x", 3000)
    (tmp_path / "large.c").write_bytes(b"void large(double *x)\n{\n" + body + b"}\n")
    benchmarks = _load(tmp_path, sketch_runs=256)
    lines = body.splitlines(keepends=True)
    other = lines_of(b"y", 9000)  # so that what is shared is little of the document
    for part, expected in ((3000, 1.0), (2100, 0.7)):
        found = benchmarks.find(b"".join(lines[:part]) + other, "c")
        assert found is not None
        assert found.share == pytest.approx(expected, abs=0.12)
    assert benchmarks.find(b"".join(lines[:900]) + other, "c") is None
    assert sum(len(array) for array in (benchmarks._runs, benchmarks._owners)) == 512


def test_code_in_strings_of_json_and_python(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps([{"name": "x", "prompt": JACOBI.decode()}]))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"code": FREE.decode()}) + "\nnot json\n")
    (tmp_path / "kernel.py").write_text(f"source = r'''{OTHER.decode()}'''\n")
    paths = [file.path for file in read_benchmark(BenchmarkConfig(name="b", path=str(tmp_path)))]
    assert paths == [
        "kernel.py",
        "prompts.json",
    ]  # Fortran has neither brace nor semicolon: not taken for code
    assert _load(tmp_path).match(JACOBI, "c") == "planted"


@pytest.mark.parametrize(
    ("content", "language", "names"),
    [
        (JACOBI, "c", {b"jacobi_sweep", b"residual_of_sweep", b"print_jacobi_result"}),
        (FIXED, "fortran-fixed", {b"powitr"}),
        (b"pure real(dp) function total_of(a)\nend function total_of\n! function not_this(x)\n",
 "fortran-free",
         {b"total_of"}),
        (b"int f(int);\nif (a > b) { g(x); }\n#define M(x) { x }\nwhile (next(a)) {}\n", "c", set()),
        (b"__global__ void saxpy_kernel(float *x) {}\ntemplate <class T> T sum_all(T (*f)()) noexcept {}\n",
         "cuda", {b"saxpy_kernel", b"sum_all"}),
    ],
)  # fmt: skip
def test_defined_names(content: bytes, language: str, names: set[bytes]) -> None:
    assert defined_names(content, language) == names


def test_the_fingerprint_follows_the_benchmarks(planted: Path) -> None:
    before = _load(planted).fingerprint
    assert _load(planted).fingerprint == before
    assert _load(planted, max_share=0.6).fingerprint != before
    (planted / "src/jacobi.c").write_bytes(JACOBI.replace(b"0.25", b"0.5"))
    assert _load(planted).fingerprint != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", r"benchmark B: .*nowhere: no such directory; .*contamination\.benchmarks"),
        ("empty", r"benchmark B: no code in .*empty"),
    ],
)
def test_a_benchmark_without_code_is_an_error(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        Benchmarks.load(
            ContaminationConfig(benchmarks=[BenchmarkConfig(name="B", path=str(tmp_path / path))])
        )


def test_a_name_given_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("benchmarks: [{name: a, path: x}, {name: a, path: y}]\n")
    with pytest.raises(ConfigError, match="benchmark names given twice: a"):
        load_config(path, [], ContaminationConfig)


def test_the_kernels_of_this_project_find_themselves_only() -> None:
    """Every pair is found as a copy of itself with precision and comments changed, and none as another."""
    config = ContaminationConfig(benchmarks=[BenchmarkConfig(name="kernels", path=str(KERNELS))])
    benchmarks = Benchmarks.load(config)
    wrong = []
    for file in read_benchmark(config.benchmarks[0]):
        changed = file.content.replace(b"double", b"float").replace(b"d0", b"e0")
        found = benchmarks.find(changed, file.language)
        if found is None or found.path.split("/")[0] != file.path.split("/")[0]:
            wrong.append((file.path, str(found)))
    assert wrong == []
