"""Whole matrices out of their ranks' pieces, each on one rank, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from hpctrain.engine.orthogonal import cost, orthogonalize, update_scale, working_dtype


@dataclass(frozen=True)
class Share:
    """This rank's range of one matrix, flattened; empty where other ranks hold all of it."""

    shape: tuple[int, int]
    """Of the whole matrix: rows, columns."""
    start: int
    """First element of the range."""
    offset: int
    """Where the range begins in the tensor that is exchanged."""
    elements: int
    """Length of the range."""


def deal(costs: Sequence[int], held: Sequence[Sequence[int]]) -> list[int]:
    """Which rank takes which matrix: the dearest first, each to the rank with the least to do so far.

    `held[rank][matrix]`: elements that each rank has already; among equals, the one with the most gets it.
    """
    loads, owners = [0] * len(held), [0] * len(costs)
    for matrix in sorted(range(len(costs)), key=lambda each: -costs[each]):
        rank = min(range(len(held)), key=lambda each: (loads[each], -held[each][matrix], each))
        owners[matrix] = rank
        loads[rank] += costs[matrix]
    return owners


class Exchange:
    """Brings the matrices of one flat tensor together on the ranks of a group, in one order on all of them.

    Making one is a collective call of the group, as is `orthogonalize`. `group`: a torch process group,
    of which `rank` is this process and `size` the number; of size 1 it is not used.
    """

    def __init__(
        self, shares: Sequence[Share], group: Any, rank: int, size: int, device: torch.device
    ) -> None:
        self.shares, self.group, self.size = list(shares), group, size
        ranges = self._gather_ranges(device)
        held = [[elements for _, elements in theirs] for theirs in ranges]
        owners = deal([cost(share.shape) for share in shares], held)
        self.outgoing = sorted(range(len(shares)), key=lambda each: (owners[each], each))
        self.send_counts = [0] * size
        for share, owner in zip(shares, owners, strict=True):
            self.send_counts[owner] += share.elements
        owned = [each for each, owner in enumerate(owners) if owner == rank]
        self.owned = {each: [theirs[each] for theirs in ranges] for each in owned}
        """The matrices this rank takes, with (start, elements) of each rank's part."""
        self.receive_counts = [sum(theirs[each][1] for each in owned) for theirs in ranges]

    def orthogonalize(self, update: Tensor) -> None:
        """Replace, in a 1-D tensor, this rank's range of each matrix by that of its scaled orthogonal one.

        The pieces travel in the dtype in which they are orthogonalized, so nothing is lost on the way.
        """
        if not self.shares:
            return
        spans = [self._span(self.shares[each]) for each in self.outgoing]
        sent = torch.cat([update[span] for span in spans]).to(working_dtype(update.device))
        received = self._exchange(sent, self.send_counts, self.receive_counts)
        del sent
        for matrix, parts in self._owned_parts(received):
            shape = self.shares[matrix].shape
            whole = received.new_empty(prod(shape))
            for start, part in parts:
                whole[start : start + part.numel()] = part
            orthogonal = orthogonalize(whole.view(shape)).reshape(-1)
            for start, part in parts:
                part.copy_(orthogonal[start : start + part.numel()])
        returned = self._exchange(received, self.receive_counts, self.send_counts)
        position = 0
        for each, span in zip(self.outgoing, spans, strict=True):
            share = self.shares[each]
            piece = returned[position : position + share.elements]
            update[span] = piece.to(update.dtype) * update_scale(share.shape)
            position += share.elements

    def _gather_ranges(self, device: torch.device) -> list[list[tuple[int, int]]]:
        """(start, elements) of each matrix on each rank."""
        mine = [(share.start, share.elements) for share in self.shares]
        if self.size == 1 or not mine:
            return [mine] * self.size
        table = torch.tensor(mine, device=device)
        gathered = [torch.empty_like(table) for _ in range(self.size)]
        torch.distributed.all_gather(gathered, table, group=self.group)
        return [[(start, elements) for start, elements in theirs.tolist()] for theirs in gathered]

    def _owned_parts(self, received: Tensor) -> Iterator[tuple[int, list[tuple[int, Tensor]]]]:
        """Each matrix this rank takes, with its parts: where in it each begins, and a view of `received`."""
        positions, position = {}, 0
        for rank in range(self.size):
            for matrix, ranges in self.owned.items():
                positions[rank, matrix] = position
                position += ranges[rank][1]
        for matrix, ranges in self.owned.items():
            yield (
                matrix,
                [
                    (start, received[positions[rank, matrix] :][:elements])
                    for rank, (start, elements) in enumerate(ranges)
                ],
            )

    def _exchange(self, sent: Tensor, send_counts: list[int], receive_counts: list[int]) -> Tensor:
        if self.size == 1:
            return sent
        received = sent.new_empty(sum(receive_counts))
        torch.distributed.all_to_all_single(received, sent, receive_counts, send_counts, group=self.group)
        return received

    @staticmethod
    def _span(share: Share) -> slice:
        return slice(share.offset, share.offset + share.elements)
