"""From sample numbers to the tensors of a step: read, rearrange, cut into inputs and targets, prefetch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from hpctrain.loader.component import Component, spans_of
from hpctrain.loader.cutting import Cutter
from hpctrain.loader.fim import FimConfig, FimTokens, rearrange
from hpctrain.loader.order import Indices, SampleOrder
from hpctrain.parallel.topology import Topology

_PREFETCHED_STEPS = 2
_IGNORED = -100  # what torch's cross-entropy leaves out


class Batch(NamedTuple):
    """One micro-batch of B sequences of S positions."""

    tokens: Tensor
    """[B,S] int64"""
    targets: Tensor
    """[B,S] int64: the token that follows each position; -100 where there is none to learn."""
    boundaries: Tensor
    """[B*S+1] int32: cumulative document lengths, padded with B*S; see `model.attention`."""


class StepData(NamedTuple):
    """What one rank needs of one global batch."""

    micro_batches: list[Batch]
    digest: int
    """This rank's share of the batch digest: summed over the data-parallel ranks modulo 2^64, the whole."""
    counted: int = 0
    """Targets of this rank that count, where only responses do."""


@dataclass(frozen=True)
class SampleReader:
    """Sample numbers -> tokens [samples, S + 1]."""

    order: SampleOrder
    components: Sequence[Component]
    fim: FimConfig
    marks: FimTokens
    cutter: Cutter | None = None
    """For cuts between characters."""
    responses_only: bool = False
    """Whether only the responses of examples are learnt, which the shards' spans are."""

    def read(self, samples: Indices) -> npt.NDArray[np.int64]:
        """The sequences of these samples, in turn: [samples, S + 1]."""
        where = zip(samples.tolist(), *(part.tolist() for part in self.order.locate(samples)), strict=True)
        sequences = np.empty((len(samples), self.components[0].sequence_length + 1), np.int64)
        for row, (sample, component, number) in zip(sequences, where, strict=True):
            self._read(row, sample, self.components[component], number)
        return sequences

    def counted(self, samples: Indices) -> npt.NDArray[np.bool_]:
        """Which tokens of these samples' sequences are of a response: [samples, S + 1]."""
        where = list(zip(*(part.tolist() for part in self.order.locate(samples)), strict=True))
        length = self.components[0].sequence_length + 1
        counted = np.zeros((len(where), length), bool)
        for row, (component, sequence) in zip(counted, where, strict=True):
            spans = spans_of(self.components[component].places(sequence))
            for start, stop in zip(spans["start"].tolist(), spans["stop"].tolist(), strict=True):
                row[start:stop] = True
        return counted

    def _read(self, row: npt.NDArray[np.int64], sample: int, component: Component, number: int) -> None:
        places = component.places(number)
        component.fill(row, places)
        if self.fim.rate:
            spans = spans_of(places) if self.fim.spans else None
            row[:] = rearrange(row, sample, self.fim, self.marks, self.order.seed, spans, self.cutter)


def make_batch(sequences: npt.NDArray[np.int64], document_mark: int) -> Batch:
    """Sequences [B, S+1] -> inputs, targets and the boundaries of the documents packed in them.

    A document begins at its mark and at the start of each sequence.
    """
    inputs = sequences[:, :-1]
    starts = inputs == document_mark
    starts[:, 0] = True
    edges = np.flatnonzero(starts)
    boundaries = np.full(inputs.size + 1, inputs.size, dtype=np.int32)
    boundaries[: len(edges)] = edges
    return Batch(
        torch.from_numpy(np.ascontiguousarray(inputs)),
        torch.from_numpy(np.ascontiguousarray(sequences[:, 1:])),
        torch.from_numpy(boundaries),
    )


