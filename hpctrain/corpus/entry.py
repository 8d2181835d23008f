"""What every kind of source yields: entries, found but not yet read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


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
    """What this entry contributes to the source's `work_bytes`; 0 where the source counts in another way."""


class Source(Protocol):
    """An opened source: it is known to exist, and what is in it can be listed any number of times."""

    licence: str
    """SPDX expression that the source's own metadata declares, or ""."""
    missing: Mapping[str, str]
    """Parts that could not be had, each with the reason."""

    @property
    def work_bytes(self) -> int:
        """Bytes to go through, for progress."""

    def fingerprint(self) -> str:
        """A hash that changes when the content may have changed; no content is read for it."""

    def entries(self) -> Iterator[Entry]:
        """Everything in the source in a fixed order."""


def refuse() -> bytes:
    """The `read` of an entry that has a problem."""
    raise OSError("not a regular file")


def printable(path: str) -> str:
    """A path as valid UTF-8: bytes of other encodings become `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
