"""The lexer, on the cases that regular expressions get wrong, on any bytes, and on real files."""

from __future__ import annotations

import sysconfig
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.lexer import LIVE, Kind, code_tokens, mask, regions

C, CPP, CUDA, FIXED, FREE = "c", "cpp", "cuda", "fortran-fixed", "fortran-free"
SCRAPS = [
    b"\n", b"\r\n", b"\r", b" ", b"     ", b"\t", b"\\", b"\\\n", b"!", b"!$", b"!$omp", b"c$omp", b"*$acc",
    b"'", b'"', b"''", b"/*", b"*/", b"//", b"#", b"&", b"#define ", b"#pragma omp ", b"#include ", b'R"x(',
    b')x"',    b"c ", b"*", b"5hab", b"(", b")", b"{", b"}", b"x", b"do i=1,n", b"1'0", b"_Pragma(",
    b"\0", b"\xff", b"     &", b"a" * 70,
]  # fmt: skip
messy = st.lists(st.one_of(st.sampled_from(SCRAPS), st.binary(max_size=4)), max_size=40).map(b"".join)


def of_kind(content: bytes, language: str, kind: Kind) -> list[bytes]:
    return [content[start:stop] for each, start, stop in regions(content, language) if each is kind]


def comments(content: bytes, language: str) -> list[bytes]:
    return of_kind(content, language, Kind.COMMENT)


def directives(content: bytes, language: str) -> list[bytes]:
    return of_kind(content, language, Kind.DIRECTIVE)


def strings(content: bytes, language: str) -> list[bytes]:
    return of_kind(content, language, Kind.STRING)


def assert_partition(content: bytes, language: str) -> None:
    position = 0
    for _, start, stop in regions(content, language):
        assert start == position < stop, (language, content)
        position = stop
    assert position == len(content)


@settings(max_examples=1000, deadline=None)
@given(messy, st.sampled_from([*LANGUAGES, "docs"]))
def test_every_byte_of_anything_is_in_one_region(content: bytes, language: str) -> None:
    assert_partition(content, language)
    masked = mask(content, language)
    assert len(masked) == len(content)
    assert [i for i, byte in enumerate(masked) if byte == 10] == [i for i, b in enumerate(content) if b == 10]
    assert all(token.strip() for token in code_tokens(content, language))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(LANGUAGES))
def test_any_bytes_are_partitioned(content: bytes, language: str) -> None:
    assert_partition(content, language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "opening", [b'"', b"'", b'R"(', b"//", b"/*", b"#", b'#define A "', b"!", b"!$omp ", b"'&"]
)
@pytest.mark.parametrize("end", [b"\\", b"\\\r", b"\\\n", b"\\\\", b"&", b"", b"\r"])
def test_a_file_may_end_anywhere(language: str, opening: bytes, end: bytes) -> None:
    assert_partition(b"x " + opening + b"a" + end, language)
    assert_partition(opening + end, language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "scrap", [b"#", b"/*", b'"', b"'", b"!", b"&", b" ", b"\\", b'R"(', b"5h", b"/*\n", b"     &\n", b"\n'"]
)
def test_time_is_linear_in_hostile_text(language: str, scrap: bytes) -> None:
    content = scrap * 200_000  # quadratic time would not end within the test's timeout
    assert sum(stop - start for _, start, stop in regions(content, language)) == len(content)


# --- Fortran ---


def test_statements_that_begin_with_c_are_code_in_free_form() -> None:
    content = b"program p\ncall mpi_init(ierr)\nc = 1\ncontains\nend program\n"
    assert comments(content, FREE) == []
    assert b"mpi_init" in set(code_tokens(content, FREE))


@pytest.mark.parametrize("mark", [b"C", b"c", b"*", b"!"])
def test_column_1_comments_of_fixed_form(mark: bytes) -> None:
    content = mark + b" call mpi_init ' of nothing\n      call g\n"
    assert comments(content, FIXED) == [content.split(b"\n")[0]]
    assert list(code_tokens(content, FIXED)) == [b"call", b"g"]


@pytest.mark.parametrize(
    "sentinel",
    [b"c$omp", b"C$OMP", b"*$omp", b"!$omp", b"!$OMP", b"c$acc", b"*$ACC", b"!$acc", b"cDIR$", b"!dec$"],
)
def test_sentinels_of_fixed_form(sentinel: bytes) -> None:
    content = sentinel + b" parallel do\n      do i = 1, n\n"
    assert directives(content, FIXED) == [sentinel + b" parallel do"]
    assert comments(content, FIXED) == []


