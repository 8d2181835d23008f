"""The regions of Fortran text in its two source forms.

Both know the sentinels of directives, strings that go on over lines, lines of the C preprocessor and the
comments in C's style between them. Fixed form knows columns, tabs and Hollerith constants besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hpctrain.corpus.region import REST_OF_LOGICAL_LINE, Kind, Region, begins_line

CARD_COLUMNS = 72
"""Where a statement of fixed form ends, unless the whole file was written for more."""
EXTENDED_COLUMNS = 132

_SENTINEL = re.compile(
    rb"""[!c*](?:\$(?:ompx?|omx|acc|cuf|par|hpf|dir)(?![a-z_])
    | (?:dir|dec|gcc|pgi|nec|hpf|intel|cray)\$ | ibm\*) | !(?:ocl|cdir)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_CONDITIONAL = re.compile(rb"[!cC*]\$(?=[ \t\d&])|![@](?:cuf|acc)\b", re.IGNORECASE)
_C_LINE = re.compile(
    rb"#[ \t]*(?:if|ifdef|ifndef|else|elif|endif|define|undef|include|error|warning|line|pragma)\b"
)
_LEADING_MARK = re.compile(rb"[ \t]*&")
_DIRECTIVE_MARK = re.compile(rb"[!&\n]")


def _c_regions(content: bytes, start: int, last_close: int) -> Iterator[Region]:
    """The regions of a preprocessor line or a comment in C's style that begins at `start`; none if neither.

    `last_close` is where the last `*/` of the content stands; to look for one in vain takes time.
    """
    if comment := _find_c_comment(content, start, start + 2, last_close):
        yield comment
        return
    if not content.startswith(b"#", start):
        return
    if not (_C_LINE.match(content, start) or start == 0 or content[start - 1] == ord("\n")):
        return
    line = REST_OF_LOGICAL_LINE.match(content, start)
    stop = line.end() if line else start
    while comment := _find_c_comment(content, start, stop, last_close):
        yield Region(Kind.PREPROCESSOR, start, comment.start)
        yield comment
        start = comment.stop
    yield Region(Kind.PREPROCESSOR, start, max(start, stop))


def _find_c_comment(content: bytes, start: int, stop: int, last_close: int) -> Region | None:
    """The first comment in C's style that begins between two offsets; it may end later."""
    opening = content.find(b"/*", start, stop)
    if opening < 0 or opening + 2 > last_close:
        return None
    return Region(Kind.COMMENT, opening, content.find(b"*/", opening + 2) + 2)


def _line_end(content: bytes, start: int) -> int:
    """Offset of the line end after `start`, or the size."""
    end = content.find(b"\n", start)
    return len(content) if end < 0 else end


# --- free form ---

_FREE_OPENING = re.compile(rb"'|\"|!|&|#|/\*")
_FREE_STRINGS = {
    quote: re.compile(
        rb"%b[^%b&\n]*(?:&(?:[ \t]*\r?\n(?:[ \t]*(?:![^\n]*)?\r?\n)*[ \t]*&?)?[^%b&\n]*)*(?:%b|(?=\n)|\Z)"
        % ((quote,) * 4)
    )
    for quote in (b"'", b'"')
}


def find_free_regions(content: bytes) -> Iterator[Region]:
    """All regions of free-form text that are not code, in order."""
    position = 0
    last_close = content.rfind(b"*/")
    continued = False  # whether the last directive goes on
    while opening := _FREE_OPENING.search(content, position):
        start, mark = opening.start(), opening[0]
        position = opening.end()
        found: list[Region] = []
        if string := _FREE_STRINGS.get(mark):
            closed = string.match(content, start)
            found = [Region(Kind.STRING, start, closed.end() if closed else position)]
        elif mark == b"&":
            found = [Region(Kind.CONTINUATION, start, position)]
        elif mark != b"!":
            found = list(_c_regions(content, start, last_close)) if begins_line(content, start) else []
        elif not begins_line(content, start):
            found = [Region(Kind.COMMENT, start, _line_end(content, start))]
        elif sentinel := _SENTINEL.match(content, start):
            found = list(_free_directive(content, start, sentinel.end(), continued))
            marks = [region for region in found if region.kind is not Kind.COMMENT]
            continued = content[marks[-1].stop - 1] == ord("&")
        elif conditional := _CONDITIONAL.match(content, start):
            found = [Region(Kind.DIRECTIVE, start, conditional.end())]
        else:
            found = [Region(Kind.COMMENT, start, _line_end(content, start))]
        if found:
            yield from found
            position = found[-1].stop


