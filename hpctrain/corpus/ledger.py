"""The ledger of a build: for each source what was seen, kept and dropped, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LEDGER_NAME = "ledger.json"
UNKNOWN_LICENCE = "unknown"


@dataclass(slots=True)
class Tally:
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one file of `size` bytes."""
        self.files += 1
        self.bytes += size


def _tallies() -> defaultdict[str, Tally]:
    return defaultdict(Tally)


@dataclass(slots=True)
class SourceLedger:
    """What became of one source."""

    seen: Tally = field(default_factory=Tally)
    kept: Tally = field(default_factory=Tally)
    dropped: defaultdict[str, Tally] = field(default_factory=_tallies)
    languages: defaultdict[str, Tally] = field(default_factory=_tallies)
    licences: defaultdict[str, Tally] = field(default_factory=_tallies)
    missing: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, size: int) -> None:
        """Count a file that was seen and is not kept."""
        self.dropped[reason].add(size)

    def keep(self, language: str, licence: str, size: int) -> None:
        """Count a document."""
        self.kept.add(size)
        self.languages[language].add(size)
        self.licences[licence or UNKNOWN_LICENCE].add(size)

    def to_json(self) -> dict[str, Any]:
        """The ledger as plain values with sorted keys."""
        return {
            "seen": _plain(self.seen),
            "kept": _plain(self.kept),
            "dropped": _plain_all(self.dropped),
            "languages": _plain_all(self.languages),
            "licences": _plain_all(self.licences),
            "missing": self.missing,
        }


def _plain(tally: Tally) -> dict[str, int]:
    return {"files": tally.files, "bytes": tally.bytes}


def _plain_all(tallies: dict[str, Tally]) -> dict[str, dict[str, int]]:
    return {name: _plain(tallies[name]) for name in sorted(tallies)}


class Ledger:
    """The ledgers of all sources, by name in the order of the config."""

    def __init__(self, names: Iterable[str]) -> None:
        self.sources = {name: SourceLedger() for name in names}

    def to_json(self) -> dict[str, Any]:
        """The content of `ledger.json`."""
        return {"sources": {name: source.to_json() for name, source in self.sources.items()}}

    def explain_empty(self) -> str:
        """Why nothing was kept, a line a source."""
        lines = []
        for name, source in self.sources.items():
            reasons = [f"{tally.files} {reason}" for reason, tally in sorted(source.dropped.items())]
            reasons += source.missing.values()
            lines.append(f"  {name}: {source.seen.files} files seen; {', '.join(reasons) or 'nothing there'}")
        return "\n".join(lines)
