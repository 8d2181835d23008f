"""Near-duplicates over all documents of a corpus, by any number of ranks, in bounded memory.

Documents are taken in corpus order. One is dropped if it is a close copy of an earlier one that stays: so the
first of each group stays, and who is dropped is as similar to one that stays as the threshold says. Two are
compared if their signatures share a band and their estimated similarity is not far below the threshold; then
their shingles are compared exactly. So precision is 1 by that measure, and recall is that of the bands.

Groups may be large: a hundred releases of one library, thousands of files from one template. So not all pairs
of a bucket are compared at once, but each document with the first of those that stand, then with the first
few, and so on, until no two that stand and meet are uncompared. Who stands at the end is who would stand
after all comparisons: only one set of documents has no close pair inside, and for each outside an earlier
close one inside.

A rank holds 2 bytes a document, at most 56 for each of `table_rows` rows of one band, `cache_bytes` of
shingles, and for each pair compared 8 bytes, for each close one 24, at the peak 140. There are about as many
close pairs as documents dropped. Signatures stay on disk. The bands, in parts where a band has more rows than
a table, are shared by the ranks; so are comparisons.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hpctrain.config import Section
from hpctrain.corpus.minhash import (
    NOT_COMPARED,
    Hashes,
    Signature,
    Sketcher,
    band_keys,
    choose_bands,
    estimate,
    jaccard,
)
from hpctrain.corpus.normalise import Normaliser
from hpctrain.parallel.crew import Crew

NEAR_DUPLICATE = np.dtype([("dropped", "<u8"), ("kept", "<u8"), ("jaccard", "<f8")])
"""One row of an answer: places of two documents in corpus order, and their exact similarity."""

TABLE_ROWS = 1 << 22
CACHE_BYTES = 128 << 20
_BLOCK_ROWS = 1 << 14
_ENTRY_BYTES = 256
_DEVIATIONS = 3.0
_WIDENING = 4
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


class DuplicatesConfig(Section):
    """Which files are copies of another."""

    near: bool = True
    """Whether to drop near copies too; files of equal bytes are always dropped."""
    threshold: float = Field(0.8, gt=0, lt=1)
    """Files at least as similar as this are near copies: Jaccard similarity of their sets of shingles."""
    shingle_tokens: int = Field(5, ge=1, le=64)
    """A shingle is so many tokens in a row, without comments, strings, case, form and precision."""
    min_shingles: int = Field(16, ge=1)
    """Files with fewer distinct shingles are not compared: the short ones are alike by necessity."""
    permutations: int = Field(128, ge=16, le=4096)
    """Places of a signature. More find more of the copies near the threshold; 4 bytes each a file."""
    recall: float = Field(0.95, gt=0, lt=1)
    """Pairs at the threshold are compared with this probability at least; more similar ones more surely."""


class Signer:
    """From content to shingles and signature by one config."""

    def __init__(self, config: DuplicatesConfig) -> None:
        self.config = config
        self._normaliser = Normaliser(config.shingle_tokens)
        self._sketcher = Sketcher(config.permutations)

    def shingles_of(self, content: bytes, language: str) -> Hashes:
        """The shingles of a document, sorted and distinct; none if it is too short to be compared."""
        found = self._normaliser.shingles(content, language)
        return found if len(found) >= self.config.min_shingles else found[:0]

    def sketch(self, shingles: Hashes) -> Signature:
        """The signature of shingles, uint32 [permutations]; all NOT_COMPARED if there are none."""
        return self._sketcher.signature(shingles)

    def signature_of(self, content: bytes, language: str) -> Signature:
        """The signature of a document; all NOT_COMPARED if it is too short."""
        return self.sketch(self.shingles_of(content, language))


def find_near_duplicates(
    signatures: Signature,
    read_shingles: Callable[[int], Hashes],
    config: DuplicatesConfig,
    crew: Crew,
    table_rows: int = TABLE_ROWS,
    cache_bytes: int = CACHE_BYTES,
) -> npt.NDArray[Any]:
    """Near-duplicates among the documents of a corpus, as NEAR_DUPLICATE rows in order of what is dropped.

    signatures: uint32 [n,k] in corpus order, n below 2^32, the same on every rank; as a rule a memory map,
    best in Fortran's order, as bands are read by columns. read_shingles: the shingles of the document at a
    place, as `Signer` makes them; its errors are raised on every rank. Every rank calls this and gets the
    same answer, which does not depend on the number of ranks or on the last two.
    """
    if not config.near:
        return np.empty(0, NEAR_DUPLICATE)
    return _Search(signatures, read_shingles, config, crew, table_rows, cache_bytes).run()


class _Search:
    """The state of one search; equal on all ranks after every step. A pair is later << 32 | earlier."""

    def __init__(
        self,
        signatures: Signature,
        read_shingles: Callable[[int], Hashes],
        config: DuplicatesConfig,
        crew: Crew,
        table_rows: int,
        cache_bytes: int,
    ) -> None:
        self.signatures, self.config, self.crew = signatures, config, crew
        self.cache = _Cache(read_shingles, cache_bytes)
        self.bands, self.rows = choose_bands(config.threshold, signatures.shape[1], config.recall)
        deviation = math.sqrt(config.threshold * (1 - config.threshold) / signatures.shape[1])
        self.least_estimate = config.threshold - _DEVIATIONS * deviation
        self.compared = signatures[:, 0] != NOT_COMPARED
        self.standing = self.compared.copy()
        self.parts = max(1, -(-int(self.compared.sum()) // table_rows))
        self.tested = np.empty(0, np.uint64)
        self.close = np.empty(0, np.uint64)
        self.similarity = np.empty(0, np.float64)

    def run(self) -> npt.NDArray[Any]:
        """Propose, compare and settle with an ever wider window until nothing is left to compare."""
        window, chosen = 1, np.empty(0, np.bool_)
        while True:
            pairs, complete = self._propose(window)
            if not len(pairs) and complete:
                return self._answer(chosen)
            self._compare(pairs)
            chosen = self._settle()
            window *= _WIDENING

    def _propose(self, window: int) -> tuple[Hashes, bool]:
        """Pairs to compare, sorted and distinct; and whether all that meet were looked at."""
        found, complete = np.empty(0, np.uint64), True
        with self.crew.together():
            for task in range(self.crew.rank, self.bands * self.parts, self.crew.size):
                first, members = self._buckets(*divmod(task, self.parts))
                for pairs in _pairs_within(first, members, window):
                    found = np.union1d(found, self._promising(pairs[~_among(pairs, found)]))
                complete &= not len(first) or _largest(first) <= window + 1
        shares = self.crew.allgather((found, complete))
        return np.unique(np.concatenate([pairs for pairs, _ in shares])), all(done for _, done in shares)

    def _buckets(self, band: int, part: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint32]]:
        """Documents that share a band with another, bucket by bucket in corpus order.

        Returns for each the place of its bucket's first, and its document.
        """
        columns = slice(band * self.rows, (band + 1) * self.rows)
        keys, documents = [], []
        for start in range(0, len(self.standing), _BLOCK_ROWS):
            rows = np.flatnonzero(self.standing[start : start + _BLOCK_ROWS])
            block = band_keys(self.signatures[start : start + _BLOCK_ROWS, columns][rows])
            mine = (block >> _SHIFT) * np.uint64(self.parts) >> _SHIFT == part
            keys.append(block[mine])
            documents.append((rows[mine] + start).astype(np.uint32))
        if not keys:
            return np.empty(0, np.intp), np.empty(0, np.uint32)
        key = np.concatenate(keys)
        order = np.argsort(key, kind="stable")
        key = key[order]
        begins = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        sizes = np.diff(np.append(begins, len(key)))
        shared = np.repeat(sizes > 1, sizes)
        sizes = sizes[sizes > 1]
        return np.repeat(np.cumsum(sizes) - sizes, sizes), np.concatenate(documents)[order[shared]]

    def _promising(self, pairs: Hashes) -> Hashes:
        """Those of some pairs that are not compared yet, and not known to be far apart by their estimate."""
        pairs = pairs[~_among(pairs, self.tested)]
        later, earlier = pairs >> _SHIFT, pairs & _LOW
        return pairs[estimate(self.signatures[later], self.signatures[earlier]) >= self.least_estimate]

    def _compare(self, pairs: Hashes) -> None:
        """Compare shingle sets exactly, each rank its share; pairs above the threshold are noted as close."""
        mine = np.array_split(pairs, self.crew.size)[self.crew.rank]
        measured = np.empty(len(mine), np.float64)
        with self.crew.together():
            for place, pair in enumerate(mine):
                measured[place] = jaccard(self.cache[int(pair >> _SHIFT)], self.cache[int(pair & _LOW)])
        similarity = np.concatenate(self.crew.allgather(measured))
        hits = similarity >= self.config.threshold
        self.tested = np.union1d(self.tested, pairs)
        close, similar = np.append(self.close, pairs[hits]), np.append(self.similarity, similarity[hits])
        order = np.argsort(close)
        self.close, self.similarity = close[order], similar[order]

    def _settle(self) -> npt.NDArray[np.bool_]:
        """Decide who stands, in corpus order. Returns which of the close pairs drop a document."""
        self.standing[:] = self.compared
        chosen = np.zeros(len(self.close), np.bool_)
        for start in range(0, len(self.close), _BLOCK_ROWS):
            for place, pair in enumerate(self.close[start : start + _BLOCK_ROWS].tolist(), start):
                later, earlier = pair >> 32, pair & 0xFFFFFFFF
                if self.standing[later] and self.standing[earlier]:
                    self.standing[later] = False
                    chosen[place] = True
        return chosen

    def _answer(self, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        answer = np.empty(np.count_nonzero(chosen), NEAR_DUPLICATE)
        answer["dropped"], answer["kept"] = self.close[chosen] >> _SHIFT, self.close[chosen] & _LOW
        answer["jaccard"] = self.similarity[chosen]
        return answer


class _Cache:
    """The shingles read last, up to a number of bytes."""

    def __init__(self, read: Callable[[int], Hashes], limit_bytes: int) -> None:
        self._read, self._limit_bytes, self._bytes = read, limit_bytes, 0
        self._held: OrderedDict[int, Hashes] = OrderedDict()

    def __getitem__(self, document: int) -> Hashes:
        if document in self._held:
            self._held.move_to_end(document)
            return self._held[document]
        found = self._held[document] = self._read(document)
        self._bytes += found.nbytes + _ENTRY_BYTES
        while self._bytes > self._limit_bytes and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes + _ENTRY_BYTES
        return found


def _pairs_within(
    first: npt.NDArray[np.intp], members: npt.NDArray[np.uint32], window: int
) -> Iterator[Hashes]:
    """Blocks of the pairs of each member with the first `window` before it in its bucket."""
    within = np.arange(len(first)) - first
    for offset in range(window):
        later = np.flatnonzero(within > offset)
        if not len(later):
            return
        for start in range(0, len(later), _BLOCK_ROWS):
            block = later[start : start + _BLOCK_ROWS]
            yield members[block].astype(np.uint64) << _SHIFT | members[first[block] + offset].astype(
                np.uint64
            )


def _largest(first: npt.NDArray[np.intp]) -> int:
    """Members of the largest bucket."""
    return int((np.arange(len(first)) - first).max()) + 1


def _among(values: Hashes, ordered: Hashes) -> npt.NDArray[np.bool_]:
    """Which of some values are in a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: npt.NDArray[np.bool_] = ordered[places] == values
    return found
