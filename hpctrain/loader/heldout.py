"""Held-out text, language by language, as batches whose loss adds up to bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hpctrain.loader.batches import Batch, make_batch
from hpctrain.loader.fim import FimTokens, content_spans
from hpctrain.loader.mixture import Stream
from hpctrain.parallel.topology import Topology

_IGNORED = -100  # what torch's cross-entropy leaves out


@dataclass(frozen=True)
class HeldOut:
    """The validation sequences of one language, for one rank."""

    micro_batches: list[Batch]
    """The same number on every rank."""
    positions: int
    """Positions of all ranks' batches, counted or not: mean loss times this is the sum in nats."""
    tokens: int
    """Targets that count: content and the end mark."""
    content_bytes: int
    """Bytes that these targets decode to."""


def build_heldout(
    streams: Mapping[str, Stream],
    marks: FimTokens,
    token_bytes: npt.NDArray[np.uint16],
    topology: Topology,
    sequence_length: int,
    micro_batch_size: int,
    sequences_per_language: int,
) -> dict[str, HeldOut]:
    """Cut each language's validation stream into sequences and deal them to the replicas.

    Only content and its end mark count; file names and marks are context. The last sequence is padded, and
    padding sequences fill the last step. A language whose sequences hold no content is left out.
    """
    parts = {
        language: _heldout(
            stream, marks, token_bytes, topology, sequence_length, micro_batch_size, sequences_per_language
        )
        for language, stream in streams.items()
        if len(stream) > 1
    }
    return {language: part for language, part in parts.items() if part.content_bytes}


def _heldout(
    stream: Stream,
    marks: FimTokens,
    token_bytes: npt.NDArray[np.uint16],
    topology: Topology,
    length: int,
    micro_batch_size: int,
    limit: int,
) -> HeldOut:
    count = min(limit, -(-(len(stream) - 1) // length))
    per_step = micro_batch_size * topology.data_parallel_size
    padded = -(-count // per_step) * per_step
    sequences = np.full((padded, length + 1), marks.end, dtype=np.int64)
    targets = np.full((padded, length), _IGNORED, dtype=np.int64)
    for number in range(count):
        piece = stream.read(number * length, min(len(stream), (number + 1) * length + 1))
        sequences[number, : len(piece)] = piece
        counted = _counted_targets(sequences[number], marks)
        counted[len(piece) - 1 :] = False
        targets[number, counted] = sequences[number, 1:][counted]
    kept = targets[targets != _IGNORED]
    micro_batches = []
    for first in range(topology.data_parallel_rank * micro_batch_size, padded, per_step):
        rows = slice(first, first + micro_batch_size)
        batch = make_batch(sequences[rows], marks.document)
        micro_batches.append(batch._replace(targets=torch.from_numpy(targets[rows])))
    return HeldOut(micro_batches, padded * length, len(kept), int(token_bytes[kept].sum(dtype=np.int64)))


def _counted_targets(sequence: npt.NDArray[np.int64], marks: FimTokens) -> npt.NDArray[np.bool_]:
    """Which of the targets sequence[1:] are content or the end mark that follows it."""
    counted = np.zeros(len(sequence), dtype=bool)
    for start, stop in content_spans(sequence, marks):
        counted[start : stop + 1] = True  # the end mark is the model's own prediction too
    return counted[1:]
