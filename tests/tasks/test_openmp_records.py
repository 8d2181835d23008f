"""Loops and their directives: what is found, what is asked, what two directives have in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.document import Document
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.directive import Directive, find_directives, parse_directive
from hpctrain.tasks.openmp import loops_with_directives, openmp_records
from hpctrain.tasks.record import Record

C = b"""\
#include <stddef.h>

static int unrelated;

/* Adds. */
double sum(size_t n, const double *x)
{
    double s = 0;
#pragma omp parallel for reduction(+ : s) \\
    schedule(static) // all alike
    for (size_t i = 0; i < n; ++i) {
#pragma omp simd
        for (int k = 0; k < 2; ++k)
            s += x[i];
    }
#ifdef _OPENMP
#pragma omp parallel for
#endif
    for (size_t i = 0; i < n; ++i)
        s += 1;
    /* #pragma omp parallel for */
    while (s < 0)
        s++;
#pragma omp parallel
    for (size_t i = 0; i < n; ++i)
        s += 1;
    return s;
}
"""
FIXED = b"""\
      SUBROUTINE SCALE(N, A, X)
      INTEGER N, I
      REAL A, X(N)
C$OMP PARALLEL DO DEFAULT(NONE)
C$OMP& PRIVATE(I) SHARED(N, A, X)
      DO 10 I = 1, N
         X(I) = A*X(I)
   10 CONTINUE
C$OMP END PARALLEL DO
      END
"""
FREE = b"""\
subroutine scale(n, a, x)
  integer :: n, i, j
  real :: a, x(n, n)
  ! over columns
  !$omp parallel do private(i, j) &
  !$omp   shared(a, x)
  do j = 1, n
    !$omp simd
    do i = 1, n
      x(i, j) = a*x(i, j)
    end do
  end do
  !$omp end parallel do
