"""The ledger of a build: for each source what was seen, kept and dropped, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hpctrain.corpus.document import SPLITS

LEDGER_NAME = "ledger.json"
UNKNOWN_LICENCE = "unknown"
NO_MODEL = "none"
DUPLICATE, NEAR_DUPLICATE, CONTAMINATION = "duplicate", "near duplicate", "contamination"


@dataclass(slots=True)
class Tally:
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one file of `size` bytes."""
        self.files += 1
        self.bytes += size


Tallies = defaultdict[str, Tally]
_TALLIES = ("dropped", "contamination", "languages", "licences", "licence_classes", "models", "splits")


def _tallies() -> Tallies:
    return defaultdict(Tally)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is counted of a document."""

    language: str
    licence: str
    licence_class: str
    split: str
    models: str
    """With commas."""
    secrets: str
    """As kind=number, with commas."""


@dataclass(slots=True)
class SourceLedger:
    """What became of one source."""

    seen: Tally = field(default_factory=Tally)
    kept: Tally = field(default_factory=Tally)
    dropped: Tallies = field(default_factory=_tallies)
    """By reason."""
    contamination: Tallies = field(default_factory=_tallies)
    """Of the dropped, by benchmark."""
    languages: Tallies = field(default_factory=_tallies)
    licences: Tallies = field(default_factory=_tallies)
    licence_classes: Tallies = field(default_factory=_tallies)
    models: Tallies = field(default_factory=_tallies)
    """A file of two models counts for both."""
    splits: Tallies = field(default_factory=_tallies)
    """By split and language, as `train/c`."""
    secrets: Counter[str] = field(default_factory=Counter)
    """Replaced places in kept files, by kind."""
    missing: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, size: int, detail: str = "") -> None:
        """Count a file that was seen and is not kept."""
        self.seen.add(size)
        self.dropped[reason].add(size)
        if reason == CONTAMINATION:
            self.contamination[detail.partition(":")[0]].add(size)

    def keep(self, document: Kept, size: int) -> None:
        """Count a document of `size` bytes."""
        self.seen.add(size)
        self.kept.add(size)
        self.languages[document.language].add(size)
        self.licences[document.licence or UNKNOWN_LICENCE].add(size)
        self.licence_classes[document.licence_class].add(size)
        self.splits[f"{document.split}/{document.language}"].add(size)
        for model in document.models.split(",") if document.models else (NO_MODEL,):
            self.models[model].add(size)
        for item in filter(None, document.secrets.split(",")):
            kind, _, number = item.rpartition("=")
            self.secrets[kind] += int(number)

    def merge(self, other: SourceLedger) -> None:
        """Add what another rank counted of the same source."""
        _merge(self.seen, other.seen)
        _merge(self.kept, other.kept)
        for name in _TALLIES:
            for key, tally in getattr(other, name).items():
                _merge(getattr(self, name)[key], tally)
        self.secrets.update(other.secrets)

    def to_json(self) -> dict[str, Any]:
        """The ledger as plain values with sorted keys."""
        return {
            "seen": _plain(self.seen),
            "kept": _plain(self.kept),
            **{name: _plain_all(getattr(self, name)) for name in _TALLIES},
            "secrets": dict(sorted(self.secrets.items())),
            "missing": self.missing,
        }


def _merge(tally: Tally, other: Tally) -> None:
    tally.files += other.files
    tally.bytes += other.bytes


def _plain(tally: Tally) -> dict[str, int]:
    return {"files": tally.files, "bytes": tally.bytes}


def _plain_all(tallies: dict[str, Tally]) -> dict[str, dict[str, int]]:
    return {name: _plain(tallies[name]) for name in sorted(tallies)}


class Ledger:
    """The ledgers of all sources, by name in the order of the config."""

    def __init__(self, names: Iterable[str]) -> None:
        self.sources = {name: SourceLedger() for name in names}

    def merge(self, other: Ledger) -> None:
        """Add what another rank counted."""
        for name, source in other.sources.items():
            self.sources[name].merge(source)

    def to_json(self) -> dict[str, Any]:
        """The content of `ledger.json`."""
        return {"sources": {name: source.to_json() for name, source in self.sources.items()}}

    def counts(self) -> dict[str, Any]:
        """The manifest's counts: documents and bytes by split and language, bytes by licence."""
        documents: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        sizes: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        licences: Counter[str] = Counter()
        for source in self.sources.values():
            for name, tally in source.splits.items():
                split, _, language = name.partition("/")
                documents[split][language] += tally.files
                sizes[split][language] += tally.bytes
            licences.update({name: tally.bytes for name, tally in source.licences.items()})
        by_split = {
            name: {split: dict(sorted(counter.items())) for split, counter in table.items()}
            for name, table in (("documents", documents), ("bytes", sizes))
        }
        return {**by_split, "licences": dict(sorted(licences.items()))}

    def explain_empty(self) -> str:
        """Why nothing was kept, a line a source."""
        lines = []
        for name, source in self.sources.items():
            reasons = [f"{tally.files} {reason}" for reason, tally in sorted(source.dropped.items())]
            reasons += source.missing.values()
            lines.append(f"  {name}: {source.seen.files} files seen; {', '.join(reasons) or 'nothing there'}")
        return "\n".join(lines)
