"""What is known of every found file in numbers: flat files on disk, one a column, in corpus order.

Ranks write slices of their own and map the whole to read it, so no rank holds a column in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 1 << 20
ACCEPTED, CONTAMINATED = 1, 2
_TYPES: dict[str, tuple[type, int]] = {
    "digest": (np.uint64, 2),
    "accepted": (np.uint8, 1),
    "language": (np.uint8, 1),
    "family": (np.uint64, 1),
    "bytes": (np.uint64, 1),
    "winner": (np.int64, 1),
    "jaccard": (np.float32, 1),
}
_OWNED_ROWS = 4096
"""Slices of owners begin at multiples of this, so that no two nodes write into one page of memory."""


class Columns:
    """The columns of `count` files.

    digest: the first 128 bits of SHA-256; accepted: 0 for a licence that is not, ACCEPTED, or CONTAMINATED by
    a benchmark; language: place in LANGUAGES;
    family: keyed hash of the name; bytes: of the content; winner: 0, or 1 + the file of which this is a
    duplicate; jaccard: the similarity to it where it is a near one.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self.directory, self.count = directory, count

    def create(self) -> None:
        """Make all columns, filled with zeros; for one rank to call."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, (kind, width) in _TYPES.items():
            with self._path(name).open("wb") as stream:
                stream.truncate(self.count * width * np.dtype(kind).itemsize)

    def write(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        """Write the rows of one column from `start` on."""
        kind, width = _TYPES[name]
        with self._path(name).open("r+b") as stream:
            stream.seek(start * width * np.dtype(kind).itemsize)
            stream.write(np.ascontiguousarray(values, kind).tobytes())
            stream.flush()
            os.fsync(stream.fileno())

    def map(self, name: str, mode: str = "r") -> npt.NDArray[Any]:
        """The whole column, mapped; to be called when all ranks have written."""
        kind, width = _TYPES[name]
        shape = (self.count, width) if width > 1 else (self.count,)
        if not self.count:
            return np.empty(shape, kind)
        return np.memmap(self._path(name), kind, mode, shape=shape)  # type: ignore[call-overload, no-any-return]

    def kept(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.bool_]:
        """Which of some files are accepted and no duplicates."""
        rows = slice(start, stop)
        kept: npt.NDArray[np.bool_] = (self.map("accepted")[rows] == ACCEPTED) & (
            self.map("winner")[rows] == 0
        )
        return kept

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The ranges of rows to look at one after the other."""
        for start in range(0, self.count, BLOCK_ROWS):
            yield start, min(start + BLOCK_ROWS, self.count)

    def owned(self, rank: int, size: int) -> slice:
        """The rows that one of `size` ranks may change in place."""
        pages = -(-self.count // _OWNED_ROWS)
        return slice(*(min(self.count, pages * r // size * _OWNED_ROWS) for r in (rank, rank + 1)))

    def owners(self, rows: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.intp]:
        """Which of `size` ranks owns each of some rows."""
        ends = [self.owned(rank, size).stop for rank in range(size)]
        return np.searchsorted(ends, rows, side="right")

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.bin"
