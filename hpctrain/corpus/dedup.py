"""Duplicates: of files with equal bytes the first in corpus order stays, and so of near copies."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hpctrain.corpus.columns import ACCEPTED, Columns

PARTITION_ROWS = 1 << 21
"""About so many digests are sorted at a time: 24 bytes each, and as much again while they are sorted."""

Pairs = npt.NDArray[np.int64]
"""[n,2]: a file that is a duplicate, and the one that stays."""


class Crew(Protocol):
    """The ranks that share the work."""

    rank: int
    size: int

    def exchange(self, values: Any) -> Any:
        """Send one value to each rank; returns what the ranks sent here."""

    def barrier(self) -> None:
        """Wait for all."""


def drop_exact(columns: Columns, crew: Crew) -> None:
    """Mark the winner of every accepted file whose content came before; a collective call.

    Files are divided into partitions by digest, and each rank sorts one partition at a time.
    """
    rounds = max(1, -(-columns.count // (PARTITION_ROWS * crew.size)))
    for turn in range(rounds):
        pairs = exact_pairs(columns, turn * crew.size + crew.rank, rounds * crew.size)
        mark_winners(columns, pairs, crew)


def exact_pairs(columns: Columns, partition: int, partitions: int) -> Pairs:
    """The duplicates among the accepted files whose digests are in one of `partitions` equal ranges."""
    digests, accepted = columns.map("digest"), columns.map("accepted")
    keys, places = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)]
    for start, stop in columns.blocks():
        block = digests[start:stop]
        part = (block[:, 0] >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)
        rows = np.flatnonzero((part == partition) & (accepted[start:stop] == ACCEPTED))
        keys.append(block[rows])
        places.append(rows + start)
    key, place = np.concatenate(keys), np.concatenate(places)
    order = np.lexsort((place, key[:, 1], key[:, 0]))
    key, place = key[order], place[order]
    is_first = np.ones(len(key), bool)
    is_first[1:] = (key[1:] != key[:-1]).any(axis=1)
    winners = place[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]] if len(key) else place
    return np.stack([place[~is_first], winners[~is_first]], axis=1)


def mark_winners(
    columns: Columns, pairs: Pairs, crew: Crew, jaccard: npt.NDArray[np.float64] | None = None
) -> None:
    """Write pairs that any rank found into the columns; each rank writes the rows it owns. Collective."""
    owner = columns.owners(pairs[:, 0], crew.size)
    similarity = np.zeros(len(pairs)) if jaccard is None else jaccard
    sent = [(pairs[owner == rank], similarity[owner == rank]) for rank in range(crew.size)]
    winner, similar = columns.map("winner", "r+"), columns.map("jaccard", "r+")
    for mine, values in crew.exchange(sent):
        winner[mine[:, 0]] = mine[:, 1] + 1
        similar[mine[:, 0]] = values
    for column in (winner, similar):
        if isinstance(column, np.memmap):
            column.flush()
    crew.barrier()
