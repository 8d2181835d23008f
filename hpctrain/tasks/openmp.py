"""Records of the task `openmp`: a loop without its directive, and the directive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import xxhash

from hpctrain.corpus.document import Document
from hpctrain.corpus.lexer import code_tokens, mask
from hpctrain.corpus.structure import Span, SpanKind, loops, spans
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.directive import Directive, find_directives
from hpctrain.tasks.places import decoded, head_of_body, line_start, line_stop, next_line
from hpctrain.tasks.record import Record

LANGUAGES = frozenset(("c", "cpp", "fortran-fixed", "fortran-free"))
_MAY_HOLD_ONE = re.compile(
    rb"(?:pragma\s+omp|[!c*]\$omp)\s[^\n]*(?:for|do|simd|loop|distribute)", re.IGNORECASE
)
_COUNTED_LOOP = re.compile(
    rb"(?:[!c*]\$[ \t]*)?(?:\d+[ \t]+)?(?:\w+[ \t]*:[ \t]*)?(?:for\b|do\b(?!\s*(?:while\b|\{)))",
    re.IGNORECASE,
)
_ORDERS = {"loop-first": ("loop-first",), "pragma-first": ("pragma-first",)}


def parallel_for(language: str, indent: str = "") -> str:
    """The bare parallel loop directive of a language, as a line."""
    if language == "fortran-fixed":
        return "!$omp parallel do\n"
    return f"{indent}!$omp parallel do\n" if language == "fortran-free" else "#pragma omp parallel for\n"


def openmp_records(document: Document, task: TaskConfig) -> Iterator[Record]:
    """A record (or two, see `order`) for each loop of a document that has an OpenMP directive."""
    if document.language not in LANGUAGES or "openmp" not in document.models.split(","):
        return
    content, language = document.content, document.language
    if not _MAY_HOLD_ONE.search(content):
        return
    structure = spans(content, language)
    bodies = function_bodies(structure)
    for (start, stop), loop, directive in loops_with_directives(content, language, structure):
        begin = line_start(content, start)
        context = context_start(content, language, bodies, begin, task.context_bytes)
        before, pragma = decoded(content[context:begin]), decoded(content[begin:stop])
        body = decoded(content[line_start(content, loop[0]) : line_stop(content, loop[1])])
        if before is None or pragma is None or body is None:
            continue
        if len((before + body + pragma).encode()) > task.max_bytes:
            continue
        name = _identity(body, language, directive)
        for order in _ORDERS.get(task.order, ("loop-first", "pragma-first")):
            after_loop = order == "loop-first"
            yield Record(
                task="openmp", id=f"openmp-{name}-{order}", family=document.family, language=language,
                path=PurePosixPath(document.path).name,
                prompt=before + body + "\n" if after_loop else before,
                response=pragma.rstrip() + "\n",
                suffix=None if after_loop else body + "\n",
                meta={
                    "order": order, "source": document.source, "path": document.path,
                    "line": content.count(b"\n", 0, start) + 1, "licence": document.licence,
                    "parallel_for": parallel_for(language, _indent(pragma)),
                },
            )  # fmt: skip


def loops_with_directives(
    content: bytes, language: str, structure: Sequence[Span] | None = None
) -> Iterator[tuple[tuple[int, int], tuple[int, int], Directive]]:
    """The (start, stop) of every directive that is followed by its loop, the loop's, and what it says.

    Only blanks and comments may stand between the two: a directive under a condition of its own is left out.
    `structure`: what `spans` finds, where it is known.
    """
    every: dict[int, tuple[int, int]] = {}
    for loop in loops(content, language):
        every.setdefault(_first_of_line(content, loop[0]), loop)
    live = mask(content, language)
    for (start, stop), directive in find_directives(content, language, structure):
        if not directive.is_on_loop:
            continue
        rest = live[stop:].lstrip()
        first = _first_of_line(content, len(live) - len(rest))
        loop_at = every.get(first)
        if loop_at is not None and loop_at[0] >= stop and _COUNTED_LOOP.match(content, first):
            yield (start, stop), loop_at, directive


def _first_of_line(content: bytes, position: int) -> int:
    """The place of the first visible byte of a line."""
    start = line_start(content, position)
    line = content[start : next_line(content, start)]
    return start + len(line) - len(line.lstrip())


def function_bodies(structure: Sequence[Span]) -> list[tuple[int, int]]:
    """The (start, stop) of every function among the spans of a file."""
    return [(span.start, span.stop) for span in structure if span.kind is SpanKind.FUNCTION]


def context_start(
    content: bytes, language: str, bodies: Sequence[tuple[int, int]], begin: int, limit: int
) -> int:
    """Where the text begins that is shown before `begin`: with the head of its function, or with the first
    line that is no more than `limit` bytes away. `bodies`: the (start, stop) of all functions."""
    body = max((body for body in bodies if body[0] <= begin < body[1]), default=None)
    head = head_of_body(content, language, body[0]) if body else 0
    if begin - head <= limit:
        return head
    return min(begin, next_line(content, begin - limit - 1))


def _identity(loop: str, language: str, directive: Directive) -> str:
    """Equal for loops that differ in blanks and comments only, with the same directive."""
    tokens = b" ".join(code_tokens(loop.encode(), language))
    folded = tokens.lower() if language.startswith("fortran") else tokens
    return str(xxhash.xxh3_64_hexdigest(folded + b"\n" + str(directive).encode()))


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip(" \t"))]
