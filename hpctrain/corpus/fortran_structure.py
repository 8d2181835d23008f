"""Loop nests, kernels and procedure bodies of Fortran text, by keywords at the start of statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hpctrain.corpus.lexer import Kind, regions

_LINE_ENDS = bytes.maketrans(b"\n\r", b"  ")
_VISIBLE = bytes(set(range(256)) - set(b"\t\n\v\f\r "))
_TO_BLANKS = bytes.maketrans(_VISIBLE, b" " * len(_VISIBLE))
STATEMENT = re.compile(
    rb"""[ \t\r]*(?P<label>\d{1,5})?[ \t]*(?:
      (?:\w+[ \t]*:[ \t]*)?do(?:[ \t]+(?P<until>\d{1,5})[ \t]*,?)?
        (?=[ \t\r]*\Z|[ \t]*(?:while|concurrent)[ \t]*\(|(?:(?<=[\d,])|[ \t])[ \t]*\w+[ \t]*=)(?P<do>)
    | (?P<end_do>end[ \t]*do\b)
    | (?P<end_interface>end[ \t]*interface\b)
    | (?P<end>end(?:[ \t]*(?:subroutine|function|program|procedure|module|submodule|block[ \t]*data)\b
        [ \t]*\w*)?[ \t\r]*\Z)
    | (?P<interface>(?:abstract[ \t]+)?interface\b(?![ \t]*[=(%]))
    | (?P<host>(?:program|module(?![ \t]+(?:procedure|subroutine|function)\b)|submodule|block[ \t]*data)
        (?:[ \t]*\([\w: \t]+\))?[ \t]+\w+[ \t\r]*\Z)
    | (?P<procedure>(?:[a-z][\w*(),=: \t]{0,200}?[ \t)])??(?:subroutine|function)[ \t]+\w+[ \t\r]*
        (?:\(|\Z|result\b|bind\b) | module[ \t]+procedure[ \t]+\w+[ \t\r]*\Z)
    )?""",
    re.IGNORECASE | re.VERBOSE,
)
_CONTINUE = re.compile(rb"[ \t\d]*continue\s*", re.IGNORECASE)
_KERNEL = re.compile(rb"\battributes[ \t]*\([ \t]*(?:global|grid_global)[ \t]*\)", re.IGNORECASE)


@dataclass(slots=True)
class _Open:
    """A loop or a program unit whose end was not yet read."""

    kind: str
    """`loop_nest`, `kernel`, `function`, or "" for modules and block data, which hold no body."""
    start: int
    """Where the line of the loop, or the body of the unit, begins."""
    label: bytes = b""
    """The label that ends an old loop."""
    statements: int = 0
    """How many statements a loop has held, inner loops counted as one."""
    inner: tuple[int, int] | None = None
    """The extent of the last loop in a loop."""


def find_fortran_spans(content: bytes, language: str) -> Iterator[tuple[str, int, int]]:
    """The (kind, start, stop) of every loop nest, kernel and procedure body, in no order."""
    stack: list[_Open] = []
    interfaces = start = 0
    for line in joined_statements(content, language).split(b"\n"):
        stop = start + len(line.rstrip())
        statement = STATEMENT.match(line) if line and not line.isspace() else None
        if statement:
            word = statement.lastgroup or ""
            interfaces = max(0, interfaces + (word == "interface") - (word == "end_interface"))
            if interfaces == 0 and word != "end_interface":
                following = start + len(line) + 1
                yield from _read(stack, statement, line, (start, stop, following))
        start += len(line) + 1


def find_fortran_loops(content: bytes, language: str) -> Iterator[tuple[int, int]]:
    """The (start, stop) of every loop, also of those that are part of another's nest, inner ones first.

    A loop begins with its line. Loops that end with one labelled statement end together.
    """
    stack: list[tuple[int, bytes]] = []  # start of each open loop, and the label that ends it
    start = 0
    for line in joined_statements(content, language).split(b"\n"):
        stop = start + len(line.rstrip())
        statement = STATEMENT.match(line) if line and not line.isspace() else None
        word = statement.lastgroup if statement else None
        if statement and word == "do":
            stack.append((start, statement["until"] or b""))
        elif word == "end":
            stack.clear()
        elif word == "end_do":
            if stack:
                yield stack.pop()[0], stop
        elif statement and (label := statement["label"]):
            while stack and stack[-1][1] and int(stack[-1][1]) == int(label):
                yield stack.pop()[0], stop
        start += len(line) + 1


def _read(
    stack: list[_Open], statement: re.Match[bytes], line: bytes, place: tuple[int, int, int]
) -> Iterator[tuple[str, int, int]]:
    """What the statement ends, given what is open; opens what it begins."""
    start, stop, following = place
    word, label = statement.lastgroup, statement["label"]
    if word == "do":
        if stack:
            stack[-1].statements += 1
        stack.append(_Open("loop_nest", start, statement["until"] or b""))
    elif word == "end_do":
        if stack and stack[-1].kind == "loop_nest":
            yield from _close_loop(stack, stop)
    elif word == "end":
        while stack:  # loops that are still open were cut by the preprocessor
            unit = stack.pop()
            if unit.kind != "loop_nest":
                if unit.kind and start > unit.start:
                    yield unit.kind, unit.start, start
                break
    elif word == "host":
        stack.append(_Open("function" if line.lstrip()[:1] in b"pP" else "", following))
    elif word == "procedure":
        stack.append(_Open("kernel" if _KERNEL.search(line) else "function", following))
    else:
        if stack and not _CONTINUE.fullmatch(line):
            stack[-1].statements += 1
        while label and stack and stack[-1].label and int(stack[-1].label) == int(label):
            yield from _close_loop(stack, stop)


def _close_loop(stack: list[_Open], stop: int) -> Iterator[tuple[str, int, int]]:
    """End the innermost open loop; what it held is a nest of its own unless it is all that it held."""
    loop = stack.pop()
    if loop.inner and loop.statements > 1:
        yield "loop_nest", *loop.inner
    outer = stack[-1] if stack else None
    if outer is None or outer.kind != "loop_nest":
        yield "loop_nest", loop.start, stop
        return
    if outer.inner:
        yield "loop_nest", *outer.inner  # it has a sibling
    outer.inner = loop.start, stop


def joined_statements(content: bytes, language: str) -> bytes:
    """The code of a file, all else blanked, where one line is one statement; offsets stay as they are."""
    parts: list[bytes] = []
    settled = 0  # parts before this one have their line ends joined where they need it
    joins = False  # whether what follows continues the statement before
    in_directive = False
    for kind, start, stop in regions(content, language):
        text = content[start:stop]
        if kind is not Kind.CODE:
            text = text.translate(_TO_BLANKS)
        if kind is Kind.DIRECTIVE:
            in_directive = stop - start > len(b"!$")
        elif kind is Kind.CONTINUATION and not in_directive:
            if content[start : start + 1] == b"&":
                joins = True
            else:
                settled = _join_backwards(parts, settled)
        elif kind is Kind.CODE:
            bare = text.lstrip()
            if joins:
                blank = len(text) - len(bare)
                text = text[:blank].translate(_LINE_ENDS) + bare
            if bare:
                joins = in_directive = False
        parts.append(text)
    return b"".join(parts)


def _join_backwards(parts: list[bytes], settled: int) -> int:
    """Blank the line ends after the last statement of `parts`; the new number of settled parts."""
    for index in range(len(parts) - 1, settled - 1, -1):
        bare = parts[index].rstrip()
        parts[index] = bare + parts[index][len(bare) :].translate(_LINE_ENDS)
        if bare:
            break
    return len(parts)
