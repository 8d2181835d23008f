"""Records of the task `mpi`: a program without its MPI calls, and the calls with their places (MPIrigen).

The lines that are left are numbered. A call is asked for as `N|line`: it stands after line N of what is
shown, line 0 being the start. A call that goes over several lines has as many, all with the same number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import xxhash

from hpctrain.corpus.document import Document
from hpctrain.corpus.fortran_structure import joined_statements
from hpctrain.corpus.lexer import Kind, code_tokens, mask
from hpctrain.corpus.structure import SpanKind, spans
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.places import decoded, head_of_body, line_start, line_stop, next_line
from hpctrain.tasks.record import Record

LANGUAGES = frozenset(("c", "cpp", "fortran-fixed", "fortran-free"))
MARK = "[MPI]\n"
"""Stands between the numbered program and the calls."""

_C_CALL = re.compile(
    rb"^[ \t]*(?:\(void\)[ \t]*)?(?:[A-Za-z_][\w.\[\]>-]*\s*=\s*)?P?MPI_[A-Z][a-z]\w*\s*(\()", re.MULTILINE
)
_FORTRAN_CALL = re.compile(
    rb"\s*(?:call\s+p?mpi_[a-z]\w*\s*(?:\(|$)|[a-z]\w*(?:\([^()]*\))?\s*=\s*p?mpi_w(?:time|tick)\s*\(\s*\)\s*$)",
    re.IGNORECASE,
)
_MAY_HOLD_ONE = re.compile(rb"\bP?MPI_[A-Z]\w*\s*\(", re.IGNORECASE)
_BRACKET = re.compile(rb"[()]")
_NAME = re.compile(r"\bP?MPI_[A-Z][a-z]\w*(?=\s*\()|\bP?MPI_[a-z]\w*", re.IGNORECASE)
_PLACED = re.compile(r"(\d{1,6})\|(.*)")
_DROPPED_BY_FORM = {
    "fortran-fixed": re.compile(r"^(?: {5}[^\s0]| {0,5}\t[1-9])"),
    "fortran-free": re.compile(r"^\s*&|&\s*(?:!.*)?$"),
}
_STARTS_CALL = {
    False: re.compile(r"\s*(?:\(void\)\s*)?(?:[A-Za-z_][\w.\[\]>-]*\s*=\s*)?P?MPI_[A-Z][a-z]\w*\s*\("),
    True: re.compile(r"\s*(?:call\s+p?mpi_\w+|[a-z]\w*(?:\([^()]*\))?\s*=\s*p?mpi_\w+)", re.IGNORECASE),
}


@dataclass(frozen=True)
class Call:
    """An MPI call and where it stands."""

    place: int
    """The shown line that it follows."""
    lines: tuple[str, ...]

    def name(self) -> str:
        """Such as `mpi_bcast`, in small letters."""
        found = _NAME.search("\n".join(self.lines))
        return found[0].lower() if found else ""

    def statement(self, language: str) -> str:
        """The call without blanks, comments and line ends; in Fortran without case too."""
        marks = _DROPPED_BY_FORM.get(language)
        lines = [marks.sub("", line) if marks else line for line in self.lines]
        text = "".join(
            t.decode("utf-8", "replace") for t in code_tokens("\n".join(lines).encode(), _plain(language))
        )
        return text.lower() if language.startswith("fortran") else text


@dataclass(frozen=True)
class Stripped:
    """A program without its MPI calls."""

    lines: tuple[str, ...]
    calls: tuple[Call, ...]

    def prompt(self) -> str:
        """The numbered lines, and the mark after them."""
        return "".join(f"{n}|{line}\n" for n, line in enumerate(self.lines, 1)) + MARK

    def response(self) -> str:
        """The calls with their places."""
        return "".join(f"{call.place}|{line}\n" for call in self.calls for line in call.lines)


def strip_calls(content: bytes, language: str) -> Stripped | None:
    """A program without the MPI calls that are statements of their own on lines of their own.

    Calls in conditions, expressions and declarations, and single statements under an `if`, stay: without them
    the rest would be another program. None if the text is not UTF-8.
    """
    text = decoded(content.replace(b"\r\n", b"\n"))
    if text is None:
        return None
    content = text.encode()
    extents = (
        _fortran_calls(content, language) if language.startswith("fortran") else _c_calls(content, language)
    )
    lines: list[str] = []
    calls: list[Call] = []
    position = 0
    for start, stop in extents:
        lines += _lines(content[position:start])
        calls.append(Call(len(lines), tuple(_lines(content[start:stop]))))
        position = stop
    lines += _lines(content[position:])
    return Stripped(tuple(lines), tuple(calls))


def restore(lines: Sequence[str], calls: Sequence[Call]) -> str:
    """The program with calls put at their places; those that name no line go to the end."""
    after: dict[int, list[str]] = {}
    for call in calls:
        after.setdefault(min(call.place, len(lines)), []).extend(call.lines)
    every = [*after.get(0, [])]
    for number, line in enumerate(lines, 1):
        every += [line, *after.get(number, [])]
    return "".join(f"{line}\n" for line in every)


def parse_calls(answer: str, language: str) -> list[Call]:
    """The calls of an answer, up to the first line that is none."""
    starts = _STARTS_CALL[language.startswith("fortran")]
    calls: list[Call] = []
    for line in answer.split("\n"):
        placed = _PLACED.fullmatch(line)
        if placed is None:
            break
        place, text = int(placed[1]), placed[2]
        if starts.match(text) or not calls or calls[-1].place != place:
            calls.append(Call(place, (text,)))
        else:
            calls[-1] = Call(place, (*calls[-1].lines, text))
    return calls


def shown_lines(prompt: str) -> list[str]:
    """The program that a prompt shows, without the numbers."""
    return [line.partition("|")[2] for line in prompt.removesuffix(MARK).split("\n")[:-1]]


def mpi_records(document: Document, task: TaskConfig) -> Iterator[Record]:
    """A record for a document with MPI calls; for one that is too long, a record for each such function."""
    if document.language not in LANGUAGES or "mpi" not in document.models.split(","):
        return
    content, language = document.content, document.language
    if not _MAY_HOLD_ONE.search(content):
        return
    for start, stop in _units(content, language, task.max_bytes):
        if not _MAY_HOLD_ONE.search(content, start, stop):
            continue
        stripped = strip_calls(content[start:stop], language)
        if stripped is None or not stripped.calls:
            continue
        prompt, response = stripped.prompt(), stripped.response()
        if len((prompt + response).encode()) > task.max_bytes:
            continue
        tokens = b" ".join(code_tokens(content[start:stop], language))
        folded = tokens.lower() if language.startswith("fortran") else tokens
        yield Record(
            task="mpi", id=f"mpi-{xxhash.xxh3_64_hexdigest(folded)}", family=document.family,
            language=language, path=PurePosixPath(document.path).name, prompt=prompt, response=response,
            meta={
                "source": document.source, "path": document.path, "licence": document.licence,
                "line": content.count(b"\n", 0, start) + 1, "is_whole": (start, stop) == (0, len(content)),
            },
        )  # fmt: skip


def _units(content: bytes, language: str, max_bytes: int) -> Iterator[tuple[int, int]]:
    """What is shown as a program: the file if it is short enough, otherwise each function with its head."""
    if len(content) <= max_bytes:
        yield 0, len(content)
        return
    for span in spans(content, language):
        if span.kind is SpanKind.FUNCTION and span.stop - span.start <= max_bytes:
            yield head_of_body(content, language, span.start), next_line(content, span.stop)


def _c_calls(content: bytes, language: str) -> Iterator[tuple[int, int]]:
    code = mask(content, language, {Kind.CODE})
    position = 0
    while found := _C_CALL.search(code, position):
        position = found.end()
        start = line_start(content, found.start())
        stop = _c_statement_stop(code, found.start(1))
        before = code[:start].rstrip()[-1:]
        if stop is None or before not in (b"", b";", b"{", b"}") or content[start : found.start()].strip():
            continue
        yield start, stop
        position = stop


def _c_statement_stop(code: bytes, opening: int) -> int | None:
    """The start of the line after a call whose arguments begin at `opening`, if nothing follows it there."""
    depth = 0
    for bracket in _BRACKET.finditer(code, opening, opening + 4096):
        depth += 1 if bracket[0] == b"(" else -1
        if depth == 0:
            end = line_stop(code, bracket.end())
            rest = code[bracket.end() : end].strip()
            return next_line(code, end) if rest == b";" else None
    return None


def _fortran_calls(content: bytes, language: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in joined_statements(content, language).split(b"\n"):
        stop = start + len(line)
        own = content[start:stop].lstrip()[:2]
        if _FORTRAN_CALL.match(line) and b";" not in line and not own.endswith(b"$"):
            yield start, min(stop + 1, len(content))
        start = stop + 1


def _lines(text: bytes) -> list[str]:
    return text.decode().removesuffix("\n").split("\n") if text else []


def _plain(language: str) -> str:
    """The language whose tokens a statement without columns and continuation marks has."""
    return "fortran-free" if language.startswith("fortran") else language
