"""From snapshots to a committed checkpoint, by files alone: no collective, so that a thread may do it.

Each rank writes its fragments and then a record of them. Rank 0 waits for the records, checks that together
they cover the model exactly once, writes the manifest and renames the directory. The directory's name is
new for each attempt, so nothing that a killed one left behind is ever taken for a part of this one.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import xxhash
from pydantic import ValidationError

from hpctrain.checkpoint.format import CHECKPOINT_FORMAT, CHECKPOINT_KIND, fragment_file
from hpctrain.checkpoint.snapshot import Snapshot
from hpctrain.config import Section
from hpctrain.errors import CheckpointError
from hpctrain.manifest import MANIFEST_NAME, FileRecord, Manifest, commit, sync_directory, write_atomically

FAILED = "the checkpoint could not be saved; the one before it is untouched"
"""The first line of every such error."""
_BLOCK_BYTES = 1 << 24
_POLL_SECONDS = 0.02


class SaveCancelledError(CheckpointError):
    """This rank's thread was told not to wait, because another's has failed: that one tells why."""


@dataclass(frozen=True)
class Attempt:
    """One save: where it is written, and where it will stand."""

    partial: Path
    """The directory of this attempt alone."""
    final: Path
    world_size: int
    cancelled: threading.Event
    """Set when a rank has failed, so that none waits for it."""
    began: float
    """By the monotonic clock."""


class RankRecord(Section):
    """What a rank tells of its file once that is whole on disk."""

    file: FileRecord
    ranges: dict[str, list[tuple[int, int]]]
    """The ranges of each parameter that the file holds."""
    shapes: dict[str, list[int]]
    """The whole shape of each parameter that the rank knows."""


def write_share(attempt: Attempt, rank: int, snapshot: Snapshot, shapes: Mapping[str, list[int]]) -> None:
    """Write this rank's fragments, flushed, and then the record of them. Raises OSError."""
    record = write_fragments(attempt.partial / fragment_file(rank), snapshot)
    told = RankRecord(file=record, ranges=snapshot.ranges, shapes=dict(shapes))
    write_atomically(attempt.partial / _record_file(rank), told.model_dump_json() + "\n")


def write_fragments(path: Path, snapshot: Snapshot) -> FileRecord:
    """Write a safetensors file from memory and flush it; the checksum is of the memory, not read back.

    The library's own writer needs each tensor in memory of its own, and its file read again for a checksum.
    """
    digest, size = xxhash.xxh3_128(), 0
    with path.open("wb") as stream:
        for block in _blocks(snapshot):
            stream.write(block)
            digest.update(block)
            size += len(block)
        stream.flush()
        os.fsync(stream.fileno())
    return FileRecord(bytes=size, xxh3_128=digest.hexdigest())


def _blocks(snapshot: Snapshot) -> Iterator[bytes | memoryview]:
    yield len(snapshot.header).to_bytes(8, "little") + snapshot.header
    for start in range(0, len(snapshot.data), _BLOCK_BYTES):
        yield snapshot.data[start : start + _BLOCK_BYTES]


def publish(
    attempt: Attempt,
    patience_seconds: float,
    inputs: Mapping[str, str],
    counts: Mapping[str, Any],
    layout: Mapping[str, int],
) -> Manifest:
    """Rank 0: wait for every rank's record, check coverage, write the manifest, rename into place.

    Raises CheckpointError or OSError; a checkpoint that was there before is touched in neither case.
    """
    records = _collect_records(attempt, patience_seconds)
    shapes = {name: shape for record in records for name, shape in record.shapes.items()}
    if problem := coverage_problem(shapes, [record.ranges for record in records]):
        raise CheckpointError(f"{FAILED}\n{attempt.partial}: {problem}; this is a defect")
    for rank in range(attempt.world_size):
        (attempt.partial / _record_file(rank)).unlink()
    parameters = sum(prod(shape) for shape in shapes.values())
    seconds = round(time.monotonic() - attempt.began, 3)
    manifest = commit(
        attempt.partial, CHECKPOINT_KIND, CHECKPOINT_FORMAT, inputs=inputs,
        counts={**counts, "parameters": parameters, "seconds": seconds},
        details={"shapes": shapes, "layout": layout},
        files={fragment_file(rank): record.file for rank, record in enumerate(records)},
    )  # fmt: skip
    if attempt.final.exists():
        remove_checkpoint(attempt.final)  # damaged, as a restore found: else the run had gone on from it
    attempt.partial.rename(attempt.final)
    sync_directory(attempt.final.parent)
    return manifest


def remove_checkpoint(directory: Path) -> None:
    """Delete a checkpoint, manifest first: one that is deleted by half is no checkpoint."""
    (directory / MANIFEST_NAME).unlink(missing_ok=True)
    shutil.rmtree(directory)


def coverage_problem(
    shapes: Mapping[str, Sequence[int]], shares: Sequence[Mapping[str, Sequence[tuple[int, int]]]]
) -> str | None:
    """What is not covered exactly once by the ranks' shares; None if everything is."""
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for share in shares:
        for name, mine in share.items():
            ranges[name] += mine
    for name, shape in shapes.items():
        covered = 0
        for start, stop in [*sorted(ranges[name]), (prod(shape), prod(shape))]:
            if start != covered:
                low, high = sorted((start, covered))
                how = "missing" if start > covered else "there twice"
                return f"{name}: elements {low} to {high} are {how}"
            covered = stop
    return None


def _record_file(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def _collect_records(attempt: Attempt, patience_seconds: float) -> list[RankRecord]:
    """Every rank's record, in the order of ranks, as soon as the last is there."""
    deadline = time.monotonic() + patience_seconds
    wanted = {_record_file(rank) for rank in range(attempt.world_size)}
    while missing := wanted - {path.name for path in attempt.partial.iterdir()}:
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"{FAILED}\n{attempt.partial}: {len(missing)} of {attempt.world_size} ranks' files did not "
                f"come in {patience_seconds:g} seconds (checkpoint.patience_seconds); first {min(missing)}"
            )
        if attempt.cancelled.wait(_POLL_SECONDS):
            raise SaveCancelledError(f"{attempt.partial}: another rank could not write")
    return [_read_record(attempt.partial / _record_file(rank)) for rank in range(attempt.world_size)]


def _read_record(path: Path) -> RankRecord:
    try:
        return RankRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as reason:
        problem = str(reason).splitlines()[0]
        raise CheckpointError(f"{FAILED}\n{path}: not a readable record: {problem}") from None
