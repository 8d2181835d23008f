"""Token shards as one address space for each language."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpctrain.errors import DataError
from hpctrain.hdf5 import open_contained
from hpctrain.shards.layout import (
    DOCUMENT_INDEX,
    DOCUMENT_OFFSETS,
    INDEX_DTYPE,
    SOURCE_NAMES,
    SOURCE_STARTS,
    SPAN_DTYPE,
    SPANS,
    TOKEN_DTYPES,
    TOKENS,
    parse_shard_name,
)
from hpctrain.shards.mapped import MappedDataset

_BLOCK_DOCUMENTS = 1 << 20


class Shard:
    """One shard file, checked against the format; see `layout`."""

    def __init__(self, path: Path, datasets: list[str]) -> None:
        """Read the places of `datasets` in the file. Raises DataError if it is not such a shard."""
        self.path = path
        with open_contained(path, datasets) as file:
            expected = {TOKENS: TOKEN_DTYPES, SPANS: (SPAN_DTYPE,), SOURCE_NAMES: None}
            for name in datasets:
                dtypes = expected.get(name, (INDEX_DTYPE,))
                if file[name].ndim != 1 or (dtypes is not None and file[name].dtype not in dtypes):
                    raise DataError(f"{path}: /{name} has another type or rank than the shard format says")
            self.tokens = MappedDataset(path, file[TOKENS])
            self.offsets = MappedDataset(path, file[DOCUMENT_OFFSETS])
            self.index = MappedDataset(path, file[DOCUMENT_INDEX])
            self.spans = MappedDataset(path, file[SPANS]) if SPANS in datasets else None
            self.sources: list[str] | None = None
            self.source_starts: list[int] = []
            if SOURCE_NAMES in datasets:
                self.sources, self.source_starts = _read_sources(path, file)
        last = len(self.offsets) - 1
        ends = [*self.offsets.read(0, 1).tolist(), *self.offsets.read(last, last + 1).tolist()]
        if len(self.index) != last or ends != [0, len(self.tokens)]:
            raise DataError(f"{path}: /{DOCUMENT_OFFSETS} does not cover /{TOKENS} or /{DOCUMENT_INDEX}")
        if self.sources is not None and self.source_starts[-1] != last:
            raise DataError(f"{path}: /{SOURCE_STARTS} does not cover /{DOCUMENT_INDEX}")


def _read_sources(path: Path, file: Any) -> tuple[list[str], list[int]]:
    try:
        names = file[SOURCE_NAMES].asstr()[:].tolist()
    except (TypeError, UnicodeDecodeError, OSError, RuntimeError) as reason:
        raise DataError(f"{path}: /{SOURCE_NAMES} cannot be read: {reason}") from None
    starts = file[SOURCE_STARTS][:].astype(np.int64)
    if len(starts) != len(names) + 1 or starts[0] != 0 or (np.diff(starts) < 1).any():
        raise DataError(f"{path}: /{SOURCE_STARTS} does not fit /{SOURCE_NAMES}")
    return names, starts.tolist()


@dataclass(frozen=True)
class DocumentPlace:
    """A document of a stream."""

    index: int
    """Its place in the corpus."""
    source: str
    """Its source, or "" where the shards do not know it."""
    start: int
    """Position of its first token in the stream."""
    stop: int
    """Position after its last token."""


class TokenStream:
    """The tokens of one split and language as one address space over its shards, in corpus order.

    Safe to pickle and to use after a fork.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        self.starts = [0, *accumulate(len(shard.tokens) for shard in self.shards)]
        """Position of each shard's first token, and the end."""

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def language(self) -> str:
        """The language of all of its documents, which its files are named by."""
        parts = parse_shard_name("/".join(self.shards[0].path.parts[-2:]))
        assert parts is not None
        return parts[1]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of tokens start to stop - 1, across files, in the shards' own type (uint16 or uint32).

        Raises IndexError unless 0 <= start <= stop <= len(self).
        """
        if not 0 <= start <= stop <= self.starts[-1]:
            raise IndexError(f"tokens {start} to {stop} of a stream of {len(self)}")
        number = bisect_right(self.starts, start, hi=len(self.shards)) - 1
        first = self.starts[number]
        part = self.shards[number].tokens.read(start - first, stop - first)
        if len(part) == stop - start:
            return part
        parts = [part]
        while (start := start + len(parts[-1])) < stop:
            number += 1
            parts.append(self.shards[number].tokens.read(0, stop - start))
        return np.concatenate(parts)

    def document_of(self, position: int) -> int:
        """Place in the corpus of the document that holds the token at `position`.

        Raises IndexError unless 0 <= position < len(self).
        """
        return self.documents(position, position + 1)[0].index

    def documents(self, start: int, stop: int) -> list[DocumentPlace]:
        """The documents that tokens start to stop - 1 are of.

        Raises IndexError unless 0 <= start < stop <= len(self).
        """
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of a stream of {len(self)}")
        found: list[DocumentPlace] = []
        for number in range(bisect_right(self.starts, start) - 1, len(self.shards)):
            shard, base = self.shards[number], self.starts[number]
            if base >= stop:
                break
            offsets = shard.offsets.array()
            places = np.array([max(start - base, 0), stop - base], np.uint64)
            first = int(np.searchsorted(offsets, places[0], side="right")) - 1
            last = min(int(np.searchsorted(offsets, places[1], side="left")), len(shard.index))
            for document in range(first, last):
                begins, ends = (int(each) + base for each in offsets[document : document + 2])
                index = int(shard.index.array()[document])
                found.append(DocumentPlace(index, _source_of(shard, document), begins, ends))
        return found

    def document_starts(self, start: int, stop: int) -> Iterator[npt.NDArray[np.int64]]:
        """Positions from `start` to `stop` - 1 at which documents begin, in arrays of bounded size."""
        for shard, base in zip(self.shards, self.starts, strict=False):
            if base >= stop or base + len(shard.tokens) <= start:
                continue
            for first in range(0, len(shard.index), _BLOCK_DOCUMENTS):
                last = min(first + _BLOCK_DOCUMENTS, len(shard.index))
                found = shard.offsets.read(first, last).astype(np.int64) + base
                yield found[(found >= start) & (found < stop)]

    @property
    def knows_sources(self) -> bool:
        """Whether the shards say which source each document is of."""
        return all(shard.sources is not None for shard in self.shards)

    def sources(self) -> list[tuple[str, int, int]]:
        """Runs of documents of one source: its name, and the positions where they begin and end.

        Raises DataError if the shards do not know sources.
        """
        runs: list[tuple[str, int, int]] = []
        for shard, base in zip(self.shards, self.starts, strict=False):
            if shard.sources is None:
                raise DataError(f"{shard.path}: of format 1, which knows no sources; build the shards again")
            edges = (shard.offsets.array()[shard.source_starts].astype(np.int64) + base).tolist()
            for name, start, stop in zip(shard.sources, edges, edges[1:], strict=False):
                if runs and runs[-1][0] == name:
                    start = runs.pop()[1]
                runs.append((name, start, stop))
        return runs

    @property
    def has_spans(self) -> bool:
        """Whether the shards say where loop nests, directives, kernels and functions are."""
        return all(shard.spans is not None for shard in self.shards)

    def spans(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The spans that lie in tokens start to stop - 1, an array of SPAN_DTYPE, counted from `start`."""
        found = [np.empty(0, SPAN_DTYPE)]
        for number in range(bisect_right(self.starts, start) - 1, len(self.shards)):
            base, spans = self.starts[number], self.shards[number].spans
            if base >= stop or spans is None:
                break
            whole = spans.array()
            edges = max(start - base, 0), stop - base
            # not numpy's searchsorted: it would copy the whole column, as it does not lie in one piece
            first, last = (bisect_left(whole["start"], edge) for edge in edges)
            part = whole[first:last]
            part = part[part["stop"] <= edges[1]]
            for name in ("start", "stop"):
                part[name] = (part[name].astype(np.int64) + (base - start)).astype(np.uint64)
            found.append(part)
        return np.concatenate(found)


def _source_of(shard: Shard, document: int) -> str:
    return shard.sources[bisect_right(shard.source_starts, document) - 1] if shard.sources else ""
