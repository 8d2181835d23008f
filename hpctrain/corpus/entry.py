"""What every kind of source yields: units of work, and in them entries, found but not yet read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from hpctrain.config import fingerprint
from hpctrain.errors import DataError
from hpctrain.progress import say


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source, not yet read."""

    path: str
    """Path inside the source, `/`-separated."""
    size: int
    """Bytes, as the source states it."""
    read: Callable[[], bytes] = field(repr=False)
    """Returns the content. Raises OSError where the file cannot be read. To be called before the next entry
    is asked for: archives are read in one pass."""
    problem: str = ""
    """The drop reason if this is nothing to read: a link, a special file, a name that leaves the archive."""
    work_bytes: int = 0
    """What this entry contributes to its unit's `work_bytes`; 0 where the unit counts in another way."""
    licence: str = ""
    """SPDX expression that the source states for this very file (a Debian copyright file, a column), or "".
    The file's own text goes before it; the licence of the config and LICENSE files come after it."""
    detail: str = ""
    """What more is known of the problem, in words: where a row is broken, where a link leads."""


class Unit(Protocol):
    """A part of a source that one rank examines whole: an archive, a repository, a slice of a tree or table.

    Units are picklable: rank 0 opens the sources, and sends the units to the other ranks. So a unit holds
    names and numbers, and opens its files in `entries()`, which may be called any number of times.
    """

    @property
    def key(self) -> str:
        """Name of the unit, each once in its source, such as the archive's file name."""

    @property
    def scope(self) -> str:
        """Units of equal scope stand side by side, and are settled together: licence files, headers and
        families of one hold for the others. The slices of a tree share one; an archive has its own."""

    @property
    def work_bytes(self) -> int:
        """Bytes to go through, for progress and for the order in which units are dealt out."""

    def fingerprint(self) -> str:
        """A hash that changes when `entries()` may give something else: other content, patterns, limits. No
        content is read for it."""

    def entries(self) -> Iterator[Entry]:
        """Everything in the unit in a fixed order, each path once. Raises DataError where it is damaged."""


class Source(Protocol):
    """An opened source: it is known to exist."""

    licence: str
    """SPDX expression that the source's own metadata declare, or "". It comes last: after the file's own, the
    entry's, the config's and that of the LICENSE files."""
    missing: Mapping[str, str]
    """Parts that could not be had, each with the reason."""

    def units(self) -> Sequence[Unit]:
        """The parts in corpus order: earlier ones win duplicates. Slices are about SLICE_BYTES large."""


class UnitSource:
    """A source that is a list of units."""

    def __init__(
        self, units: Sequence[Unit], licence: str = "", missing: Mapping[str, str] | None = None
    ) -> None:
        self.licence = licence
        self.missing: Mapping[str, str] = missing or {}
        self._units = units

    def units(self) -> Sequence[Unit]:
        """The units in corpus order."""
        return self._units

    @property
    def work_bytes(self) -> int:
        """That of all units."""
        return sum(unit.work_bytes for unit in self._units)

    def fingerprint(self) -> str:
        """A hash over the units."""
        return fingerprint([unit.fingerprint() for unit in self._units])

    def entries(self) -> Iterator[Entry]:
        """The entries of all units."""
        for unit in self._units:
            yield from unit.entries()


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A unit whose damage costs only what cannot be read: it becomes an entry, not an error."""

    unit: Unit

    @property
    def key(self) -> str:
        """The unit's."""
        return self.unit.key

    @property
    def scope(self) -> str:
        """The unit's."""
        return self.unit.scope

    @property
    def work_bytes(self) -> int:
        """The unit's."""
        return self.unit.work_bytes

    def fingerprint(self) -> str:
        """The unit's, told from that of a unit whose damage is an error."""
        return fingerprint(["salvaged", self.unit.fingerprint()])

    def entries(self) -> Iterator[Entry]:
        """The entries up to the damage, and then the damage as one."""
        try:
            for entry in self.unit.entries():
                yield replace(entry, read=partial(_read_or_os_error, entry.read))
        except DataError as reason:
            say(f"{reason}; what was read before stays")
            yield Entry(self.key, 0, refuse, "damaged", detail=str(reason))


def _read_or_os_error(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except DataError as reason:
        raise OSError(str(reason)) from None


SLICE_BYTES = 64 << 20
"""About so many bytes make a unit where a source can be cut anywhere: enough work to be worth a file in the
cache, little enough for many ranks to share."""


def refuse() -> bytes:
    """The `read` of an entry that has a problem."""
    raise OSError("not a regular file")


def printable(path: str) -> str:
    """A path as valid UTF-8: bytes of other encodings become `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
