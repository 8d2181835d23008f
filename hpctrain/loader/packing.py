"""Sequences of whole documents: a plan made once, kept beside the shards, and read through a memory map.

Documents are put together by best fit, as in "Fewer Truncations Improve Language Modeling" (Ding et al.,
arXiv 2404.10830): a document is cut only where it is longer than a sequence, and then into as few pieces as
can be. Blocks of about a million documents are packed one after the other, so memory does not grow with the
corpus.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpctrain.config import fingerprint
from hpctrain.errors import DataError
from hpctrain.loader.best_fit import Numbers, pack
from hpctrain.loader.component import Component, Part, Place
from hpctrain.manifest import Manifest, find_damage, is_finished, read_manifest, write_stage

PLAN_KIND = "packing"
PLAN_FORMAT = 1
_BLOCK_DOCUMENTS = 1 << 20
_COLUMNS = {"sequences": "<u8", "starts": "<u8", "lengths": "<u4"}


class PackedComponent(Component):
    """Parts of streams as sequences of S + 1 tokens that a plan puts together, filled up with padding."""

    def __init__(self, parts: Sequence[Part], sequence_length: int, plan: Path, pad: int) -> None:
        """Open a finished plan, which `make_plan` has verified."""
        super().__init__(parts, sequence_length)
        self.pad = pad
        self._sequences, self._starts, self._lengths = (
            np.asarray(np.memmap(plan / name, dtype, "r")) for name, dtype in _COLUMNS.items()
        )

    def __len__(self) -> int:
        return len(self._sequences) - 1

    def pieces(self, number: int) -> list[tuple[int, int]]:
        """Ranges of the parts laid end to end that make up a sequence."""
        rows = slice(*self._sequences[number : number + 2].tolist())
        starts = self._starts[rows].tolist()
        return [
            (start, start + size) for start, size in zip(starts, self._lengths[rows].tolist(), strict=True)
        ]

    def fill(self, tokens: npt.NDArray[np.int64], places: Sequence[Place]) -> int:
        """As a component's, and padding behind them."""
        stop = super().fill(tokens, places)
        tokens[stop:] = self.pad
        return stop


def plan_path(parts: Sequence[Part], sequence_length: int, shards: Manifest, directory: Path) -> Path:
    """Where the plan of these parts is kept, by a name that changes with all that it depends on."""
    extents = [[part.start, part.stop, *(shard.path.name for shard in part.stream.shards)] for part in parts]
    return directory / fingerprint(
        [PLAN_FORMAT, _BLOCK_DOCUMENTS, shards.fingerprint, sequence_length, extents]
    )


def make_plan(parts: Sequence[Part], sequence_length: int, path: Path) -> Manifest:
    """Make the plan `path`, or verify it if it is there; returns its manifest, with counts as in `Packed`.

    Raises DataError if the directory cannot be written or the plan is damaged.
    """
    if is_finished(path):
        if damage := find_damage(path, read_manifest(path, PLAN_KIND, PLAN_FORMAT)):
            raise DataError(f"{damage[0]}; remove {path}, and it is made again")
    else:
        aside = path.with_name(f"{path.name}-{uuid.uuid4().hex}")  # another job may be making the same
        with write_stage(aside, PLAN_KIND, PLAN_FORMAT) as stage, ExitStack() as stack:
            files = {name: stack.enter_context(stage.path(name).open("wb")) for name in _COLUMNS}
            stage.counts = _write_plan(parts, sequence_length, files)
        try:
            aside.rename(path)
        except OSError:
            if not is_finished(path):
                raise
            shutil.rmtree(aside)
    return read_manifest(path, PLAN_KIND, PLAN_FORMAT)


def _write_plan(parts: Sequence[Part], sequence_length: int, files: dict[str, Any]) -> dict[str, int]:
    counts = {"sequences": 0, "tokens": 0, "padding": 0, "documents": 0, "cut": 0}
    pieces = 0
    for starts, sizes in _blocks(parts):
        piece_starts, piece_sizes = cut_long(starts, sizes, sequence_length)
        order, bins = pack(piece_sizes, sequence_length + 1)
        columns = (bins[:-1] + pieces, piece_starts[order], piece_sizes[order])
        for (name, dtype), column in zip(_COLUMNS.items(), columns, strict=True):
            files[name].write(column.astype(dtype).tobytes())
        pieces += len(order)
        counts["sequences"] += len(bins) - 1
        counts["tokens"] += int(sizes.sum())
        counts["padding"] += (len(bins) - 1) * (sequence_length + 1) - int(piece_sizes.sum())
        counts["documents"] += len(sizes)
        counts["cut"] += int((sizes > sequence_length + 1).sum())
    files["sequences"].write(np.array([pieces], _COLUMNS["sequences"]).tobytes())
    return counts


def cut_long(starts: Numbers, sizes: Numbers, sequence_length: int) -> tuple[Numbers, Numbers]:
    """Cut documents of more than S + 1 tokens into pieces of so many that overlap by one, and a last one.

    The overlap is the last target of a piece and the first input of the next: each token is a target once.
    """
    counts = np.maximum(1, -(-(sizes - 1) // sequence_length))
    owners = np.repeat(np.arange(len(sizes)), counts)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    offsets = numbers * sequence_length
    return starts[owners] + offsets, np.minimum(sizes[owners] - offsets, sequence_length + 1)


def _blocks(parts: Sequence[Part]) -> Iterator[tuple[Numbers, Numbers]]:
    """Where documents begin in the parts laid end to end, and their sizes, in blocks of bounded size."""
    waiting: list[tuple[Numbers, Numbers]] = []
    count = 0
    for starts, sizes in _documents(parts):
        waiting.append((starts, sizes))
        count += len(starts)
        if count >= _BLOCK_DOCUMENTS:
            yield _join(waiting)
            waiting, count = [], 0
    if waiting:
        yield _join(waiting)


def _join(blocks: list[tuple[Numbers, Numbers]]) -> tuple[Numbers, Numbers]:
    return np.concatenate([starts for starts, _ in blocks]), np.concatenate([sizes for _, sizes in blocks])


def _documents(parts: Sequence[Part]) -> Iterator[tuple[Numbers, Numbers]]:
    base = 0
    for part in parts:
        last: Numbers = np.empty(0, np.int64)  # whose document's end is not known yet
        for found in part.stream.document_starts(part.start, part.stop):
            starts = np.concatenate([last, found])
            yield starts[:-1] - part.start + base, np.diff(starts)
            last = starts[-1:]
        yield last - part.start + base, part.stop - last
        base += len(part)


@dataclass(frozen=True)
class Packed:
    """What a way of packing makes of the documents."""

    packing: str
    sequences: int
    tokens: int
    padding: int
    """Positions that hold no token."""
    unread: int
    """Tokens that are in no sequence."""
    documents: int
    cut: int
    """Documents whose tokens are in several sequences."""


def measure_cut(parts: Sequence[Part], sequence_length: int) -> Packed:
    """What laying documents end to end and cutting does to them."""
    documents = cut = 0
    for starts, sizes in _documents(parts):
        documents += len(sizes)
        first, last = starts // sequence_length, (starts + sizes - 2) // sequence_length
        cut += int((last > first).sum())
    tokens = sum(len(part) for part in parts)
    sequences = max(0, (tokens - 1) // sequence_length)
    unread = tokens - (sequences * sequence_length + 1 if sequences else 0)
    return Packed("cut", sequences, tokens, 0, unread, documents, cut)


def measure_best_fit(plan: Manifest) -> Packed:
    """What a plan does to the documents."""
    return Packed("best_fit", unread=0, **plan.counts)