@pytest.mark.parametrize("sentinel", [b"!$omp", b"!$OMP", b"!$Acc", b"!DIR$", b"!$cuf", b"!$ompx", b"!IBM*"])
def test_sentinels_of_free_form(sentinel: bytes) -> None:
    content = b"  " + sentinel + b" parallel do ! why\nx = 1 " + sentinel + b" no\n"
    assert directives(content, FREE) == [sentinel + b" parallel do "]
    assert comments(content, FREE) == [b"! why", sentinel + b" no"]


def test_what_only_resembles_a_sentinel_is_a_comment() -> None:
    assert directives(b"!$ompare nothing\n!$\n!$price is 3\n", FREE) == []
    assert directives(b"c$accident\nc $omp do\n      !$omp do\n", FIXED) == []


def test_bare_sentinels_begin_conditional_code() -> None:
    content = b"!$ id = omp_get_thread_num() ! mine\n"
    assert directives(content, FREE) == [b"!$"]
    assert comments(content, FREE) == [b"! mine"]
    for mark in (b"!$", b"c$", b"C$", b"*$"):
        content = mark + b"    call f('a',\n" + mark + b"   & 'b')\n"
        assert directives(content, FIXED) == [mark, mark]
        call = [b"!", b"$", b"call", b"f", b"(", b'""', b",", b"!", b"$", b'""', b")"]
        assert list(code_tokens(content, FIXED)) == call


def test_continued_directives() -> None:
    free = (
        b"!$omp parallel do &\n!$omp& private(x) &\n  !$omp   & shared(y) & ! both\n!$omp default(none)\n"
        b"!$omp do\n"
    )
    assert directives(free, FREE) == [
        b"!$omp parallel do ", b" private(x) ", b" shared(y) ", b" default(none)", b"!$omp do",
    ]  # fmt: skip
    fixed = b"c$omp parallel do\nc$omp& private(x)\n*$omp1 shared(y)\nc$omp0default(none)\n"
    assert directives(fixed, FIXED) == [
        b"c$omp parallel do", b" private(x)", b" shared(y)", b"c$omp0default(none)",
    ]  # fmt: skip


def test_exclamation_marks_in_strings_are_no_comments() -> None:
    free = b"print *, 'no ! comment', \"it's !\" ! but this\nx = 'a''! b' // 'c'\n"
    assert comments(free, FREE) == [b"! but this"]
    assert strings(free, FREE) == [b"'no ! comment'", b'"it\'s !"', b"'a'", b"'! b'", b"'c'"]
    fixed = b"      print *, 'no ! comment', \"it's !\" ! but this\n"
    assert comments(fixed, FIXED) == [b"! but this"]


def test_strings_that_go_on_over_lines() -> None:
    free = b"x = 'one &\n  ! comment or not\n  &two ! not' // y ! yes\n"
    assert strings(free, FREE) == [b"'one &\n  ! comment or not\n  &two ! not'"]
    assert comments(free, FREE) == [b"! yes"]
    fixed = b"      x = 'one ! and\nc a comment with a '\n     & two ! not' // y ! yes\n      y = 'it''s'\n"
    assert strings(fixed, FIXED) == [b"'one ! and", b" two ! not'", b"'it''s'"]
    assert comments(fixed, FIXED) == [b"c a comment with a '", b"! yes"]


def test_a_string_left_open_ends_with_its_statement() -> None:
    assert list(code_tokens(b"      x = 'open\n      call f\n", FIXED)) == [b"x", b"=", b'""', b"call", b"f"]
    assert list(code_tokens(b"x = 'open\ncall f\n", FREE)) == [b"x", b"=", b'""', b"call", b"f"]


@pytest.mark.parametrize("mark", [b"&", b"$", b"1", b"+", b"!", b"c", b"#", b"*", b"/"])
def test_column_6_continues(mark: bytes) -> None:
    content = b"      x = a\n     " + mark + b" + b\n"
    assert of_kind(content, FIXED, Kind.CONTINUATION) == [b"     " + mark]
    assert list(code_tokens(content, FIXED)) == [b"x", b"=", b"a", b"+", b"b"]
    tabbed = b"\tx = a\n\t1 + b\n"
    assert list(code_tokens(tabbed, FIXED)) == [b"x", b"=", b"a", b"+", b"b"]
    assert of_kind(b"     0x = a\n", FIXED, Kind.CONTINUATION) == []


