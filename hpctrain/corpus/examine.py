"""The verdict on one file: pure, so that files can be examined in any order and anywhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hpctrain.corpus.filters import Filter, FilterConfig, make_filters
from hpctrain.corpus.languages import find_language
from hpctrain.corpus.licences import LicenceReader


class Rules:
    """Everything a verdict depends on besides the file."""

    def __init__(self, filters: FilterConfig) -> None:
        self.filters: list[Filter] = make_filters(filters)
        self.licences = LicenceReader()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a kept file's content says."""

    language: str
    """One of LANGUAGES, or UNDECIDED for a header that only its neighbours can tell."""
    licence: str
    """The licence that the file states itself, or ""."""
    sha256: str
    """Hex digest of the content."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a file is not kept."""

    reason: str
    """The name under which the ledger counts it."""


def examine(path: str, content: bytes, rules: Rules) -> Finding | Drop:
    """Judge one file by its name and content."""
    for rule in rules.filters:
        if not rule.keeps(content):
            return Drop(rule.reason)
    language = find_language(path, content)
    if language is None:
        return Drop("language")
    return Finding(language, rules.licences.of_source(content), hashlib.sha256(content).hexdigest())
