"""Shingles do not depend on comments, case, form and precision, and on everything else they do."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.normalise import Normaliser, fold_name_or_number

# {p}: precision letter, {t}: type, {e}: exponent letter. Blanks are where free form may break a line.
_STATEMENTS = (
    "integer :: i , n", "{t} :: alpha , {p}x ( * ) , {p}y ( * )", "do 10 i = 1 , n",
    "{p}y ( i ) = {p}y ( i ) + alpha * {p}x ( i ) * 1.5{e}0", "10 continue", "if ( n .le. 0 ) return",
    "call {p}scal ( n , alpha , {p}x , 1 )", "go to 20", "20 {p}work ( n ) = max ( {p}x ( 1 ) , 0.25{e}-3 )",
    "if ( n > 1 ) then", "else if ( n == 1 ) then", "end if", "!$omp parallel do", "print * , 'a ! b'",
    "i = i{p}amax ( n , {p}x , 1 ) + {p}lamch ( n )", "write ( 6 , * ) n , 'x''y'", "end do",
    "select case ( n )",
)  # fmt: skip
_PRECISIONS = {
    "s": {"p": "s", "t": "real", "e": "e"},
    "d": {"p": "d", "t": "double precision", "e": "d"},
    "c": {"p": "c", "t": "complex", "e": "e"},
    "z": {"p": "z", "t": "complex * 16", "e": "d"},
}
_PROGRAM = st.lists(st.sampled_from(_STATEMENTS), min_size=1, max_size=30)
_NOTES = ("call dgemm ( a )", "it's here", '"', "$", "C*", "&")


def _fixed(statement: str, draw: Callable[[int], int]) -> list[str]:
    """One statement in columns 7 to 72, its words on as many lines as drawn."""
    if statement.startswith("!$omp"):
        return [["!", "C", "*", "c"][draw(4)] + statement[1:]]
    label, text = re.match(r"(\d*) ?(.*)", statement).groups()  # type: ignore[union-attr]
    lines = [f"{label:<5} "]
    for word in re.findall(r"'(?:[^']|'')*'|\S+", text):
        if len(lines[-1]) + len(word) > 70 or (draw(6) == 0 and len(lines[-1]) > 6):
            lines.append("     " + "&$1+"[draw(4)])
        lines[-1] += word + " "
    return [f"{line:<72}CARD{draw(10)}" if draw(4) == 0 else line for line in lines]


def _free(statement: str, draw: Callable[[int], int]) -> list[str]:
    if statement.startswith("!$omp"):
        return [" " * draw(4) + statement]
    lines = [" " * draw(4)]
    for word in re.findall(r"'(?:[^']|'')*'|\S+", statement):
        if draw(6) == 0 and lines[-1].strip():
            lines[-1] += "&" + [" ! more & more", ""][draw(2)]
            lines.append(["  & ", ""][draw(2)])
        lines[-1] += word + " "
    return [*lines[:-1], lines[-1] + ["", "! note's end"][draw(2)]]


def _render(program: list[str], precision: str, form: str, seed: int) -> bytes:
    """The program as someone else might have typed it."""
    rng = np.random.default_rng(seed)

    def draw(below: int) -> int:
        return int(rng.integers(below))

    lines: list[str] = []
    for statement in program:
        if draw(4) == 0:
            start = ["!", "      !"][draw(2)] if form == "free" else "C*!c"[draw(4)]
            lines.append(f"{start} {_NOTES[draw(len(_NOTES))]}")
        lines += ["" for _ in range(draw(2))]
        parts = (_fixed if form == "fixed" else _free)(statement.format(**_PRECISIONS[precision]), draw)
        lines += [part.upper() if draw(2) else part for part in parts]
    return ["\n", "\r\n"][draw(2)].join(lines).encode() + b"\n"


@given(_PROGRAM, st.data())
def test_fortran_in_any_hand_is_the_same_program(program: list[str], data: st.DataObject) -> None:
    normaliser = Normaliser(3)
    plain = normaliser.shingles(_render(program, "s", "free", 0), "fortran-free")
    for form in ("fixed", "free"):
        precision = data.draw(st.sampled_from(sorted(_PRECISIONS)))
        content = _render(program, precision, form, data.draw(st.integers(0, 1 << 30)))
        assert normaliser.shingles(content, f"fortran-{form}").tolist() == plain.tolist(), content.decode()


@given(_PROGRAM, st.integers(0, 29), st.sampled_from(["fixed", "free"]))
def test_another_statement_is_another_program(program: list[str], place: int, form: str) -> None:
    normaliser, place = Normaliser(1), place % len(program)
    changed = [*program[:place], "call somethingelse ( n )", *program[place:]]
    one = normaliser.shingles(_render(program, "d", form, 1), f"fortran-{form}")
    other = normaliser.shingles(_render(changed, "d", form, 2), f"fortran-{form}")
    assert set(one.tolist()) < set(other.tolist())


_C = [
    "static",
    "real_t",
    "f",
    "(",
    "x",
    "[",
    "i",
    "]",
    "+=",
    "1.5",
    "dgemm_",
    ";",
    "{",
    "}",
    "#pragma omp for\n",
]


@given(st.lists(st.sampled_from(_C), max_size=40), st.integers(0, 1 << 30))
def test_c_is_the_same_without_its_comments_and_blanks(tokens: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = [" ", "\n", "\t/* x = 'y'; */ ", " // dgemm(\n", " \\\n "]
    written = "".join(token + gaps[int(rng.integers(5 if "#" not in token else 2))] for token in tokens)
    normaliser = Normaliser(2)
    plain = normaliser.shingles("\n".join(tokens).encode(), "c")
    assert normaliser.shingles(written.encode(), "cpp").tolist() == plain.tolist()


@pytest.mark.parametrize(
    "statement",
    ["do {0} i = 1, n\n{0} continue\n", "go to {0}\n{0} continue\n", "goto {0}\n{0} format (i5)\n"],
)
def test_statement_labels_may_be_other_numbers(statement: str) -> None:
    found = [Normaliser(3).shingles(statement.format(n).encode(), "fortran-free").tolist() for n in (10, 77)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "alike",
    [
        ["SGEMM", "dgemm", "Cgemm", "zgemm"],
        ["isamax", "idamax", "icamax", "izamax"],
        ["cblas_sgemm", "cblas_dgemm", "cblas_zgemm"],
        ["LAPACKE_sgetrf_work", "LAPACKE_dgetrf_work"],
        ["cublasSgemm", "cublasDgemm"],
        ["lapack_complex_float", "lapack_complex_double"],
        ["MPI_FLOAT", "MPI_DOUBLE"],
        ["1.0", "1.", "1.0d0", "1.0E+0", "1.0f", "1.0_dp", "10.e-1", "1.0L"],
        ["42", "42UL", "42_i8"],
    ],
)
def test_precision_is_folded(alike: list[str]) -> None:
    assert len({fold_name_or_number(token.encode()) for token in alike}) == 1


@pytest.mark.parametrize(
    "pair", [("x", "y"), ("1.0", "1"), ("1.0", "2.0"), ("dgemm", "dgemv"), ("0x10", "10")]
)
def test_what_differs_stays_apart(pair: tuple[str, str]) -> None:
    assert fold_name_or_number(pair[0].encode()) != fold_name_or_number(pair[1].encode())


@given(st.binary(max_size=200), st.sampled_from(["c", "cuda", "fortran-fixed", "fortran-free"]))
def test_any_bytes_have_shingles_in_order_and_once(content: bytes, language: str) -> None:
    found = Normaliser(5).shingles(content, language)
    assert (found[1:] > found[:-1]).all()


@given(st.lists(st.sampled_from(["a", "b", "if", "9"]), max_size=12), st.integers(1, 6))
def test_shingles_are_the_runs_of_tokens(tokens: list[str], length: int) -> None:
    runs = (
        {tuple(tokens[i : i + length]) for i in range(max(1, len(tokens) - length + 1))} if tokens else set()
    )
    assert len(Normaliser(length).shingles(" ".join(tokens).encode(), "c")) == len(runs)


def test_what_is_remembered_changes_nothing() -> None:
    used, text = Normaliser(2), b"dgemm(alpha, 1.0d0) + stride"
    for number in range(70_000):  # more than are remembered
        used._c[b"name%d" % number]
    assert used.shingles(text, "c").tolist() == Normaliser(2).shingles(text, "c").tolist()
