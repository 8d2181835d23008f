"""A pool of tokens as numbered sequences."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hpctrain.shards.layout import SPAN_DTYPE
from hpctrain.shards.stream import TokenStream


@dataclass(frozen=True)
class Part:
    """Tokens `start` to `stop` - 1 of a stream, which begin and end with a document."""

    stream: TokenStream
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def source_sizes(self) -> list[tuple[str, int]]:
        """Tokens of each source's runs; nothing where the shards know no sources."""
        if not self.stream.knows_sources:
            return []
        overlaps = ((n, min(b, self.stop) - max(a, self.start)) for n, a, b in self.stream.sources())
        return [(name, size) for name, size in overlaps if size > 0]


class Place(NamedTuple):
    """Where tokens of a sequence come from: `start` to `stop` - 1 of a stream."""

    stream: TokenStream
    start: int
    stop: int


class Component:
    """Parts of streams laid end to end and cut into sequences of S + 1 tokens that overlap by one."""

    def __init__(self, parts: Sequence[Part], sequence_length: int) -> None:
        self.parts, self.sequence_length = list(parts), sequence_length
        self.ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        """Number of whole sequences."""
        return max(0, (self.ends[-1] - 1) // self.sequence_length)

    def pieces(self, number: int) -> list[tuple[int, int]]:
        """Ranges of the parts laid end to end for a sequence; its last token is the first of the next."""
        start = number * self.sequence_length
        return [(start, start + self.sequence_length + 1)]

    def places(self, number: int) -> list[Place]:
        """Where the tokens of a sequence come from, in turn."""
        places = []
        for start, stop in self.pieces(number):
            index = bisect_right(self.ends, start)
            while start < stop:
                part = self.parts[index]
                base = self.ends[index] - len(part)
                upto = min(stop, self.ends[index])
                places.append(Place(part.stream, part.start + start - base, part.start + upto - base))
                start, index = upto, index + 1
        return places

    def sequence(self, number: int) -> npt.NDArray[np.int64]:
        """Tokens [S + 1] of one sequence."""
        return self.read(self.places(number))

    def read(self, places: Sequence[Place]) -> npt.NDArray[np.int64]:
        """Tokens [S + 1] from where `places` says they are."""
        tokens = np.empty(self.sequence_length + 1, np.int64)
        self.fill(tokens, places)
        return tokens

    def fill(self, tokens: npt.NDArray[np.int64], places: Sequence[Place]) -> int:
        """Write the tokens of `places` into `tokens` [S + 1]; returns how many of them they are."""
        at = 0
        for stream, start, stop in places:
            tokens[at : at + stop - start] = stream.read(start, stop)
            at += stop - start
        return at


def spans_of(places: Sequence[Place]) -> npt.NDArray[Any]:
    """The spans in the tokens of a sequence, an array of SPAN_DTYPE, counted from its start."""
    found, base = [np.empty(0, SPAN_DTYPE)], 0
    for stream, start, stop in places:
        spans = stream.spans(start, stop)
        for name in ("start", "stop"):
            spans[name] += np.uint64(base)
        found.append(spans)
        base += stop - start
    return np.concatenate(found)
