"""What makes two files the same program: shingles of tokens, without all that copies differ in for no reason.

Left out or folded are comments, the text of strings, blanks and line breaks; Fortran's case, form, statement
labels and spellings; and precision, for LAPACK's `dgemm` is `sgemm` with other letters. Precision is folded
in every name alike: `double` and `float` are one type, `1.0d0` and `1.0f` one number, and a word of a name
loses the s, d, c and z it starts with. So some names become equal that are not (`size` and `dize`), but no
name becomes unequal to itself, and what is called a copy is decided by all tokens of a file, not by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import xxhash

from hpctrain.corpus.lexer import code_tokens
from hpctrain.corpus.minhash import Hashes, mix

_HELD_TOKENS = 1 << 16
_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)

# These see tokens in small letters with one blank between them.
_FORTRAN_SENTINEL = re.compile(rb"(?:(?<= )|\A)[c*] \$ (?=\w)")
_FORTRAN_TYPE = re.compile(
    rb"\bdouble (?:precision|complex)\b|\b(?:real|complex)\b"
    rb"(?: \* \d+| \( (?:kind = \w+|\d+|\w{0,3}[dsqwr]p|r(?:eal)?\d+|rk|dbl) \))?"
)
_FORTRAN_PHRASE = re.compile(
    rb"\b(end|else|go|in|select) "
    rb"(if|do|to|out|where|case|select|subroutine|function|program|module|interface|type|associate|block)\b"
)
_FORTRAN_LABEL = re.compile(rb"(?<=\bdo )\d+|(?<=\bgoto )\d+|\b\d+(?= (?:continue|format)\b)")
_FORTRAN_SPELLINGS = {
    b".eq.": b"==", b".ne.": b"/=", b".lt.": b"<", b".le.": b"<=", b".gt.": b">", b".ge.": b">=", b"::": b"",
    b"dble": b"real", b"sngl": b"real", b"aimag": b"imag", b"alog": b"log",
    b"amax1": b"max", b"dmax1": b"max", b"amin1": b"min", b"dmin1": b"min",
}  # fmt: skip

_TYPE_IN_NAME = re.compile(rb"(?i:double_precision|double|float)")
_PRECISION = re.compile(rb"(?<![a-zA-Z0-9])(i?)[sdczSDCZ]+(?=[a-zA-Z])|(?<=[a-z])[SDCZ](?=[a-z]{3})")
_NUMBER = re.compile(rb"(\d+\.?\d*|\.\d+)(?:[edED]([+-]?\d+))?(?:_\w+|[fFlLuU]*)\Z")


class Normaliser:
    """Turns content into shingles. It remembers tokens that it met, for speed only."""

    def __init__(self, shingle_tokens: int) -> None:
        self.shingle_tokens = shingle_tokens
        self._c, self._fortran = _Folded(fold_name_or_number), _Folded(_fold_fortran)

    def shingles(self, content: bytes, language: str) -> Hashes:
        """Hashes of every run of `shingle_tokens` normalised tokens, sorted and distinct."""
        tokens, known = list(code_tokens(content, language)), self._c
        if language.startswith("fortran"):
            tokens, known = _respell_fortran(tokens), self._fortran
        ids = np.fromiter(map(known.__getitem__, tokens), np.uint64, len(tokens))
        return np.unique(_hash_runs(ids[ids != 0], self.shingle_tokens))


def _respell_fortran(tokens: list[bytes]) -> list[bytes]:
    text = _FORTRAN_SENTINEL.sub(b"! $ ", b" ".join(tokens).lower())
    text = _FORTRAN_PHRASE.sub(rb"\1\2", _FORTRAN_TYPE.sub(b"real", text))
    return _FORTRAN_LABEL.sub(b"@", text).split()


def _hash_runs(ids: Hashes, length: int) -> Hashes:
    """A hash of each run of `length` values; one of all of them if they are fewer."""
    length = min(length, len(ids))
    runs = np.zeros(len(ids) - length + 1 if length else 0, np.uint64)
    for offset in range(length):
        runs = runs * _MULTIPLIER + ids[offset : offset + len(runs)]
    return mix(runs)


class _Folded(dict[bytes, int]):
    """From a token to the hash of its folded form, 0 for one that is left out."""

    def __init__(self, fold: Callable[[bytes], bytes]) -> None:
        self._fold = fold

    def __missing__(self, token: bytes) -> int:
        if len(self) >= _HELD_TOKENS:
            self.clear()
        folded = self._fold(token)
        self[token] = found = xxhash.xxh3_64_intdigest(folded) if folded else 0
        return found


def _fold_fortran(token: bytes) -> bytes:
    found = _FORTRAN_SPELLINGS.get(token)
    return fold_name_or_number(token) if found is None else found


def fold_name_or_number(token: bytes) -> bytes:
    """A name without case and precision, a number as its value; any other token as it is."""
    if token[:1] not in b"0123456789.":
        return _PRECISION.sub(rb"\1", _TYPE_IN_NAME.sub(b"real", token)).lower()
    number = _NUMBER.match(token)
    if number is None or (number[1].isdigit() and number[2] is None):
        return number[1] if number else token
    return repr(float(number[1] + b"e" + (number[2] or b"0"))).encode()
