"""Every held-out token with what a model thought of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from hpctrain.errors import DataError
from hpctrain.loader.batches import make_batch
from hpctrain.loader.fim import content_spans
from hpctrain.progress import progress
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.shards.stream import TokenStream
from hpctrain.train.data import fim_tokens
from hpctrain.train.trained import Trained


@dataclass(frozen=True)
class ScoredText:
    """The tokens of one language that count: content, and the end mark after it. n tokens."""

    language: str
    stream: TokenStream
    positions: npt.NDArray[np.int64]
    """(n,) places in the stream, ascending."""
    nats: npt.NDArray[np.float64]
    """(n,) minus the logarithm of the probability that the model gave the token."""
    hits: npt.NDArray[np.bool_]
    """(n,) whether it was the model's likeliest token."""
    sizes: npt.NDArray[np.int64]
    """(n,) bytes of the token; an end mark has none."""


def check_tokenizer(trained: Trained, shards: Path) -> None:
    """Raises DataError unless shards were made with the model's tokenizer."""
    if read_shards_manifest(shards).inputs["tokenizer"] != trained.tokenizer.fingerprint:
        raise DataError(f"{shards}: made with another tokenizer than {trained.run}")


def first_sequences(stream: TokenStream, length: int, limit: int) -> list[int]:
    """The numbers of the sequences that training measures: the first of the stream."""
    return list(range(min(limit, count_sequences(stream, length))))


def count_sequences(stream: TokenStream, length: int) -> int:
    """Sequences of `length` targets that a stream is cut into."""
    return -(-(len(stream) - 1) // length)


def score_heldout(
    trained: Trained, chosen: Mapping[str, tuple[TokenStream, Sequence[int]]]
) -> Iterator[ScoredText]:
    """Score sequences of held-out streams by language; `chosen` has their numbers, ascending.

    A sequence stands alone, as in training. A language whose sequences hold no content is left out.
    """
    rows = trained.config.train.micro_batch_size
    with progress("evaluate", sum(len(numbers) for _, numbers in chosen.values()), "sequences") as bar:
        for language, (stream, numbers) in chosen.items():
            parts = []
            for first in range(0, len(numbers), rows):
                parts.append(_score(trained, stream, numbers[first : first + rows]))
                bar.advance(len(numbers[first : first + rows]))
            if not parts:
                continue
            positions, nats, hits = (np.concatenate(column) for column in zip(*parts, strict=True))
            if len(positions):
                ids = stream.read(int(positions[0]), int(positions[-1]) + 1)[positions - positions[0]]
                sizes = trained.tokenizer.token_bytes[ids].astype(np.int64)
                yield ScoredText(language, stream, positions, nats, hits, sizes)


def heldout_streams(trained: Trained, shards: Path) -> dict[str, TokenStream]:
    """The validation streams of shards by language.

    Raises DataError if they are damaged, or made with another tokenizer.
    """
    check_tokenizer(trained, shards)
    return {
        language: stream for language, stream in open_streams(shards, "validation").items() if len(stream) > 1
    }


def _score(
    trained: Trained, stream: TokenStream, numbers: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Positions, nats and hits of the tokens that count in these sequences of the stream."""
    length, marks = trained.config.data.sequence_length, fim_tokens(trained.tokenizer)
    sequences = np.full((len(numbers), length + 1), marks.end, dtype=np.int64)
    counted = np.zeros((len(numbers), length + 1), dtype=bool)
    for row, number in enumerate(numbers):
        piece = stream.read(number * length, min(len(stream), (number + 1) * length + 1))
        sequences[row, : len(piece)] = piece
        for start, stop in content_spans(sequences[row], marks):
            counted[row, start : stop + 1] = True  # the end mark is the model's own prediction too
        counted[row, len(piece) :] = False
    counted[:, 0] = False  # nothing stands before it
    batch = make_batch(sequences, marks.document)
    device = next(trained.model.parameters()).device
    with torch.inference_mode():
        logits = trained.model(batch.tokens.to(device), batch.boundaries.to(device)).float()
        targets = batch.targets.to(device)
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        hits = logits.argmax(-1) == targets
    kept = counted[:, 1:]
    places = np.arange(1, length + 1) + np.array(list(numbers), np.int64)[:, None] * length
    return places[kept], nats.cpu().numpy()[kept].astype(np.float64), hits.cpu().numpy()[kept]
