"""Languages and Fortran forms, on the cases that extensions and general lexers get wrong."""

from pathlib import Path

import pytest

from hpctrain.corpus.fortran import find_fortran_form
from hpctrain.corpus.headers import HeaderVotes
from hpctrain.corpus.languages import UNDECIDED, find_companion, find_language, may_be_kept

FIXED = b"""\
C     Scale a vector
      SUBROUTINE SCAL(N, A, X)
      INTEGER N
      REAL A, X(*)
      DO 10 I = 1, N
   10 X(I) = A *
     $       X(I)
      END
"""
FREE = b"""\
! scale a vector
subroutine scal(n, a, x)
  integer, intent(in) :: n
  real, intent(inout) :: x(n)
  call check(n, &
             a)
  x = a * x
end subroutine
"""
FIXED_WITHOUT_COMMENTS = b"      PROGRAM P\n      CALL Q(1,\n     &       2)\n      END\n"
FIXED_OPENMP = b"c$omp parallel do\n      do i = 1, n\n      a(i) = 0\n      end do\n      end\n"
FREE_CALLS_IN_COLUMN_1 = b"program p\ncall mpi_init(ierr)\ncontains\nend program\n"
FREE_INDENTED_BY_5 = b"module m\n     implicit none\n     real :: a = 1 &\n     &  + 2\nend module\n"
BOTH_FORMS = (
    b"      subroutine s(a,                                                   &\n     &   b)\n      end\n"
)
FREE_WITH_COLUMN_6_MARKS = b"      x = a + & ! first\n     &    b\n      end\n"
FREE_WITH_LATE_AMPERSAND = b"      subroutine s(a,".ljust(72) + b"&\n           b)\n      end\n"
FIXED_UNDER_C_COMMENT = b"/* Licence:\n   as you like */\n      x = a +\n     &    b\n      end\n"
TABBED_FIXED = b"\tprogram p\n\tx = a +\n\t1 b\n\tend\n"

C_HEADER = b"""\
#ifndef A_H
#define A_H
#ifdef __cplusplus
extern "C" {
#endif
int f(void);
typedef struct a a;
#endif
"""
C_IN_LARGE_COURTESY = b"""\
#ifdef __cplusplus
#include <complex>
typedef std::complex<double> number;
extern "C" {
#endif
typedef struct a a;
#ifdef __cplusplus
}
#endif
"""
BOTH_SERVED = b"""\
#ifdef __cplusplus
inline void set(a_t handle, const std::string &name, int value) { set_int(handle, name, value); }
#else
#define set(a, name, value) set_int(a, name, value)
#endif
"""
CPP_HEADER = b"#pragma once\nnamespace a {\nclass B;\n}\n"
COMMENT_ONLY_CPP = (
    b"/* see std::vector and template <class T> */\ntypedef struct { int x; } t; // namespace x {\n"
)
KERNEL = b"__global__ void f(float *x) { x[threadIdx.x] = 0; }\n"


@pytest.mark.parametrize(
    ("path", "content", "language"),
    [
        ("a.c", b"int x;", "c"),
        ("A.C", b"int x;", "cpp"),
        ("a.CPP", b"int x;", "cpp"),
        ("a.h", C_HEADER, "c"),
        ("a.h", CPP_HEADER, "cpp"),
        ("a.h", COMMENT_ONLY_CPP, "c"),
        ("a.h", b"template <typename T> T f(const T& x);\n", "cpp"),
        ("a.h", b"#pragma once\n#define N 3\n", UNDECIDED),
        ("a.h", KERNEL, "cuda"),
        ("a.h", b"#define KERNEL __global__ void\nnamespace a { }\n", "cpp"),
        ("a.hpp", b"struct A { int x; };", "cpp"),
        ("a.cu", b"int main() { f<<<1, 2>>>(x); }\n", "cuda"),
        ("a.cuh", b"__device__ int f();\n", "cuda"),
        ("a.cpp", b"#include <hip/hip_runtime.h>\n" + KERNEL, "hip"),
        ("a.cu", b"#include <hip/hip_runtime.h>\n" + KERNEL, "hip"),
        ("a.hip", KERNEL, "hip"),
        ("a.cl", b"__kernel void f(__global float *x) { }\n", "opencl"),
        ("a.cl", b"(defun f (x)\n  (* x x))\n", None),
        ("a.f", FIXED, "fortran-fixed"),
        ("a.F", FIXED, "fortran-fixed"),
        ("a.f90", FREE, "fortran-free"),
        ("a.F90", FIXED, "fortran-fixed"),
        ("a.f", FREE, "fortran-free"),
        ("a.cuf", FREE, "fortran-free"),
        ("a.CUF", FREE, "fortran-free"),
        ("a.F", FREE.replace(b"\n", b"\r\n"), "fortran-free"),
        ("a.h", C_HEADER.replace(b"\n", b"\r"), "c"),
        ("a.h", C_IN_LARGE_COURTESY, "c"),
        ("a.h", BOTH_SERVED, UNDECIDED),
        ("a.h", BOTH_SERVED.replace(b"#else\n", b"#else\n#error C++ only\n"), "cpp"),
        ("a.cpp", b"#include <sycl/sycl.hpp>\nint main() { sycl::queue q; }\n", "cpp"),
        ("a.cpp", b'const char *k = R"(__global__ void f() {})";\n', "cpp"),
        ("a.f", b"\\ a Forth word\n: square ( n -- n ) dup * ;\n: cube dup square * ;\n", None),
        ("mpif.h", b"      integer MPI_COMM_WORLD\n      parameter (MPI_COMM_WORLD=0)\n", "fortran-fixed"),
        ("a.inc", b"      common /blk/ a, b\n      real a, b\n", "fortran-fixed"),
        ("a.inc", b"#define A 1\n#define B 2\nstatic const int x = 3;\nint f(void);\n", "c"),
        ("a.inc", b"<?php\necho 1;\n", None),
        ("a.inc", b"SRCS = a.c b.c\nall: $(SRCS)\n", None),
        ("vector", b"// <vector> -*- C++ -*-\nnamespace std {}\n", "cpp"),
        ("atomic", b"#ifndef _ATOMIC\n#define _ATOMIC\n#include <version>\n#endif\n", "cpp"),
        ("README", b"Read me; namespace { of things.\n", None),
        ("a.m", b"x = 1;\n", None),
        ("a.py", b"x = 1\n", None),
    ],
)
def test_language(path: str, content: bytes, language: str | None) -> None:
    assert find_language(path, content) == language
    assert may_be_kept(path) or language is None