end subroutine scale
"""


def document(content: bytes, language: str, models: str = "openmp") -> Document:
    return Document("tree", f"src/code.{language}", language, "MIT", "family", "train", content, models)


def records(content: bytes, language: str, **options: object) -> list[Record]:
    task = TaskConfig.model_validate({"name": "openmp", "data": "data", "corpus": "corpus", **options})
    return list(openmp_records(document(content, language), task))


def test_c_loops_of_directives_are_found_also_inside_nests() -> None:
    found = [str(directive) for _, _, directive in loops_with_directives(C, "c")]
    assert found == ["parallel for reduction +(s) schedule(static)", "simd"]


def test_the_prompt_begins_with_the_function_and_ends_with_the_loop() -> None:
    outer, inner = records(C, "c")
    assert outer.prompt.startswith("double sum(size_t n")
    assert "#pragma omp parallel" not in outer.prompt
    assert outer.prompt.endswith("            s += x[i];\n    }\n")
    assert outer.response == "#pragma omp parallel for reduction(+ : s) \\\n    schedule(static)\n"
    assert outer.suffix is None
    assert inner.prompt.endswith("        for (int k = 0; k < 2; ++k)\n            s += x[i];\n")
    assert inner.response == "#pragma omp simd\n"


def test_in_place_the_three_parts_are_the_source() -> None:
    for content, language in ((C, "c"), (FREE, "fortran-free"), (FIXED, "fortran-fixed")):
        for record in records(content, language, order="pragma-first"):
            assert record.suffix is not None
            text = (record.prompt + record.response + record.suffix).encode()
            remark = b" // all alike"  # is no part of the response
            assert text.replace(remark, b"") in content.replace(remark, b"")


@pytest.mark.parametrize(
    ("content", "language", "count"), [(FIXED, "fortran-fixed", 1), (FREE, "fortran-free", 2)]
)
def test_fortran_forms(content: bytes, language: str, count: int) -> None:
    found = records(content, language)
    assert len(found) == count
    first = found[0]
    assert first.prompt.lower().startswith(("      subroutine", "subroutine"))
    assert "$omp" not in first.prompt.lower() or "simd" in first.prompt
    assert "end parallel" not in first.prompt.lower()
    assert parse_directive(first.response.strip("\n").encode().lstrip(), language) is not None


def test_both_orders_have_ids_of_their_own_that_do_not_hang_on_place_or_blanks() -> None:
    both = records(FIXED, "fortran-fixed", order="both")
    assert len({record.id for record in both}) == 2
    moved = records(b"C moved down\n" + FIXED.lower(), "fortran-fixed", order="both")
    assert [record.id for record in moved] == [record.id for record in both]


def test_what_is_longer_than_the_limit_is_left_out_and_far_context_is_cut_at_a_line() -> None:
    assert records(C, "c", max_bytes=100) == []
    (record,) = records(FIXED, "fortran-fixed", context_bytes=30)
    assert record.prompt.startswith("      REAL A, X(N)\n")


def test_a_loop_that_is_compiled_only_under_openmp_counts_and_one_of_while_does_not() -> None:
    conditional = FIXED.replace(b"      DO 10 I", b"!$    DO 10 I")
    assert len(records(conditional, "fortran-fixed")) == 1
    assert records(FREE.replace(b"do j = 1, n", b"do while (j < n)"), "fortran-free", max_bytes=4000)[
        0
    ].response == ("    !$omp simd\n")


def test_other_programming_models_and_languages_give_nothing() -> None:
    task = TaskConfig.model_validate({"name": "openmp", "data": "data", "corpus": "corpus"})
    assert list(openmp_records(document(C, "c", models="mpi"), task)) == []
    assert list(openmp_records(document(C, "cuda"), task)) == []


def parsed(text: str, language: str = "c") -> Directive:
    found = parse_directive(text.encode(), language)
    assert found is not None
    return found


def test_directives_that_say_the_same_are_equal() -> None:
    assert parsed("#pragma omp parallel for private(i,j) shared( a )") == parsed(
        "#  pragma omp parallel for shared(a) private(j) \\\n private(i)"
    )
    assert parsed("!$OMP PARALLEL DO SCHEDULE(STATIC, 4)", "fortran-free") == parsed(
        "c$omp paralleldo\nc$omp&schedule(static,4)", "fortran-fixed"
    )
    assert parsed("#pragma omp for nowait") != parsed("#pragma omp for")
    assert parsed("#pragma omp parallel for reduction(+:s)") != parsed(
        "#pragma omp parallel for reduction(*:s)"
    )


def test_array_sections_scope_and_modifiers_are_no_commas_or_colons_of_the_list() -> None:
    directive = parsed("#pragma omp target map(tofrom : a[0:n], b) map(to: m[i::2]) depend(in: N::x) if(a,b)")
    assert directive.clauses == {
        ("map tofrom", "a[0:n]"), ("map tofrom", "b"), ("map to", "m[i::2]"), ("depend in", "N::x"),
        ("if", "a,b"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "on_loop", "alone"),
    [
        ("#pragma omp parallel for simd", True, True),
        ("#pragma omp for", True, False),
        ("#pragma omp simd", True, False),
        ("#pragma omp declare simd", False, False),
        ("#pragma omp ordered simd", False, False),
        ("#pragma omp parallel private(for)", False, False),
        ("#pragma omp target teams distribute parallel for", True, True),
    ],
)
def test_what_a_loop_must_follow(text: str, on_loop: bool, alone: bool) -> None:
    assert (parsed(text).is_on_loop, parsed(text).starts_team_on_loop) == (on_loop, alone)


_names = st.sampled_from(["i", "j", "sum", "a[0:n]", "x"])


@given(
    st.lists(_names, min_size=1, unique=True), st.lists(_names, min_size=1, unique=True), st.randoms(),
    st.sampled_from([" ", "  ", " \\\n ", "\t"]),
)  # fmt: skip
def test_order_and_blanks_do_not_matter(
    private: list[str], reduced: list[str], random: object, gap: str
) -> None:
    clauses = [f"private({','.join(private)})", f"reduction(+:{','.join(reduced)})", "schedule(dynamic,4)"]
    shuffle = random.shuffle  # type: ignore[attr-defined]
    first = parsed("#pragma omp parallel for " + " ".join(clauses))
    shuffle(private)
    shuffle(reduced)
    other = [f"private( {f'{gap},'.join(private)} )", f"reduction( + :{gap}{','.join(reduced)})", clauses[2]]
    shuffle(other)
    assert parsed(f"#pragma omp{gap}parallel{gap}for{gap}" + gap.join(other)) == first


@given(st.text(alphabet="#pragmo fr(),:\\\n!$&xc"), st.sampled_from(["c", "fortran-free", "fortran-fixed"]))
def test_any_text_can_be_searched(text: str, language: str) -> None:
    content = b"#pragma omp " + text.encode()
    for (start, stop), _ in find_directives(content, language):
        assert 0 <= start < stop <= len(content)