def _free_directive(content: bytes, start: int, sentinel_end: int, continued: bool) -> Iterator[Region]:
    """The regions of one line that begins with a sentinel."""
    begin, position = start, sentinel_end
    if continued:
        leading = _LEADING_MARK.match(content, sentinel_end)
        begin = position = leading.end() if leading else sentinel_end
        yield Region(Kind.CONTINUATION, start, begin)
    stop = len(content)
    while mark := _DIRECTIVE_MARK.search(content, position):
        stop = mark.start()
        if mark[0] == b"\n":
            break
        if content[begin:stop].strip():
            yield Region(Kind.DIRECTIVE, begin, stop)
        if mark[0] == b"!":
            yield Region(Kind.COMMENT, stop, _line_end(content, stop))
            return
        position = begin = mark.end()
        yield Region(Kind.CONTINUATION, stop, begin)
        stop = len(content)
    if content[begin:stop].strip():
        yield Region(Kind.DIRECTIVE, begin, stop)


# --- fixed form ---

_CONTINUED = re.compile(rb" {5}[^\s0]| {0,5}\t[1-9]")
_TAB_FIELD = re.compile(rb"[ \d]{0,5}\t")
_FIXED_OPENING = re.compile(rb"['\"!]|(?<=[(,/= *])\d{1,3}[hH]")
_STRING_ENDS = {b"'": re.compile(rb"[^']*(?:''[^']*)*"), b'"': re.compile(rb'[^"]*(?:""[^"]*)*')}
_COUNTED = re.compile(rb"(?:[(,/=]|[(,/=]\s*\d+\s*\*)[ ]*\Z")
_OVERLONG = re.compile(rb"^(?![cC*!dD#])[^\n\t!]{72}[^\n\t!][^\n\t]*", re.MULTILINE)
_OPERATOR = re.compile(rb"[()'\"=,*+/]")
_CARD_NUMBER = re.compile(rb"(?<=[ ])\w{1,8}\s*\Z")


def statement_columns(content: bytes) -> int:
    """The columns that statements of a fixed-form file may fill: 72, or 132 if it only makes sense so.

    What stands past column 72 on most such lines decides: text that goes on from what stands before, or card
    numbers, remarks and the `&` of files that are valid in both forms.
    """
    wide = narrow = 0
    for match in _OVERLONG.finditer(content):
        line = match[0].rstrip()
        tail = line[CARD_COLUMNS:].split(b"!", 1)[0].strip()
        if not tail:
            continue
        joined = line[CARD_COLUMNS - 1 : CARD_COLUMNS + 1].strip() != b""
        card = tail == b"&" or _CARD_NUMBER.match(line, CARD_COLUMNS) is not None
        straddles = line[CARD_COLUMNS - 1 : CARD_COLUMNS + 1].isalnum()
        goes_on = joined and not card and (straddles or _OPERATOR.search(tail) is not None)
        wide, narrow = wide + goes_on, narrow + (not goes_on)
    return EXTENDED_COLUMNS if wide > narrow else CARD_COLUMNS


def find_fixed_regions(content: bytes) -> Iterator[Region]:
    """All regions of fixed-form text that are not code, in order."""
    lines = _FixedLines(content)
    position = 0
    while position < len(content):
        stop = _line_end(content, position)
        found = lines.regions(position, stop)
        yield from found
        position = max(stop, found[-1].stop if found else 0) + 1


