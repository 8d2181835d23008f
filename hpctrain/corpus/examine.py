"""The verdict on one file: pure, so that files can be examined in any order and anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hpctrain.config import fingerprint
from hpctrain.corpus.filters import Filter, FilterConfig, make_filters
from hpctrain.corpus.languages import find_companion, find_language
from hpctrain.corpus.licences import LicenceReader


class Rules:
    """Everything a verdict depends on besides the file."""

    def __init__(self, filters: FilterConfig, also: Sequence[str] = ()) -> None:
        """`also`: what to keep besides programs, see `find_companion`."""
        self.also = sorted(also)
        self.filters: list[Filter] = make_filters(filters)
        self.licences = LicenceReader()
        self.max_bytes = filters.max_bytes
        self._settings = filters.model_dump(mode="json")

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the settings and with the code: no old verdict is ever taken for new."""
        return fingerprint([self._settings, self.also, room_code()])

    def companion(self, path: str) -> str | None:
        """The label of a file that is no program but asked for, by its name."""
        label = find_companion(path) if self.also else None
        return label if label in self.also else None


def room_code() -> list[str]:
    """The code of this room; whatever rule changes, changes it."""
    return [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a kept file's content says."""

    language: str
    """One of LANGUAGES, or UNDECIDED for a header that only its neighbours can tell."""
    licence: str
    """The licence that the file states itself, or ""."""
    sha256: bytes
    """Of the content."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a file is not kept."""

    reason: str
    """The name under which the ledger counts it."""
    detail: str = ""
    """What more is to be said."""


def examine(path: str, content: bytes, rules: Rules) -> Finding | Drop:
    """Judge one file by its name and content."""
    language = find_language(path, content) or rules.companion(path)
    for rule in rules.filters:
        if not rule.keeps(content, language or ""):
            return Drop(rule.reason)
    if language is None:
        return Drop("language")
    return Finding(language, rules.licences.of_source(content), hashlib.sha256(content).digest())
