"""The files of a repository in the order in which one reads them: what is included or used comes first."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from hpctrain.corpus.document import Document

_INCLUDE = re.compile(rb"""^[ \t]*\#?[ \t]*include[ \t]*["'<]([^"'<>\n]{1,300})["'>]""", re.MULTILINE | re.I)
_USE = re.compile(rb"^[ \t]*use\b(?:[ \t]*,[^:\n]*::|[ \t]*::|[ \t])[ \t]*(\w+)", re.MULTILINE | re.I)
_MODULE = re.compile(rb"^[ \t]*module[ \t]+(?!procedure\b)(\w+)[ \t]*(?:!.*)?$", re.MULTILINE | re.I)


class Placed(NamedTuple):
    """A document of a file in its turn."""

    number: int
    """Place in the documents file."""
    document: Document
    follows: bool = False
    """Whether it goes on where another document of its repository ends."""


def in_repository_order(documents: Iterable[Document]) -> Iterator[Placed]:
    """Documents with those of one repository, language and split together, headers and modules before users.

    A repository is the first directory of the paths of a source. Files that include each other in a circle
    stand in the order of their paths, as does what has nothing to do with each other.
    """
    groups: dict[tuple[str, ...], list[tuple[int, Document]]] = defaultdict(list)
    for number, document in enumerate(documents):
        repository = document.path.partition("/")[0] if "/" in document.path else ""
        groups[document.split, document.language, document.source, repository].append((number, document))
    for group in groups.values():
        for turn, place in enumerate(_needed_first([document for _, document in group])):
            yield Placed(*group[place], follows=turn > 0)


def _needed_first(documents: Sequence[Document]) -> list[int]:
    """A depth-first walk along what each document needs, in the order of paths."""
    needs = _needs(documents)
    seen: set[int] = set()
    order: list[int] = []
    for start in sorted(range(len(documents)), key=lambda number: documents[number].path):
        stack = [(start, iter(needs[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            number, rest = stack[-1]
            following = next((each for each in rest if each not in seen), None)
            if following is None:
                order.append(number)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(needs[following])))
    return order


def _needs(documents: Sequence[Document]) -> list[list[int]]:
    """For each document the numbers of those it includes, or whose modules it uses."""
    named: dict[str, list[int]] = defaultdict(list)
    modules: dict[bytes, list[int]] = defaultdict(list)
    for number, document in enumerate(documents):
        named[PurePosixPath(document.path).name].append(number)
        if document.language.startswith("fortran"):
            for name in _MODULE.findall(document.content):
                modules[name.lower()].append(number)
    needs = []
    for number, document in enumerate(documents):
        included = (name.decode("utf-8", "replace") for name in _INCLUDE.findall(document.content))
        found = [_nearest(document, name, named, documents) for name in included]
        if document.language.startswith("fortran"):
            found += [modules.get(name.lower(), [None])[0] for name in _USE.findall(document.content)]
        needs.append([each for each in dict.fromkeys(found) if each is not None and each != number])
    return needs


def _nearest(
    user: Document, included: str, named: dict[str, list[int]], documents: Sequence[Document]
) -> int | None:
    """Of the files whose path ends with what is included, the one that shares most directories."""
    wanted = [part for part in PurePosixPath(included).parts if part not in ("..", ".")]
    if not wanted:
        return None
    here = PurePosixPath(user.path).parts

    def shared(number: int) -> int:
        there = PurePosixPath(documents[number].path).parts
        return next((n for n, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), len(here))

    fitting = [
        number
        for number in named.get(wanted[-1], [])
        if list(PurePosixPath(documents[number].path).parts[-len(wanted) :]) == wanted
    ]
    return max(fitting, key=lambda number: (shared(number), -number), default=None)