class _FixedLines:
    """Reads fixed-form lines in order; knows which string the line before left open."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.columns = statement_columns(content)
        self.last_close = content.rfind(b"*/")
        self.quote = b""

    def regions(self, start: int, stop: int) -> list[Region]:
        """The regions of the line from `start` to its end at `stop`, or of the lines that begin there."""
        line = self.content[start:stop].rstrip(b"\r")
        text = line.lstrip(b" \t")
        indent = len(line) - len(text)
        if text[:1] in (b"#", b"/") and indent != 5:
            found = list(_c_regions(self.content, start + indent, self.last_close))
            if found or text[:1] == b"#":
                return found
        if line[:1] and line[:1] in b"cC*!dD":
            return self._comment_or_directive(line, start)
        if text[:1] == b"!" and indent != 5:
            return [Region(Kind.COMMENT, start + indent, start + len(line))]
        return self._statement(line, start) if text else []

    def _comment_or_directive(self, line: bytes, start: int) -> list[Region]:
        if sentinel := _SENTINEL.match(line):
            return list(self._directive(line, start, sentinel.end()))
        if conditional := _CONDITIONAL.match(line):
            size = conditional.end()
            mark = Region(Kind.DIRECTIVE, start, start + size)
            blanked = b" " * size + line[size:]
            return [mark, *self._statement(blanked, start, size)]
        return [Region(Kind.COMMENT, start, start + len(line))]

    def _directive(self, line: bytes, start: int, sentinel_end: int) -> Iterator[Region]:
        position = begin = 0
        if sentinel_end == 5 and line[5:6] not in (b"", b" ", b"0", b"\t"):
            position = begin = 6
            yield Region(Kind.CONTINUATION, start, start + begin)
        comment = line.find(b"!", max(position, 1))
        stop = min(self.columns, len(line), comment if comment >= 0 else len(line))
        text = line[:stop].rstrip()
        joined = text.endswith(b"&") and len(text) > begin
        end = len(text) - joined if joined else stop
        if end > begin:
            yield Region(Kind.DIRECTIVE, start + begin, start + end)
        if joined:
            yield Region(Kind.CONTINUATION, start + end, start + stop)
        if line[stop:].strip():
            yield Region(Kind.COMMENT, start + stop, start + len(line))

    def _statement(self, line: bytes, start: int, begin: int = 0) -> list[Region]:
        """The regions of an initial line or a continuation; what stands before `begin` is known."""
        found = []
        position = begin
        if continued := _CONTINUED.match(line):
            position = continued.end()
            found.append(Region(Kind.CONTINUATION, start + begin, start + position))
        else:
            self.quote = b""
        tab = _TAB_FIELD.match(line)
        stop = min(len(line), self.columns + (tab.end() - 6 + (continued is not None) if tab else 0))
        while position < stop:
            region = self._next_literal(line, position, stop)
            if region is None:
                break
            found.append(Region(region.kind, start + region.start, start + region.stop))
            position = region.stop
        if position <= stop and line[stop:].strip():
            found.append(Region(Kind.COMMENT, start + stop, start + len(line)))
        return found

    def _next_literal(self, line: bytes, position: int, stop: int) -> Region | None:
        """The next string, Hollerith constant or comment of a line, in offsets of the line."""
        opened = position
        if not self.quote:
            opening = _FIXED_OPENING.search(line, position, stop)
            if opening is None:
                return None
            opened, mark = opening.start(), opening[0]
            if mark == b"!":
                return Region(Kind.COMMENT, opened, len(line))
            if mark[-1:] in b"hH":
                counted = _COUNTED.search(line[:opened])
                size = int(mark[:-1]) if counted else 0
                kind = Kind.STRING if counted else Kind.CODE
                return Region(kind, opened, min(stop, opening.end() + size))
            self.quote, position = mark, opening.end()
        text = _STRING_ENDS[self.quote].match(line, position, stop)
        end = text.end() if text else stop
        if end < stop:
            self.quote, end = b"", end + 1
        return Region(Kind.STRING, opened, end)
