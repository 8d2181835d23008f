"""What makes two files the same program text: shingles of tokens without all that copies differ in for no reason.

Left out or folded are comments, strings, blanks and line breaks, Fortran's case and form, and precision: LAPACK's
`dgemm` is `sgemm` with other letters. Letters are folded everywhere, so that a name is the same wherever it stands:
`double`, `float` and `complex` are one type, `1.0d0` and `1.0f` one number, and a word of a name loses the s, d, c
and z it starts with. That makes a few names equal that are not (`size` and `dize`), never two equal names unequal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import xxhash

from hpctrain.corpus.lexer import code_tokens
from hpctrain.corpus.minhash import Hashes, mix

_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)

_KIND = rb"(?: \* \d+| \( (?:kind = \w+|\d+|\w{0,3}[dsqwr]p|r(?:eal)?\d+|rk|dbl) \))"
_FORTRAN_TYPE = re.compile(rb"\bdouble (?:precision|complex)\b|\b(?:real|complex)\b%s?" % _KIND)
_FORTRAN_PHRASE = re.compile(
    rb"\b(end|else|go|in|select) "
    rb"(if|do|to|out|where|case|select|subroutine|function|program|module|interface|type|associate|block|file)\b"
)
_OPERATORS = {
    b".eq.": b"==", b".ne.": b"/=", b".lt.": b"<", b".le.": b"<=", b".gt.": b">", b".ge.": b">=",
    b"(/": b"[", b"/)": b"]", b"::": b"", b"&": b"",
}  # fmt: skip
_TYPES = re.compile(
    rb"(?:(?:lapack_)?complex_?|cu|hip|magma|hypre_)?_?(?:float|double)_?(?:complex)?(?:_t)?|double(?:complex|precision)|real|complex"
)
_PRECISION = re.compile(rb"(?<![a-zA-Z0-9])(i?)[sdczSDCZ]+(?=[a-zA-Z]{2})|(?<=[a-z])[SDCZ](?=[a-z]{3})")
_NUMBER = re.compile(rb"(\d+\.?\d*|\.\d+)(?:[edED]([+-]?\d+))?(?:_\w+|[fFlLuU]*)\Z")


def normal_tokens(content: bytes, language: str) -> list[bytes]:
    """The tokens of a document as copies share them, in order."""
    tokens: Iterable[bytes] = code_tokens(content, language)
    if language.startswith("fortran"):
        text = b" ".join(tokens).lower()
        tokens = _FORTRAN_PHRASE.sub(rb"\1\2", _FORTRAN_TYPE.sub(b"real", text)).split()
        folded = _Folded(_fold_fortran)
    else:
        folded = _Folded(_fold_c)
    return [token for token in map(folded.__getitem__, tokens) if token]
