"""Best-fit-decreasing bin packing of many pieces of few lengths, in whole groups at a time."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def pack(lengths: Numbers, capacity: int) -> tuple[Numbers, Numbers]:
    """Put pieces into as few bins as best-fit-decreasing finds, each piece whole.

    Longer pieces go first, each into the bin with the least room that still takes it. Returns the numbers of
    the pieces, bin by bin, and where each bin begins among them, with the end. Lengths are from 1 to
    `capacity`. Takes a few array operations for each length that occurs, however many pieces there are.
    """
    if not len(lengths):
        return lengths, np.zeros(1, np.int64)
    order = np.argsort(-lengths, kind="stable")
    bins = np.empty(len(lengths), np.int64)
    rooms = _Rooms(capacity)
    values, firsts = np.unique(-lengths[order], return_index=True)
    for value, first, last in zip(
        values.tolist(), firsts.tolist(), [*firsts[1:].tolist(), len(lengths)], strict=True
    ):
        _place(bins[first:last], -value, rooms)
    by_bin = np.argsort(bins, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=rooms.count))]).astype(np.int64)
    return order[by_bin], starts


def _place(bins: Numbers, length: int, rooms: _Rooms) -> None:
    """Choose the bins of pieces of one length. A bin that took one is then the fullest that takes another."""
    done = 0
    while done < len(bins):
        room, found = rooms.take(length, len(bins) - done)
        each = room // length
        used = min(len(found), -(-(len(bins) - done) // each))
        count = min(used * each, len(bins) - done)
        bins[done : done + count] = np.repeat(found[:used], each)[:count]
        full, rest = divmod(count, each)
        rooms.give(room, found[used:])
        rooms.give(room - each * length, found[:full])
        if rest:
            rooms.give(room - rest * length, found[full:used])
        done += count


class _Rooms:
    """Bins by the room left in them."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self._bins: list[deque[Numbers]] = [deque() for _ in range(capacity + 1)]
        self._mask = 0  # bit r: there are bins with room r

    def take(self, length: int, wanted: int) -> tuple[int, Numbers]:
        """The least room of `length` or more that bins have, and these; else new bins for `wanted` pieces."""
        fitting = self._mask >> length
        if not fitting:
            new = -(-wanted // (self.capacity // length))
            self.count += new
            return self.capacity, np.arange(self.count - new, self.count, dtype=np.int64)
        room = length + (fitting & -fitting).bit_length() - 1
        found = np.concatenate(self._bins[room])
        self._bins[room].clear()
        self._mask &= ~(1 << room)
        return room, found

    def give(self, room: int, bins: Numbers) -> None:
        """Note bins with this room; those without any need no note."""
        if room and len(bins):
            self._bins[room].append(bins)
            self._mask |= 1 << room