def make_packed_batch(
    sequences: npt.NDArray[np.int64], marks: FimTokens, counted: npt.NDArray[np.bool_] | None = None
) -> Batch:
    """As `make_batch`, of sequences that a plan put together.

    What follows an end begins anew even without a mark: the rest of a long document, or padding. Neither is
    to be learnt from what stands before it. `counted` [B, S+1]: the tokens to learn, where not all are.
    """
    inputs, targets = sequences[:, :-1], sequences[:, 1:].copy()
    starts = inputs == marks.document
    starts[:, 0] = True
    starts[:, 1:] |= inputs[:, :-1] == marks.end
    edges = np.flatnonzero(starts)
    boundaries = np.full(inputs.size + 1, inputs.size, dtype=np.int32)
    boundaries[: len(edges)] = edges
    targets[(targets == marks.pad) | ((inputs == marks.end) & (targets != marks.document))] = _IGNORED
    if counted is not None:
        targets[~counted[:, 1:]] = _IGNORED
    return Batch(
        torch.from_numpy(np.ascontiguousarray(inputs)),
        torch.from_numpy(targets),
        torch.from_numpy(boundaries),
    )


def digest_of(samples: Indices, sequences: npt.NDArray[np.int64] | Sequence[npt.NDArray[np.int64]]) -> int:
    """A sum, modulo 2^64, of the hashes of these sequences under their sample numbers.

    Being a sum, it is the same however the samples of a global batch are spread over ranks.
    """
    rows = np.asarray(sequences).astype("<u4")
    hashes = (
        xxhash.xxh3_64_intdigest(row, seed=sample) for sample, row in zip(samples.tolist(), rows, strict=True)
    )
    return sum(hashes) % 2**64


class BatchLoader:
    """The steps of one rank. Its whole state is the number of samples the run has consumed."""

    def __init__(
        self,
        reader: SampleReader,
        topology: Topology,
        global_batch_size: int,
        micro_batch_size: int,
        device: torch.device | None = None,
    ) -> None:
        """`device`: where batches go. For a GPU they are page-locked, so that nothing waits for copies."""
        self.reader, self.topology = reader, topology
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.gpu = device if device is not None and device.type == "cuda" else None

    def steps(self, first_sample: int, count: int) -> Iterator[StepData]:
        """`count` steps from `first_sample` on, read ahead by a thread."""
        firsts = range(first_sample, first_sample + count * self.global_batch_size, self.global_batch_size)
        with ThreadPoolExecutor(1, "loader", self._enter_thread) as pool:
            ahead = [pool.submit(self.load, first) for first in firsts[:_PREFETCHED_STEPS]]
            try:
                for number in range(count):
                    if number + _PREFETCHED_STEPS < count:
                        ahead.append(pool.submit(self.load, firsts[number + _PREFETCHED_STEPS]))
                    yield ahead.pop(0).result()
            finally:
                for future in ahead:
                    future.cancel()

    def load(self, first_sample: int) -> StepData:
        """This rank's micro-batches of the global batch that begins at `first_sample`."""
        mine = self.samples(first_sample)
        sequences = self.reader.read(mine)
        counted = self.reader.counted(mine) if self.reader.responses_only else None
        micro_batches = []
        for start in range(0, len(mine), self.micro_batch_size):
            rows = slice(start, start + self.micro_batch_size)
            micro_batches.append(self._batch(sequences[rows], None if counted is None else counted[rows]))
        learnt = 0 if counted is None else sum(int((b.targets != _IGNORED).sum()) for b in micro_batches)
        return StepData(micro_batches, digest_of(mine, sequences), learnt)

    def _enter_thread(self) -> None:
        if self.gpu is not None:  # else page-locking would open a context on the first GPU
            torch.cuda.set_device(self.gpu)

    def _batch(self, rows: npt.NDArray[np.int64], counted: npt.NDArray[np.bool_] | None) -> Batch:
        marks, is_packed = self.reader.marks, self.reader.marks.pad >= 0
        batch = make_packed_batch(rows, marks, counted) if is_packed else make_batch(rows, marks.document)
        return batch if self.gpu is None else Batch(*(tensor.pin_memory() for tensor in batch))

    def samples(self, first_sample: int) -> Indices:
        """The sample numbers of this rank: micro-batches are dealt to the replicas in turn."""
        numbers = np.arange(first_sample, first_sample + self.global_batch_size, dtype=np.int64)
        dealt = numbers.reshape(-1, self.topology.data_parallel_size, self.micro_batch_size)
        return dealt[:, self.topology.data_parallel_rank].reshape(-1)
