"""Where a function ends that is being written: by braces in C, by `end` statements in Fortran."""

from __future__ import annotations

import re

from hpctrain.corpus.c_structure import AGGREGATE, CONTROL, FUNCTION_HEAD, first_branches
from hpctrain.corpus.fortran_structure import STATEMENT, joined_statements

_BOUNDARY = re.compile(rb"[;{}]")
_LINKAGE = re.compile(rb"\bextern\s*\Z")
_HEAD_BYTES = 4096


def find_function_end(content: bytes, language: str, after: int) -> int | None:
    """The offset behind the first function that ends at or after offset `after`, or None.

    A function in a class, namespace or module is one, what is defined inside a function is part of it. The
    end of a function whose beginning is not in `content` counts too. In Fortran only whole lines count.
    """
    if language.startswith("fortran"):
        return _fortran_end(content, language, after)
    return _c_end(content, language, after)


def _c_end(content: bytes, language: str, after: int) -> int | None:
    text = first_branches(content, language)
    stack: list[str] = []  # what each open brace belongs to
    boundary = 0
    for found in _BOUNDARY.finditer(text):
        if found[0] == b"{":
            head = text[max(boundary, found.start() - _HEAD_BYTES) : found.start()]
            stack.append("inner" if "function" in stack else _kind(head))
        elif found[0] == b"}":
            closed = stack.pop() if stack else "function"
            if closed == "function" and found.start() >= after:
                return found.end()
        boundary = found.end()
    return None


def _kind(head: bytes) -> str:
    """What a brace after this text opens."""
    if AGGREGATE.search(head) or _LINKAGE.search(head):
        return "scope"
    return "function" if FUNCTION_HEAD.search(head) and not CONTROL.match(head) else "other"


def _fortran_end(content: bytes, language: str, after: int) -> int | None:
    stack: list[str] = []
    interfaces = start = 0
    for line in joined_statements(content, language).split(b"\n"):
        stop = start + len(line) + 1
        if stop > len(content):
            return None  # what stands in it is not yet known
        statement = STATEMENT.match(line)
        word = statement.lastgroup if statement else None
        interfaces = max(0, interfaces + (word == "interface") - (word == "end_interface"))
        if interfaces == 0:
            if word == "procedure":
                stack.append("function")
            elif word == "host":
                stack.append("function" if line.lstrip()[:1] in b"pP" else "scope")
            elif word == "end":
                closed = stack.pop() if stack else "function"
                if closed == "function" and "function" not in stack and start >= after:
                    return stop
        start = stop
    return None
