"""Spans of loop nests, directives, kernels and bodies: right on small programs, harmless on any bytes."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.structure import Span, SpanKind, loops, spans

FIXED, FREE = "fortran-fixed", "fortran-free"
SCRAPS = [
    b"for", b"while", b"do", b"if", b"else", b"(", b")", b"{", b"}", b";", b"f", b"\n", b" ", b"      ",
    b"do i=1,n\n", b"end do\n", b"10 ", b"do 10 i=1,n\n", b"subroutine s\n", b"end\n", b"interface\n", b"&\n",
    b"!$omp do\n", b"#else\n", b"#if 1\n", b"#endif\n", b"parallel_for(", b"[=]",
    b"#pragma omp for\n", b"contains\n", b"     & x\n", b"'",
]  # fmt: skip


def texts(content: bytes, language: str, kind: str) -> list[bytes]:
    return [
        content[span.start : span.stop] for span in spans(content, language) if span.kind is SpanKind(kind)
    ]


@settings(max_examples=1000, deadline=None)
@example(b"do i=1,n\n;do i=1,n\n;;", "c")
@given(st.lists(st.sampled_from(SCRAPS), max_size=60).map(b"".join), st.sampled_from([*LANGUAGES, "docs"]))
def test_spans_of_anything_lie_inside_in_order_and_hold_something(content: bytes, language: str) -> None:
    found = spans(content, language)
    assert found == sorted(found, key=lambda span: (span.start, -span.stop, span.kind.value))
    for _, start, stop in found:
        assert 0 <= start < stop <= len(content)
        assert content[start:stop].strip()
    open_spans: list[Span] = []
    for span in found:
        open_spans = [outer for outer in open_spans if outer.stop > span.start]
        assert all(span.stop <= outer.stop for outer in open_spans), (content, open_spans, span)
        open_spans.append(span)


@pytest.mark.parametrize("language", ["cpp", FIXED, FREE])
@pytest.mark.parametrize(
    "scrap",
    [
        b"for(;;)",
        b"for(;;){",
        b"do ",
        b"do\n",
        b"{",
        b"(",
        b"if(a)",
        b"f(){",
        b"     &\n",
        b"else ",
        b"\n",
        b"&\n",
    ],
)
def test_time_is_linear_in_hostile_structure(language: str, scrap: bytes) -> None:
    spans(scrap * 50_000, language)  # quadratic time would not end within the test's timeout


def test_perfect_nests_are_one_and_others_have_parts() -> None:
    perfect = b"for (i = 0; i < n; i++)\n  for (j = 0; j < n; j++) {\n    a[i][j] = 0;\n  }"
    assert texts(b"void f(int n) {\n" + perfect + b"\n}\n", "c", "loop_nest") == [perfect]
    inner = b"for (j = 0; j < n; j++) s += a[j];"
    loop = b"while (go) {\n  double s = 0;\n  " + inner + b"\n}"
    assert texts(b"void f() { " + loop + b" }\n", "c", "loop_nest") == [loop, inner]


def test_loops_of_c() -> None:
    do = b"do { x--; } while (x);"
    assert texts(b"void f() { " + do + b" y = 1; }", "c", "loop_nest") == [do]
    bare = b"for (;;) if (a) b(';'); else { c; }"
    assert texts(b"void f() { " + bare + b" d; }", "c", "loop_nest") == [bare]
    assert texts(b'/* for (;;) x; */ char *s = "for (;;) x;";\n', "c", "loop_nest") == []
    assert texts(
        b"void f() { for (;;) {\n#ifdef A\nif (a) {\n#else\nif (b) {\n#endif\n} } }", "c", "loop_nest"
    )


def test_functions_of_c_and_cpp() -> None:
    content = (
        b"struct A { int x; };\nA::A() : x{1}, y(2) { go(); }\nint f(int a) const noexcept { return a; }\n"
    )
    assert texts(content, "cpp", "function") == [b" go(); ", b" return a; "]
    assert texts(
        b"int a[] = {1, 2};\nenum { B };\nnamespace n { void g() { h(); } }\n", "cpp", "function"
    ) == [b" h(); "]
    assert texts(b'extern "C" {\nint f(void)\n{\n  return 0;\n}\n}\n', "c", "function") == [
        b"\n  return 0;\n"
    ]


def test_kernels() -> None:
    content = b"__global__ void k(float *x) { x[0] = 1; }\nint main() { k<<<1, 2>>>(x); }\n"
    assert texts(content, "cuda", "kernel") == [b" x[0] = 1; "]
    assert texts(content, "cuda", "function") == [b" k<<<1, 2>>>(x); "]
    assert texts(b"__kernel void k(__global float *x) { x[0] = 1; }\n", "opencl", "kernel") == [
        b" x[0] = 1; "
    ]
    for head in (b"Kokkos::parallel_for(n, KOKKOS_LAMBDA(int i)", b"h.parallel_for<class K>(n, [=](id<1> i)",
                 b"RAJA::forall<policy>(range, [=] RAJA_DEVICE (int i)"):  # fmt: skip
        assert texts(b"void f() { " + head + b" { y[i] = 0; }); }\n", "cpp", "kernel") == [b" y[i] = 0; "]
    fortran = b"attributes(global) subroutine k(x)\n  real :: x(*)\nend subroutine\n"
    assert texts(fortran, FREE, "kernel") == [b"  real :: x(*)\n"]


def test_directives() -> None:
    content = (
        b"#pragma once\n#pragma omp parallel \\\n  for // why\n#pragma omp simd\nfor (;;);\n"
        b"#pragma GCC ivdep\n"
    )
    assert texts(content, "c", "directive") == [
        b"#pragma omp parallel \\\n  for ", b"#pragma omp simd", b"#pragma GCC ivdep",
    ]  # fmt: skip
    free = b"!$omp parallel do & ! why\n!$omp  & private(x)\n!$omp do\n!$ x = 1\n"
    assert texts(free, FREE, "directive") == [b"!$omp parallel do & ! why\n!$omp  & private(x)", b"!$omp do"]
    fixed = b"C$OMP PARALLEL DO\nC$OMP+PRIVATE(X)\nC$OMP DO\n"
    assert texts(fixed, FIXED, "directive") == [b"C$OMP PARALLEL DO\nC$OMP+PRIVATE(X)", b"C$OMP DO"]


def test_loops_of_fortran() -> None:
    nest = (
        b"  outer: do i = 1, n\n    do concurrent (j = 1:n)\n      a(i, j) = b & ! do\n        + c\n"
        b"    end do\n  end do outer"
    )
    content = b"subroutine s\n" + nest + b"\n  do while (go)\n    x = 1\n  enddo\nend subroutine\n"
    assert texts(content, FREE, "loop_nest") == [nest, b"  do while (go)\n    x = 1\n  enddo"]
    assert texts(content, FREE, "function") == [content[len(b"subroutine s\n") : -len(b"end subroutine\n")]]
    siblings = b"do i = 1, n\n do j = 1, n\n  x = 1\n end do\n do k = 1, n\n  y = 1\n end do\nend do"
    assert texts(siblings, FREE, "loop_nest") == [
        siblings, b" do j = 1, n\n  x = 1\n end do", b" do k = 1, n\n  y = 1\n end do",
    ]  # fmt: skip


def test_labelled_loops_end_with_their_last_statement() -> None:
    loop = (
        b"      DO 10 I = 1, N\n        DO 20 J = 1, N\n   20   CONTINUE\n   10 X(I) = A *\nC  between\n"
        b"     $       X(I)"
    )
    content = b"      SUBROUTINE S(N,\n     $  X)\n" + loop + b"\n      END\n"
    assert texts(content, FIXED, "loop_nest")[0] == loop
    assert texts(content, FIXED, "function") == [loop + b"\n"]
    shared = b"      do 10 i = 1, n\n      do 10 j = 1, n\n 10   continue"
    assert texts(shared, FIXED, "loop_nest") == [shared]


def test_units_of_fortran() -> None:
    content = (
        b"module m\n  interface\n    subroutine c(x)\n      real x\n    end subroutine\n  end interface\n"
        b"contains\n  pure real(8) function f(x) result(y)\n    y = x\n  end function f\n"
        b"  subroutine g\n    call f\n  end\n"
        b"end module\nprogram p\n  call g\nend program p\n"
    )
    assert texts(content, FREE, "function") == [b"    y = x\n", b"    call f\n", b"  call g\n"]


def test_kernels_of_this_project_have_loops_and_directives() -> None:
    root = Path(__file__).parents[2] / "examples" / "kernels"
    labels = {".c": "c", ".f": FIXED, ".f90": FREE, ".cu": "cuda"}
    files = sorted(path for path in root.rglob("parallel.*") if path.suffix in labels)
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        kinds = {span.kind for span in spans(content, labels[path.suffix])}
        assert {SpanKind.LOOP_NEST, SpanKind.FUNCTION} <= kinds, path
        assert (SpanKind.KERNEL in kinds) == (path.suffix == ".cu"), path
        assert (SpanKind.DIRECTIVE in kinds) == any(name in str(path) for name in ("openmp", "openacc")), path


def test_every_loop_is_found_with_those_inside_nests() -> None:
    text = b"for (;;)\n  for (i = 0; i < 2; i++) {\n    do { x(); } while (y);\n  }\n"
    assert [text[start : start + 3] for start, _ in loops(text, "c")] == [b"for", b"for", b"do "]
    assert [stop for _, stop in loops(text, "c")][:2] == [len(text) - 1] * 2
    free = b"do j = 1, n\n  do i = 1, n ! rows\n    x = 1\n  end do\nend do\n"
    assert [free[start:stop].count(b"do i") for start, stop in loops(free, FREE)] == [1, 1]
    labelled = b"      DO 10 I = 1, 2\n      DO 10 J = 1, 2\n   10 CONTINUE\n"
    assert {stop for _, stop in loops(labelled, FIXED)} == {len(labelled) - 1}
    assert len(loops(labelled, FIXED)) == 2


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(SCRAPS), max_size=60).map(b"".join), st.sampled_from([*LANGUAGES, "docs"]))
def test_loops_of_anything_lie_inside_and_hold_every_loop_nest(content: bytes, language: str) -> None:
    found = loops(content, language)
    assert all(0 <= start < stop <= len(content) for start, stop in found)
    if not language.startswith("fortran"):
        nests = {(s.start, s.stop) for s in spans(content, language) if s.kind is SpanKind.LOOP_NEST}
        assert nests <= set(found)
