"""OpenMP directives as what they mean to a compiler: constructs, and clauses item by item."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hpctrain.corpus.lexer import Kind, regions
from hpctrain.corpus.structure import Span, SpanKind, spans

_SENTINEL = {
    False: re.compile(r"\s*#\s*pragma\s+ompx?\b"),
    True: re.compile(r"\s*[!c*]\$ompx?\b", re.IGNORECASE),
}
_SPLICE = re.compile(rb"\\\r?\n")
_WORD = re.compile(r"[\s,]*([A-Za-z_]\w*)\s*")
_BLANK = re.compile(r"\s+")
_AROUND_SIGN = re.compile(r"\s*([^\w\s])\s*")
_COLON = re.compile(r"(?<!:):(?!:)")
_WRITTEN_TOGETHER = {
    "paralleldo": ("parallel", "do"), "enddo": ("end", "do"), "endparallel": ("end", "parallel"),
    "endparalleldo": ("end", "parallel", "do"), "endsimd": ("end", "simd"), "dosimd": ("do", "simd"),
    "paralleldosimd": ("parallel", "do", "simd"),
}  # fmt: skip
_CONSTRUCTS = frozenset(
    (
        "parallel", "for", "do", "simd", "sections", "section", "single", "task", "taskloop",
        "taskyield", "taskwait", "taskgroup", "teams", "distribute", "target", "data", "enter",
        "exit", "update", "loop", "master", "masked", "workshare", "barrier", "critical", "atomic",
        "ordered", "flush", "cancel", "cancellation", "point", "declare", "threadprivate", "scan",
        "scope", "end", "interop", "assume", "unroll", "tile", "reduction", "variant",
    )
)  # fmt: skip
_LOOP_CONSTRUCTS = frozenset(("for", "do", "simd", "loop", "distribute", "taskloop"))
_NOT_OF_LOOPS = frozenset(("end", "declare", "ordered", "cancel", "cancellation"))
_WORKSHARING = _LOOP_CONSTRUCTS - {"simd"}
_LISTS = frozenset(
    (
        "private", "firstprivate", "lastprivate", "shared", "copyin", "copyprivate", "linear",
        "aligned", "uniform", "nontemporal", "map", "to", "from", "use_device_ptr",
        "use_device_addr", "is_device_ptr", "has_device_addr", "reduction", "in_reduction",
        "task_reduction", "depend", "inclusive", "exclusive", "allocate",
    )
)  # fmt: skip
_LIST_BEFORE_COLON = frozenset(("linear", "aligned"))

Item = tuple[str, str]
"""A clause with its modifier, such as `reduction +`, and one variable of its list or its whole argument."""


@dataclass(frozen=True)
class Directive:
    """A directive without its spelling: order of clauses and of lists, blanks, lines, Fortran's case."""

    constructs: tuple[str, ...]
    """Such as ("parallel", "for")."""
    clauses: frozenset[Item]

    @property
    def is_on_loop(self) -> bool:
        """Whether a loop must follow."""
        words = set(self.constructs)
        return bool(words & _LOOP_CONSTRUCTS) and not words & _NOT_OF_LOOPS

    @property
    def starts_team_on_loop(self) -> bool:
        """Whether it alone makes a serial loop run by several threads."""
        return self.is_on_loop and "parallel" in self.constructs and bool({*self.constructs} & _WORKSHARING)

    def __str__(self) -> str:
        clauses = (
            f"{clause}({argument})" if argument else clause for clause, argument in sorted(self.clauses)
        )
        return " ".join([*self.constructs, *clauses])


def first_directive(content: bytes, language: str) -> tuple[int, int] | None:
    """Where the first OpenMP directive of a text begins and ends, continuation lines included."""
    return next((extent for extent, _ in find_directives(content, language)), None)


def find_directives(
    content: bytes, language: str, structure: Sequence[Span] | None = None
) -> list[tuple[tuple[int, int], Directive]]:
    """Every OpenMP directive of a text, in order, with its (start, stop).

    `structure`: what `spans` finds, where it is known.
    """
    found = []
    for span in spans(content, language) if structure is None else structure:
        if span.kind is SpanKind.DIRECTIVE:
            directive = parse_directive(content[span.start : span.stop], language)
            if directive is not None:
                found.append(((span.start, span.stop), directive))
    return found


def parse_directive(text: bytes, language: str) -> Directive | None:
    """The meaning of one directive, which begins with its sentinel; None if it is not OpenMP's."""
    is_fortran = language.startswith("fortran")
    pieces = (text[start:stop] for kind, start, stop in regions(text, language) if kind is Kind.DIRECTIVE)
    line = _SPLICE.sub(b" ", b" ".join(pieces)).decode("utf-8", "replace")
    sentinel = _SENTINEL[is_fortran].match(line)
    if sentinel is None:
        return None
    line = line[sentinel.end() :]
    return _parse(line.lower() if is_fortran else line)


def _parse(line: str) -> Directive:
    constructs: list[str] = []
    clauses: set[Item] = set()
    position = 0
    while word := _WORD.match(line, position):
        name, position = word[1], word.end()
        argument = ""
        if has_argument := line.startswith("(", position):
            stop = _closing(line, position)
            argument = _tidy(line[position + 1 : stop])
            position = stop + 1
        together = _WRITTEN_TOGETHER.get(name, (name,))
        if not clauses and not has_argument and set(together) <= _CONSTRUCTS:
            constructs += together
        else:
            clauses.update(_items(name, argument))
    return Directive(tuple(constructs), frozenset(clauses))


def _closing(line: str, opening: int) -> int:
    """Offset of the parenthesis that closes the one at `opening`; the line's end where none does."""
    depth = 0
    for position in range(opening, len(line)):
        depth += (line[position] == "(") - (line[position] == ")")
        if depth == 0:
            return position
    return len(line)


def _tidy(text: str) -> str:
    return _AROUND_SIGN.sub(r"\1", _BLANK.sub(" ", text)).strip()


def _items(clause: str, argument: str) -> list[Item]:
    if clause not in _LISTS:
        return [(clause, argument)]
    modifier, listed = "", argument
    outside = _outside_brackets(argument, ":")
    if clause in _LIST_BEFORE_COLON:
        if outside:
            listed, modifier = argument[: outside[0]], argument[outside[0] + 1 :]
    elif outside:
        modifier, listed = argument[: outside[0]], argument[outside[0] + 1 :]
    cuts = [-1, *_outside_brackets(listed, ","), len(listed)]
    names = (listed[a + 1 : b].strip() for a, b in pairwise(cuts))
    return [(f"{clause} {modifier}".strip(), name) for name in names if name]


def _outside_brackets(text: str, sign: str) -> list[int]:
    """Offsets of a sign that stands outside brackets; `::` is no colon."""
    found, depth = [], 0
    for position, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        single = sign != ":" or _COLON.match(text, position) is not None
        if letter == sign and depth == 0 and single:
            found.append(position)
    return found
