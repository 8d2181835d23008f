"""Where the parts of a program lie that matter in HPC: loop nests, directives, kernels, bodies of functions.

Found by keywords and matching brackets in the mask of a file, without a parser: code that is cut by
conditions of the preprocessor, or hidden in macros, gives fewer spans. In C, the first branch of a condition
counts, so that brackets match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from hpctrain.corpus.c_structure import find_c_loops, find_c_spans
from hpctrain.corpus.fortran_structure import find_fortran_loops, find_fortran_spans
from hpctrain.corpus.lexer import Kind, regions


class SpanKind(Enum):
    """What a span holds."""

    LOOP_NEST = "loop_nest"
    """A loop with all in it. A loop that is all that another holds is part of the other's nest."""
    DIRECTIVE = "directive"
    """A directive with its continuation lines."""
    KERNEL = "kernel"
    """The body of a GPU kernel: a function, or the lambda of a Kokkos, RAJA or SYCL loop."""
    FUNCTION = "function"
    """The body of any other function or subroutine, without its head and its end."""


class Span(NamedTuple):
    """A part of a file."""

    kind: SpanKind
    start: int
    """Offset of the first byte. Loop nests and bodies in Fortran begin with a line, as columns matter."""
    stop: int
    """Offset after the last byte."""


_TELLING_PRAGMA = re.compile(
    rb"#\s*pragma\s+(?:omp|acc|simd|ivdep|unroll|vector|nounroll|GCC\s+(?:ivdep|unroll)|clang\s+loop|_NEC|loop)"
)


def spans(content: bytes, language: str) -> list[Span]:
    """The spans of a file by start, longer first. They may nest but do not cross. Blank ones are left out.

    `language` is a label of the corpus; languages that are not programs have no spans.
    """
    is_fortran = language.startswith("fortran")
    found = find_fortran_spans(content, language) if is_fortran else find_c_spans(content, language)
    every = [Span(SpanKind(kind), start, stop) for kind, start, stop in found]
    every += (Span(SpanKind.DIRECTIVE, *extent) for extent in _directives(content, language))
    held = (span for span in every if content[span.start : span.stop].strip())
    return sorted(held, key=lambda span: (span.start, -span.stop, span.kind.value))


def loops(content: bytes, language: str) -> list[tuple[int, int]]:
    """The (start, stop) of every loop of a file by start, longer first; nests are not joined, see `spans`."""
    is_fortran = language.startswith("fortran")
    found = find_fortran_loops(content, language) if is_fortran else find_c_loops(content, language)
    return sorted(found, key=lambda extent: (extent[0], -extent[1]))


def _directives(content: bytes, language: str) -> Iterator[tuple[int, int]]:
    """Where the directives with something to say begin and end."""
    extent: tuple[int, int] | None = None
    same_line = joined = False
    for kind, start, stop in regions(content, language):
        if kind is Kind.DIRECTIVE and not content.startswith(b'"', start):
            if extent and (same_line or joined):
                extent = extent[0], stop
            else:
                yield from _if_telling(content, extent)
                extent = start, stop
            same_line, joined = True, False
        elif kind is Kind.CONTINUATION:
            joined = True
        elif kind is Kind.CODE:
            same_line = same_line and b"\n" not in content[start:stop]
            joined = joined and not content[start:stop].strip()
    yield from _if_telling(content, extent)


def _if_telling(content: bytes, extent: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    if extent is None:
        return
    text = content[slice(*extent)]
    if _TELLING_PRAGMA.match(text) if text.startswith(b"#") else len(text) > len(b"!$"):
        yield extent