@pytest.mark.parametrize("presumed", ["fortran-fixed", "fortran-free"])
@pytest.mark.parametrize(
    ("content", "form"),
    [
        (FIXED, "fixed"),
        (FREE, "free"),
        (FIXED_WITHOUT_COMMENTS, "fixed"),
        (FIXED_OPENMP, "fixed"),
        (FREE_CALLS_IN_COLUMN_1, "free"),
        (FREE_INDENTED_BY_5, "free"),
        (FREE_WITH_COLUMN_6_MARKS, "free"),
        (FREE_WITH_LATE_AMPERSAND, "free"),
        (FIXED_UNDER_C_COMMENT, "fixed"),
        (b"cf2py intent(out) a\n      call f(a)\n      end\n", "fixed"),
        (FREE.replace(b"\n", b"\r"), "free"),
        (TABBED_FIXED, "fixed"),
        (FIXED.replace(b"\n", b"\r\n"), "fixed"),
        (b"#ifdef MPI\n" + FREE + b"#endif\n", "free"),
    ],
)
def test_form_is_seen_whatever_the_extension_says(presumed: str, content: bytes, form: str) -> None:
    assert find_fortran_form(content, presumed) == f"fortran-{form}"


def test_silent_columns_leave_the_presumption() -> None:
    for presumed in ("fortran-fixed", "fortran-free"):
        assert find_fortran_form(b"      x = 1\n      end\n", presumed) == presumed
        assert find_fortran_form(BOTH_FORMS, presumed) == presumed


def test_undecided_headers_follow_the_closest_directory() -> None:
    votes = HeaderVotes()
    for name, language in [
        ("lib/a.cpp", "cpp"),
        ("lib/b.cpp", "cpp"),
        ("lib/c.cpp", "cpp"),
        ("lib/c/a.c", "c"),
    ]:
        votes.add(name, language)
    votes.close()
    headers = ["lib/macros.h", "lib/config/macros.h", "lib/c/macros.h", "other/macros.h"]
    assert [votes.settle(path, UNDECIDED) for path in headers] == ["cpp", "cpp", "c", "cpp"]
    assert votes.settle("lib/macros.h", "c") == "c"


@pytest.mark.parametrize(
    ("path", "companion"),
    [
        ("a/CMakeLists.txt", "build"),
        ("Makefile", "build"),
        ("src/Makefile.in", "build"),
        ("GNUmakefile", "build"),
        ("make.inc.mk", "build"),
        ("m4/mpi.m4", "build"),
        ("configure.ac", "build"),
        ("README", "docs"),
        ("README.md", "docs"),
        ("docs/a.rst", "docs"),
        ("makefile.c", None),
        ("a.txt", None),
        ("a.f90", None),
    ],
)
def test_companions_are_told_by_name(path: str, companion: str | None) -> None:
    assert find_companion(path) == companion


def test_hpc_kernels_of_this_project() -> None:
    root = Path(__file__).parents[2] / "examples" / "kernels"
    expected = {".c": {"c"}, ".f": {"fortran-fixed"}, ".f90": {"fortran-free"}, ".cu": {"cuda"}}
    files = [path for path in root.rglob("*") if path.suffix in expected]
    assert files
    for path in files:
        assert find_language(str(path), path.read_bytes()) in expected[path.suffix], path
