"""Fortran's two source forms, told apart by columns; and what only shares Fortran's extensions."""

from __future__ import annotations

import re

_INSPECTED_BYTES = 1 << 16
_INSPECTED_LINES = 1000

_FORTRAN_STATEMENT = re.compile(
    rb"""^[ \t0-9]*(?:
      (?:pure[ ]|elemental[ ]|recursive[ ]|module[ ])*(?:subroutine|function)[ \t]+\w+[ \t]*(?:\(|\r?$)
    | (?:program|module)[ \t]+\w+[ \t\r]*$ | block[ \t]*data\b
    | end[ \t]*(?:if|do|subroutine|function|module|program|interface)\b
    | implicit[ \t]+(?:none|real|integer|double|\w+[ \t]*\()
    | (?:integer|real|logical|complex|character|double[ \t]*precision)
        (?:[ \t]*[*(][ \t]*[\w*=]+[ \t]*\)?)?[ \t]*(?:,[^:\n]*)?(?:::|[ \t])[ \t]*\w+
    | parameter[ \t]*\( | common[ \t]*/[ \t]*\w+[ \t]*/ | dimension[ \t]+\w+[ \t]*\(
    | (?:external|call)[ \t]+\w+ | use[ \t]+\w+[ \t]*(?:,|\r?$) | [!c*]\$(?:omp|acc)\b )""",
    re.MULTILINE | re.VERBOSE | re.IGNORECASE,
)
_C_STATEMENT = re.compile(
    rb"[;{}][ \t]*(?:/[/*][^\n]*)?$|^[ \t]*#[ \t]*(?:define|pragma)\b|/\*", re.MULTILINE
)
_FORTH_DEFINITION = re.compile(
    rb"^:[ \t]+\S+.*[ \t];[ \t\r]*$|^:[ \t]+\S+[ \t]+\([^)\n]*--[^)\n]*\)|^\\\s", re.MULTILINE
)

_FIXED_COMMENT = re.compile(rb"\*|[cC](?:\$\w+|\s*$|\s+(?![=%(])|[-=*#!>]{2,})")
_COLUMN_6 = re.compile(rb" {5}[^\s0!#a-zA-Z]|\t[1-9]")
_FREE_START = re.compile(rb" {0,4}(?i:[abe-z_]|call\s|contains\s*$|class\s|character\W|do\s)")


def find_fortran_form(content: bytes, presumed: str) -> str:
    """`fortran-fixed` or `fortran-free`, whichever the columns speak for; `presumed` if they are silent.

    Fixed form shows in `C` or `*` in column 1 and in continuation marks in column 6; free form in statements
    that start before column 6 and in lines that end in `&`. A trailing `&` past column 72 belongs to files
    written to be valid in both forms, and speaks for neither.
    """
    fixed = free = 0
    continued = False
    for line in content[:_INSPECTED_BYTES].split(b"\n")[:_INSPECTED_LINES]:
        line = line.rstrip()
        if line.lstrip()[:1] in b"#!":  # blank, preprocessor, or a comment in both forms
            continue
        if not continued:  # what a free statement goes on with may stand anywhere
            fixed += _FIXED_COMMENT.match(line) is not None or _COLUMN_6.match(line) is not None
            free += _FREE_START.match(line) is not None
        code = line.split(b"!", 1)[0].rstrip()
        continued = code.endswith(b"&") and len(code) <= 72 and len(code.strip()) > 1
        free += continued
    if fixed == free:
        return presumed
    return "fortran-fixed" if fixed > free else "fortran-free"


def is_fortran(content: bytes) -> bool:
    """True if a file with a shared extension (`.h`, `.inc`) reads as Fortran rather than C."""
    start = content[:_INSPECTED_BYTES]
    statements = len(_FORTRAN_STATEMENT.findall(start))
    return statements > 0 and statements > 2 * len(_C_STATEMENT.findall(start))


def is_forth(content: bytes) -> bool:
    """True if a file with a Fortran extension is Forth, which uses `.f` too."""
    start = content[:_INSPECTED_BYTES]
    definitions = len(_FORTH_DEFINITION.findall(start))
    return definitions >= 2 and definitions > len(_FORTRAN_STATEMENT.findall(start))
