"""Benchmarks to be kept out of training: what code their directories hold, and which functions it defines."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from hpctrain.config import Section
from hpctrain.corpus.entry import Entry
from hpctrain.corpus.languages import UNDECIDED, find_language
from hpctrain.corpus.lexer import mask
from hpctrain.corpus.sources import expand
from hpctrain.corpus.trees import open_directory
from hpctrain.errors import DataError

_MAX_FILE_BYTES = 16 << 20
_SNIPPET_BYTES = 40
_SNIPPET_LANGUAGE = "cuda"  # its tokens hold those of C and C++


class BenchmarkConfig(Section):
    """A benchmark that no document may repeat."""

    name: str = Field(min_length=1, pattern=r"^[^:\s][^:]*$")
    """How the ledger calls it."""
    path: str
    """Its directory; `~` and `${VAR}` are expanded. Source files are read, and code in the strings of Python,
    JSON and JSON lines."""
    include: list[str] = []
    """Shell patterns on the path inside it, `*` also matching `/`; none: everything."""
    exclude: list[str] = []
    """Shell patterns of what is left out all the same, such as libraries that it brings along."""


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """One file of a benchmark, or one piece of code inside of a file."""

    benchmark: str
    path: str
    language: str
    content: bytes


def read_benchmark(config: BenchmarkConfig) -> Iterator[BenchmarkFile]:
    """All code of a benchmark in a fixed order.

    Raises DataError if the directory does not exist, holds no code, or has a file that cannot be read.
    """
    root = expand(config.path)
    found = False
    try:
        for entry in open_directory(root, config.include, config.exclude).entries():
            for language, content in _code_of(entry):
                found = True
                yield BenchmarkFile(config.name, entry.path, language, content)
    except (DataError, OSError) as reason:
        raise DataError(
            f"benchmark {config.name}: {reason}; give its directory in contamination.benchmarks"
        ) from None
    if not found:
        raise DataError(f"benchmark {config.name}: no code in {root} matches its include and exclude")


def _code_of(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """The pieces of code in a file, each with its language."""
    if entry.problem or entry.size > _MAX_FILE_BYTES:
        return
    suffix = PurePosixPath(entry.path).suffix.lower()
    if suffix in (".json", ".jsonl", ".py"):
        pieces = _strings_of_python(entry.read()) if suffix == ".py" else _strings_of_json(entry.read())
        for text in pieces:
            if len(text) >= _SNIPPET_BYTES and ("{" in text or ";" in text):
                yield _SNIPPET_LANGUAGE, text.encode("utf-8", "replace")
        return
    content = entry.read()
    if (language := find_language(entry.path, content)) is not None:
        yield "c" if language == UNDECIDED else language, content


def _strings_of_json(content: bytes) -> Iterator[str]:
    """Every string in a JSON document, or in each line that is one."""
    for part in (content, *content.splitlines()):
        try:
            pending: list[Any] = [json.loads(part)]
        except (ValueError, RecursionError):
            continue
        while pending:
            value = pending.pop()
            if isinstance(value, str):
                yield value
            elif isinstance(value, (dict, list)):
                pending += reversed(list(value.values()) if isinstance(value, dict) else value)
        if part is content:
            return


def _strings_of_python(content: bytes) -> Iterator[str]:
    """Every string literal of a Python file, in the order of the text."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    for node in sorted(strings, key=lambda node: (node.lineno, node.col_offset)):
        yield str(node.value)


_C_FUNCTION = re.compile(
    rb"([A-Za-z_]\w{3,99})\s{0,9}\((?:[^;{}()]|\([^;{}()]{0,200}\)){0,2000}\)\s{0,99}"
    rb"(?:const\b|noexcept\b|override\b|\s){0,9}\{"
)
_FORTRAN_UNIT = re.compile(
    rb"^(?!\s*end\b)[^\n!'\"]{0,99}\b(?:subroutine|function|module|program)\s{1,9}([a-z_]\w{3,99})",
    re.IGNORECASE | re.MULTILINE,
)
_NOT_NAMES = frozenset(b"while switch catch return sizeof defined main program procedure".split())


def defined_names(content: bytes, language: str) -> frozenset[bytes]:
    """The functions, subroutines and modules that a file defines, in small letters."""
    pattern = _FORTRAN_UNIT if language.startswith("fortran") else _C_FUNCTION
    found = (match[1].lower() for match in pattern.finditer(mask(content, language)))
    return frozenset(found) - _NOT_NAMES
