"""Held-out text, language by language, as batches whose loss adds up to bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hpctrain.loader.batches import Batch, make_batch, make_packed_batch
from hpctrain.loader.best_fit import pack
from hpctrain.loader.fim import FimTokens, content_spans
from hpctrain.loader.mixture import Stream
from hpctrain.parallel.topology import Topology
from hpctrain.shards.stream import TokenStream

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


def build_heldout_responses(
    streams: Mapping[str, TokenStream],
    marks: FimTokens,
    token_bytes: npt.NDArray[np.uint16],
    topology: Topology,
    sequence_length: int,
    micro_batch_size: int,
    sequences_per_language: int,
) -> dict[str, HeldOut]:
    """As `build_heldout`, of examples that are kept whole and of which only the responses count.

    `marks` tell what padding is. Of more sequences than are asked for, some from everywhere are taken.
    """
    per_step = micro_batch_size * topology.data_parallel_size
    found = {}
    for language, stream in streams.items():
        sequences, counted = _whole_examples(stream, sequence_length, marks.pad, sequences_per_language)
        padding = -len(sequences) % per_step
        sequences = np.pad(sequences, ((0, padding), (0, 0)), constant_values=marks.pad)
        counted = np.pad(counted, ((0, padding), (0, 0)))
        micro_batches = [
            make_packed_batch(sequences[rows], marks, counted[rows])
            for first in range(topology.data_parallel_rank * micro_batch_size, len(sequences), per_step)
            for rows in [slice(first, first + micro_batch_size)]
        ]
        kept = sequences[:, 1:][counted[:, 1:]]
        content_bytes = int(token_bytes[kept].sum(dtype=np.int64))
        if content_bytes:
            positions = len(sequences) * sequence_length
            found[language] = HeldOut(micro_batches, positions, len(kept), content_bytes)
    return found


def _whole_examples(
    stream: TokenStream, length: int, pad: int, limit: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Sequences [n, S + 1] of whole examples, and which of their tokens are responses."""
    starts = np.concatenate([np.empty(0, np.int64), *stream.document_starts(0, len(stream))])
    order, bins = pack(np.diff(starts, append=len(stream)), length + 1)
    ends = np.append(starts[1:], len(stream))
    chosen = np.unique(np.linspace(0, len(bins) - 2, min(limit, len(bins) - 1)).astype(np.int64))
    sequences = np.full((len(chosen), length + 1), pad, np.int64)
    counted = np.zeros(sequences.shape, bool)
    for row, number in enumerate(chosen.tolist()):
        at = 0
        for document in order[bins[number] : bins[number + 1]].tolist():
            start, stop = int(starts[document]), int(ends[document])
            sequences[row, at : at + stop - start] = stream.read(start, stop)
            for span in stream.spans(start, stop):
                counted[row, at + int(span["start"]) : at + int(span["stop"])] = True
            at += stop - start
    return sequences, counted


def _counted_targets(sequence: npt.NDArray[np.int64], marks: FimTokens) -> npt.NDArray[np.bool_]:
    """Which of the targets sequence[1:] are content or the end mark that follows it."""
    counted = np.zeros(len(sequence), dtype=bool)
    for start, stop in content_spans(sequence, marks):
        counted[start : stop + 1] = True  # the end mark is the model's own prediction too
    return counted[1:]
