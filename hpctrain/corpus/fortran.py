"""Fortran's two source forms, told apart by columns; and what only shares Fortran's extensions."""

from __future__ import annotations

import re

_INSPECTED_BYTES = 1 << 16
_INSPECTED_LINES = 2000

_FORTRAN_STATEMENT = re.compile(
    rb"""^[ \t0-9]*(?:
      (?:pure[ ]|elemental[ ]|recursive[ ]|module[ ])*(?:subroutine|function)[ \t]+\w+[ \t]*(?:\(|\r?$)
    | (?:program|module)[ \t]+\w+[ \t\r]*$ | block[ \t]*data\b
    | end[ \t]*(?:if|do|subroutine|function|module|program|interface)\b
    | implicit[ \t]+(?:none|real|integer|double|\w+[ \t]*\()
    | (?:integer|real|logical|complex|character|double[ \t]*precision)
        (?:[ \t]*[*(][ \t]*[\w*=]+(?:[ \t]*\))?)?[ \t]*(?:,[^:\n]*)?(?:::[ \t]*|(?<=[ \t]))\w+
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

_C_COMMENT = re.compile(rb"^(?! {5}/)[ \t]*/\*.*?\*/", re.MULTILINE | re.DOTALL)
# What is wrong in free form: comments in column 1, and continuation marks after a line that lacks its `&`.
_COLUMN_1_COMMENT = re.compile(rb"\*|[cC](?:\$\w|f2py\b|\s*\Z|\s+(?![\s=%(])|[-=*#!>]{2,})")
_COLUMN_6 = re.compile(rb" {5}[^\s0!#a-zA-Z]|\t[1-9](?!\d)")
# What is wrong in fixed form: a statement that begins before column 6. In column 1 a C or D begins a comment,
# so that there only what looks like a whole statement is evidence.
_EARLY_STATEMENT = re.compile(
    rb""" [ ]{1,4}[^\s\d] | [^\s\dcdCD*]
    | (?: call[ ]+\w+[ ]*(?:\(|\Z) | contains\s*\Z | do[ ]+\w+[ ]*= | do\s*\Z | class[ ]*[(d] | case[ ]*[(d]
      | character[ ]*[(*,:] | complex[ ]*[(,:] | c(?:lose|ycle)[ ]*(?:\(|\Z) | d(?:eallocate)[ ]*\( )""",
    re.IGNORECASE | re.VERBOSE,
)
_CARD_COLUMNS = 72


def find_fortran_form(content: bytes, presumed: str) -> str:
    """`fortran-fixed` or `fortran-free`, whichever the text breaks less; `presumed` if it suits both alike.

    Each line is tried under the rules of both forms. Files that are valid in both, with `&` in columns 73 and
    6, are what they are presumed to be.
    """
    wrong_fixed = wrong_free = 0
    continued = False  # whether the line before ends in `&`
    text = content[:_INSPECTED_BYTES].replace(b"\r", b"\n")
    head, close, tail = text.rpartition(b"*/")  # past the last one the pattern would search in vain, and long
    for line in (_C_COMMENT.sub(b"", head + close) + tail).split(b"\n")[:_INSPECTED_LINES]:
        line = line.rstrip()
        if line.lstrip()[:1] in b"#!":  # blank, preprocessor, or a comment in both forms
            continue
        marked = _COLUMN_6.match(line) is not None
        if _COLUMN_1_COMMENT.match(line):
            wrong_free += 1
            continue
        wrong_free += marked and not continued
        wrong_fixed += (continued and not marked) or _EARLY_STATEMENT.match(line) is not None
        code = line.split(b"!", 1)[0].rstrip()
        continued = code.endswith(b"&") and len(code.strip()) > 1
        wrong_fixed += continued and len(code) <= _CARD_COLUMNS
    if wrong_fixed == wrong_free:
        return presumed
    return "fortran-fixed" if wrong_free > wrong_fixed else "fortran-free"


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
