"""Places in source text: lines, and heads of functions."""

from __future__ import annotations

import re

_HEAD_LINES = 12
_ENDS_WHAT_WAS_BEFORE = re.compile(rb"^\s*(?:$|#|//)|[;}]\s*(?://.*|/\*.*\*/\s*)?$|\*/\s*$")
_FORTRAN_HEAD = re.compile(rb"\b(?:subroutine|function|program|procedure)\b", re.IGNORECASE)


def line_start(content: bytes, position: int) -> int:
    """Offset of the first byte of the line that holds `position`."""
    return content.rfind(b"\n", 0, position) + 1


def line_stop(content: bytes, position: int) -> int:
    """Offset of the line end at or after `position`, or the size."""
    stop = content.find(b"\n", position)
    return len(content) if stop < 0 else stop


def next_line(content: bytes, position: int) -> int:
    """Offset of the line after the one that holds `position`, or the size."""
    return min(len(content), line_stop(content, position) + 1)


def decoded(text: bytes) -> str | None:
    """UTF-8 text with plain line ends; None if it is not UTF-8."""
    try:
        return text.decode("utf-8").replace("\r\n", "\n").rstrip("\r")
    except UnicodeDecodeError:
        return None


def head_of_body(content: bytes, language: str, body: int) -> int:
    """Offset of the line where the head of a function begins whose body starts at `body`.

    In C the lines above the brace, up to a blank line or the end of something else; in Fortran up to the line
    that names the procedure. At most twelve lines are looked at.
    """
    is_fortran = language.startswith("fortran")
    start = line_start(content, body if is_fortran else body - 1)
    for _ in range(_HEAD_LINES):
        if start == 0:
            break
        above = line_start(content, start - 1)
        line = content[above : start - 1]
        if not is_fortran and _ENDS_WHAT_WAS_BEFORE.search(line):
            break
        start = above
        if is_fortran and _FORTRAN_HEAD.search(line):
            break
    return start