def test_text_past_column_72_is_a_comment() -> None:
    statement = b"      x = a + b".ljust(72)
    assert comments(statement + b"CARD0010\n      end\n", FIXED) == [b"CARD0010"]
    assert comments(statement + b"&\n     &  + c\n", FIXED) == [b"&"]
    tabbed = b"\tx = a".ljust(67) + b"CARD\n"
    assert comments(tabbed, FIXED) == [b"CARD"]
    directive = b"c$omp parallel do".ljust(72) + b"CARD0010\n"
    assert comments(directive, FIXED) == [b"CARD0010"]
    assert comments(b"x = a".ljust(80) + b"+ b\n", FREE) == []


def test_files_written_for_132_columns_are_read_so() -> None:
    content = b"      call a_rather_long_subroutine_name(first_argument, second_argument, third)\n" * 3
    assert comments(content, FIXED) == []
    cut = comments(b"      x = a".ljust(132, b"b") + b"cut\n", FIXED)
    assert cut == [b"cut"]


def test_hollerith_constants_are_strings() -> None:
    content = b"   10 format(1x,7hdon't !,i3)\n      data a/4habcd/, b/2*2h'!/\n"
    assert strings(content, FIXED) == [b"7hdon't !", b"4habcd", b"2h'!"]
    assert comments(content, FIXED) == []
    assert strings(b"      x2h = 3\n      do 10 h = 1, 2\n      real*8hours\n", FIXED) == []


@pytest.mark.parametrize("form", [FIXED, FREE])
def test_preprocessor_in_fortran_keeps_all_branches(form: str) -> None:
    content = (
        b"#ifdef _OPENMP /* don't */\n      call omp_set_num_threads(2)\n#else\n      call serial\n#endif\n"
        b"#define A \\\n  b\n/* a comment\n   that isn't Fortran */\n      end\n"
    )
    kept = of_kind(content, form, Kind.PREPROCESSOR)
    assert kept == [b"#ifdef _OPENMP ", b"#else", b"#endif", b"#define A \\\n  b"]
    assert {b"omp_set_num_threads", b"serial"} <= set(code_tokens(content, form))
    assert comments(content, form) == [b"/* don't */", b"/* a comment\n   that isn't Fortran */"]


def test_both_forms_give_the_same_tokens() -> None:
    fixed = (
        b"c  comment\n      subroutine s(a,\n     $   b)\nc$omp parallel do private(i)\nc$omp& shared(a)\n"
        b"      a = 1.d0**2 .and. x.eq.2 // 'it''s\n     & long'\n      end\n"
    )
    free = (
        b"! comment\nsubroutine s(a, & ! remark\n   & b)\n!$omp parallel do private(i) &\n!$omp shared(a)\n"
        b"a = 1.d0**2 .and. x.eq.2 // 'it''s &\n & long'\nend\n"
    )
    tokens = list(code_tokens(fixed, FIXED))
    assert tokens == list(code_tokens(free, FREE))
    assert {b"1.d0", b"**", b".and.", b"2", b".eq.", b"omp"} <= set(tokens)


# --- C and its family ---


def test_strings_and_comments_in_c() -> None:
    content = b'a = "/* no */ // \\" "; /* a "b */ c = \'"\'; // it\'s\nd = 1 / *e;\n'
    assert strings(content, C) == [b'"/* no */ // \\" "', b"'\"'"]
    assert comments(content, C) == [b'/* a "b */', b"// it's"]


def test_comments_do_not_nest() -> None:
    assert comments(b"/* a /* b */ c */\n", C) == [b"/* a /* b */"]


def test_line_splices() -> None:
    content = b"// one \\\n two\nx; /\\\n/ three \\\\\r\n four\ny; /\\\n* five */ z\n"
    assert comments(content, C) == [b"// one \\\n two", b"/\\\n/ three \\\\\r\n four", b"/\\\n* five */"]
    assert list(code_tokens(b"#pragma omp parallel \\\n  for\nx\n", C)) == [
        b"#", b"pragma", b"omp", b"parallel", b"for", b"x",
    ]  # fmt: skip
    assert directives(b"#pragma omp parallel \\\n  for\nx\n", C) == [b"#pragma omp parallel \\\n  for"]


