"""The regions of C, C++, CUDA, HIP and OpenCL text.

Line splices, raw strings, digit separators and the strings of `_Pragma` are known. Digraphs and trigraphs are
not: no code that we met uses them. Nothing is expanded, so a macro is a name like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpctrain.corpus.region import REST_OF_LOGICAL_LINE, Kind, Region, begins_line

_SPLICES = rb"(?:\\\r?\n)*"
# Every alternative starts with a literal, so that the search skips plain text at the speed of memchr.
_OPENING = re.compile(rb"/" + _SPLICES + rb"[/*]|\"|'|#|R\"")
_IN_DIRECTIVE = re.compile(rb"/" + _SPLICES + rb"[/*]|[\"'\n]|\\\r?\n")
_STRING = re.compile(rb'"[^"\\\n]*(?:\\(?:\r\n|.)[^"\\\n]*)*(?:"|(?=\n)|\\?\Z)', re.DOTALL)
_CLOSED_STRING = re.compile(rb'"[^"\\\n]*(?:\\(?:\r\n|.)[^"\\\n]*)*"', re.DOTALL)
_CHARACTER = re.compile(rb"'(?:\\(?:\r\n|.)[^'\\\n]*|[^'\\\n])(?:\\.|[^'\\\n]){0,15}'", re.DOTALL)
_RAW_STRING = re.compile(rb'R"([^()\\\s]{0,16})\(')
_RAW_PREFIX = re.compile(rb"(?<!\w)(?:u8|[uUL])?\Z")
_PRAGMA_OPERATOR = re.compile(rb"_Pragma\s*\(\s*L?\Z")
_NAME = re.compile(rb"#" + _SPLICES + rb"[ \t]*" + _SPLICES + rb"(\w*)")
_LONGEST_TOKEN = 64


def find_c_regions(content: bytes, raw_strings: bool = True) -> Iterator[Region]:
    """All regions of C-like text that are not code, in order. `raw_strings`: whether `R"(` opens one."""
    position = 0
    while opening := _OPENING.search(content, position):
        start, last = opening.start(), content[opening.end() - 1]
        if last == ord("#"):
            position = opening.end()
            if begins_line(content, start):
                for piece in _find_directive_regions(content, start):
                    yield piece
                    position = piece.stop
            continue
        region: Region | None
        if opening[0] == b'R"':
            region = _raw_string(content, start) if raw_strings else None
            position = start + 1  # not raw: the quote itself is looked at next
        else:
            region = _literal_or_comment(content, opening)
            position = opening.end()
        if region:
            yield region
            position = region.stop


def _literal_or_comment(content: bytes, opening: re.Match[bytes]) -> Region | None:
    """The comment, string or character constant that begins with `opening`, if it is one."""
    start, last = opening.start(), content[opening.end() - 1]
    if last == ord("*"):
        end = content.find(b"*/", opening.end())
        return Region(Kind.COMMENT, start, len(content) if end < 0 else end + 2)
    if last == ord("/"):
        return Region(Kind.COMMENT, start, _end(REST_OF_LOGICAL_LINE, content, opening.end()))
    if last == ord('"'):
        operator = _PRAGMA_OPERATOR.search(content[max(0, start - _LONGEST_TOKEN) : start])
        return Region(Kind.DIRECTIVE if operator else Kind.STRING, start, _end(_STRING, content, start))
    constant = _CHARACTER.match(content, start)
    if constant is None or _separates_digits(content, start):
        return None  # an apostrophe in prose that is never compiled, or 1'000'000
    return Region(Kind.STRING, start, constant.end())


def _end(pattern: re.Pattern[bytes], content: bytes, start: int) -> int:
    """Where a pattern that fits any text ends; one that did not would let the lexer stand still."""
    found = pattern.match(content, start)
    if found is None:
        raise AssertionError(f"{pattern.pattern!r} does not match at {start}")
    return found.end()


def _separates_digits(content: bytes, quote: int) -> bool:
    token = re.search(rb"[\w']*\Z", content[max(0, quote - _LONGEST_TOKEN) : quote])
    return token is not None and token[0][:1].isdigit()


def _raw_string(content: bytes, start: int) -> Region | None:
    opening = _RAW_STRING.match(content, start)
    if opening is None or not _RAW_PREFIX.search(content[max(0, start - _LONGEST_TOKEN) : start]):
        return None
    closing = b")" + opening[1] + b'"'
    end = content.find(closing, opening.end())
    return Region(Kind.STRING, start, len(content) if end < 0 else end + len(closing))


def _find_directive_regions(content: bytes, start: int) -> Iterator[Region]:
    """The regions of one logical line that begins with `#`, its comments and strings apart."""
    name = _NAME.match(content, start)
    word = name[1] if name else b""
    pragma = word == b"pragma" and not content.startswith(b" once", name.end() if name else start)
    kind = Kind.DIRECTIVE if pragma else Kind.PREPROCESSOR
    position = begin = start
    while found := _IN_DIRECTIVE.search(content, position):
        position = found.end()
        if found[0] == b"\n":
            position = found.start() - (content[found.start() - 1 : found.start()] == b"\r")
            break
        if found[0][:1] == b"\\":
            continue
        if found[0] == b'"':
            closed = _CLOSED_STRING.match(content, found.start())
            if closed is None or word == b"include":
                position = closed.end() if closed else position
                continue
        if region := _literal_or_comment(content, found):
            if region.start > begin:
                yield Region(kind, begin, region.start)
            yield region
            position = begin = region.stop
    else:
        position = len(content)
    if position > begin:
        yield Region(kind, begin, position)
