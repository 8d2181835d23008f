"""Directives and kernel launches in every spelling, so that a tokenizer has pieces for those that are rare.

Declared as pieces of their own they would be cut out of each text first, and `!$omp parallel do` could be no
piece any more. As a little text to train on they cost nothing: docs/results-tokenizer.md.
"""

from __future__ import annotations

import string
from itertools import product

_SENTINELS = ("!$omp", "!$OMP", "c$omp", "C$OMP", "*$OMP", "!$acc", "!$ACC", "c$acc", "C$ACC")
_CLAUSES = (
    "parallel do", "end parallel do", "parallel", "end parallel", "parallel do private(", "do", "end do",
    "do schedule(", "single", "critical", "atomic", "barrier", "master", "sections", "task", "target",
    "teams", "target teams distribute", "simd", "private(", "firstprivate(", "shared(", "reduction(",
    "default(", "collapse(", "threadprivate(", "loop", "parallel loop", "kernels", "data", "end data",
    "enter data", "exit data", "update", "declare", "routine", "wait",
)  # fmt: skip
_MARKS = ("<<<", ">>>", "!DIR$ ", "!dir$ ")


def directive_text(size: int) -> bytes:
    """`size` bytes of directives with all sentinels, and of `<<<`, `>>>` and `!DIR$` before every letter."""
    lines = [
        f"{sentinel} {clause.upper() if sentinel[2:].isupper() else clause}\n"
        for clause, sentinel in product(_CLAUSES, _SENTINELS)
    ]
    lines += [f"{sentinel}& \n" for sentinel in _SENTINELS]
    lines += [f"{mark}{letter}\n" for letter, mark in product(string.ascii_letters + "_(", _MARKS)]
    text = "".join(lines).encode()
    return (text * (size // len(text) + 1))[:size]
