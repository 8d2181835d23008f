"""What a stretch of source text is: the vocabulary shared by the lexers and those who use them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What the bytes of a region are to a compiler."""

    CODE = "code"
    """Statements, and the blanks and line ends between them."""
    COMMENT = "comment"
    """Text that no compiler reads, also what stands past the last column of fixed form."""
    STRING = "string"
    """A literal in quotes, or a Hollerith constant. In fixed form, the part of it on one line."""
    DIRECTIVE = "directive"
    """A pragma, or a comment that compilers obey: `#pragma omp`, `!$acc`, `C$OMP`, `!DIR$`, a bare `!$`."""
    PREPROCESSOR = "preprocessor"
    """Any other line of the C preprocessor. All branches of conditions are kept."""
    CONTINUATION = "continuation"
    """Marks that only join lines: `&`, column 6 with the blanks before it, the sentinel repeated."""


class Region(NamedTuple):
    """A stretch of content that is one thing."""

    kind: Kind
    start: int
    """Offset of the first byte."""
    stop: int
    """Offset after the last byte."""


# Backslashes before a line end count one by one: only the last of them splices.
REST_OF_LOGICAL_LINE = re.compile(rb"[^\\\n]*(?:\\+(?:\r?\n)?[^\\\n]*)*")
"""To the end of a line, past every backslash that splices it to the next; the line end is left."""


def fill(found: Iterable[Region], size: int) -> Iterator[Region]:
    """All regions of `size` bytes, given those that are not code in order: what lies between them is code."""
    position = 0
    for region in found:
        if region.start > position:
            yield Region(Kind.CODE, position, region.start)
        if region.stop > region.start:
            yield region
        position = region.stop
    if position < size:
        yield Region(Kind.CODE, position, size)


def begins_line(content: bytes, position: int) -> bool:
    """True if only blanks stand before `position` on its line."""
    while position > 0 and content[position - 1] in b" \t\f\v":
        position -= 1
    return position == 0 or content[position - 1] == ord("\n")