def test_raw_strings() -> None:
    content = b'a = R"(no " // comment)"; b = u8R"x(a )" b)x"; c = LR"(")"; // yes\n'
    assert strings(content, CPP) == [b'R"(no " // comment)"', b'R"x(a )" b)x"', b'R"(")"']
    assert comments(content, CPP) == [b"// yes"]
    assert strings(b'FOR"(a" b\n', CPP) == [b'"(a"']
    assert strings(b'#define R x\nR"(a" b // "\n', C) == [b'"(a"']


def test_digit_separators_and_stray_apostrophes() -> None:
    assert strings(b"x = 1'000'000; y = 0xff'ff; z = L'a';\n", CPP) == [b"'a'"]
    assert comments(b"#if 0\ndon't /* here */\n#endif\n", C) == [b"/* here */"]


def test_digraphs_and_trigraphs_mean_nothing() -> None:
    content = b"%:define A\n// what??/\nx;\n"
    assert of_kind(content, C, Kind.PREPROCESSOR) == []
    assert comments(content, C) == [b"// what??/"]


def test_preprocessor_lines() -> None:
    content = (
        b'#include "a//b.h" // why\n  # define S "text" /* a\n b */ 1 \\\n 2\n#pragma once\nx # y\n'
        b"#error don't\n#ifdef _OPENMP\nf();\n#else\ng();\n#endif"
    )
    assert of_kind(content, C, Kind.PREPROCESSOR) == [
        b'#include "a//b.h" ', b"# define S ", b" ", b" 1 \\\n 2", b"#pragma once", b"#error don't",
        b"#ifdef _OPENMP", b"#else", b"#endif",
    ]  # fmt: skip
    assert comments(content, C) == [b"// why", b"/* a\n b */"]
    assert {b"f", b"g"} <= set(code_tokens(content, C))


def test_pragma_operator_is_a_directive() -> None:
    content = b'#define PAR _Pragma("omp parallel")\n_Pragma( "acc loop" ) f("omp");\n'
    assert directives(content, C) == [b'"omp parallel"', b'"acc loop"']


def test_tokens_of_kernel_launches() -> None:
    launch = [b"f", b"<<<", b"1", b",", b"n", b">>>", b"(", b"x", b")", b";"]
    assert list(code_tokens(b"f<<<1, n>>>(x);", CUDA)) == launch
    assert list(code_tokens(b"call f<<<1, n>>>(x)", FREE))[1:9] == launch[:8]
    assert list(code_tokens(b"A<B<C<int>>> x;", CPP)).count(b">>") == 1


def test_numbers_and_operators_of_c() -> None:
    content = b"x = 1.5e-3f+0x1p-2 - 1'000u; p->q <<= a <=> b; c ? d::e : .5;"
    tokens = [b"x", b"=", b"1.5e-3f", b"+", b"0x1p-2", b"-", b"1'000u", b";", b"p", b"->", b"q", b"<<=", b"a",
              b"<=>", b"b", b";", b"c", b"?", b"d", b"::", b"e", b":", b".5", b";"]  # fmt: skip
    assert list(code_tokens(content, CPP)) == tokens


def test_line_ends_of_old_macs() -> None:
    assert comments(b"! one\rcall f\r", FREE) == [b"! one"]
    assert comments(b"// one\rf();\r", C) == [b"// one"]


def test_mask_keeps_offsets() -> None:
    content = b'a /* b\n c */ d "e" // f\n'
    assert mask(content, C) == b"a     \n      d         \n"
    assert mask(content, C, {Kind.COMMENT}) == b"  /* b\n c */       // f\n"
    assert Kind.COMMENT not in LIVE


def real_files() -> list[tuple[Path, str]]:
    suffixes = {".h": CPP, ".c": C, ".f": FIXED, ".f90": FREE, ".cu": CUDA}
    roots = [
        Path(np.__file__).parent,
        Path(sysconfig.get_path("include")),
        Path(__file__).parents[2] / "examples",
    ]
    found = (path for root in roots for path in sorted(root.rglob("*")) if path.suffix in suffixes)
    return [(path, suffixes[path.suffix]) for path in islice(found, 400)]


def test_real_files_are_partitioned() -> None:
    files = real_files()
    assert len(files) > 50
    for path, language in files:
        assert_partition(path.read_bytes(), language)
