"""A compressed copy of shards, for storage and transfer: each file as FILE.zst, which `zstd -d` reads too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import xxhash

from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    checksum,
    disk_errors,
    find_finished,
    read_manifest,
)
from hpctrain.parallel.crew import ALONE, Crew, write_stage_together
from hpctrain.progress import progress, say
from hpctrain.shards.layout import SHARDS_KIND
from hpctrain.shards.reader import read_shards_manifest

ARCHIVE_KIND = "shards archive"
ARCHIVE_FORMAT = 1
SUFFIX = ".zst"
DEFAULT_LEVEL = 9
_FRAME_BYTES = 16 << 20
_BLOCK_BYTES = 4 << 20


def archive_shards(directory: Path, out: Path, level: int = DEFAULT_LEVEL, crew: Crew = ALONE) -> Manifest:
    """Publish a compressed copy of finished shards; returns its manifest. A collective call.

    Holds 16 MiB in memory. If `out` already holds this copy, it is left as it is. Raises DataError if the
    shards are missing or damaged, or `out` holds something else; ConfigError for a level that zstd lacks.
    """
    if not 1 <= level <= 19:
        raise ConfigError(f"--level: {level} is not one of 1 to 19")
    with crew.together():
        manifest = read_shards_manifest(directory)
    inputs = {"shards": manifest.fingerprint}
    if finished := crew.once(lambda: find_finished(out, ARCHIVE_KIND, ARCHIVE_FORMAT, inputs)):
        if crew.rank == 0:
            say(f"{out}: up to date")
        return finished
    own = directory / MANIFEST_NAME
    with crew.together():
        records = {
            **manifest.files,
            MANIFEST_NAME: FileRecord(bytes=own.stat().st_size, xxh3_128=checksum(own)),
        }
    total = sum(record.bytes for record in records.values())
    with write_stage_together(crew, out, ARCHIVE_KIND, ARCHIVE_FORMAT) as stage:
        stage.inputs = inputs
        stage.counts = {"bytes": total}
        stage.details = {"level": level}
        with (
            progress("archive", total / 1e6, "MB", visible=crew.rank == 0) as bar,
            crew.deal(sorted(records), lambda amount, status: bar.advance(amount)) as deal,
            disk_errors(stage.directory),
        ):
            for name in deal:
                with stage.path(name + SUFFIX).open("wb") as packed:
                    for plain in _whole(directory / name, records[name], _read_plain(directory / name)):
                        packed.write(pa.Codec("zstd", compression_level=level).compress(plain, asbytes=True))
                        deal.advance(len(plain) / 1e6)
                stage.seal(name + SUFFIX)
    return crew.once(lambda: read_manifest(out, ARCHIVE_KIND, ARCHIVE_FORMAT))


def restore_shards(archive: Path, out: Path, crew: Crew = ALONE) -> Manifest:
    """Publish the shards of an archive, byte by byte what they were; returns their manifest. Collective.

    Every file is compared with the checksum that the shards had. Raises DataError if the archive is missing
    or damaged, or `out` holds something else.
    """
    with crew.together():
        read_manifest(archive, ARCHIVE_KIND, ARCHIVE_FORMAT)
        manifest = _read_archived_manifest(archive)
    if finished := crew.once(
        lambda: find_finished(out, SHARDS_KIND, manifest.format_version, manifest.inputs)
    ):
        if finished.fingerprint != manifest.fingerprint:
            raise DataError(f"{out}: holds other shards; remove it or choose another directory")
        if crew.rank == 0:
            say(f"{out}: up to date")
        return finished
    total = sum(record.bytes for record in manifest.files.values())
    with write_stage_together(crew, out, SHARDS_KIND, manifest.format_version) as stage:
        stage.inputs, stage.counts, stage.details = manifest.inputs, manifest.counts, manifest.details
        with (
            progress("restore", total / 1e6, "MB", visible=crew.rank == 0) as bar,
            crew.deal(sorted(manifest.files), lambda amount, status: bar.advance(amount)) as deal,
            disk_errors(stage.directory),
        ):
            for name in deal:
                packed, record = archive / (name + SUFFIX), manifest.files[name]
                with stage.path(name).open("wb") as stream:
                    for plain in _whole(packed, record, _read_packed(packed)):
                        stream.write(plain)
                        deal.advance(len(plain) / 1e6)
                stage.seal(name)
    return crew.once(lambda: read_shards_manifest(out))


def _read_archived_manifest(archive: Path) -> Manifest:
    path = archive / (MANIFEST_NAME + SUFFIX)
    try:
        manifest = Manifest.model_validate_json(b"".join(_read_packed(path)))
    except ValueError as reason:
        raise DataError(f"{path}: not a readable manifest: {str(reason).splitlines()[0]}") from None
    if manifest.kind != SHARDS_KIND or manifest.seal != manifest.expected_seal():
        raise DataError(f"{path}: damaged, or not of shards")
    return manifest


def _whole(path: Path, record: FileRecord, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, up to the recorded size; at the end their checksum is compared."""
    digest, size = xxhash.xxh3_128(), 0
    for block in blocks:
        size += len(block)
        if size > record.bytes:
            break
        digest.update(block)
        yield block
    if size != record.bytes or digest.hexdigest() != record.xxh3_128:
        raise DataError(
            f"{path}: damaged (its content is not that of the shards' manifest); restore the file"
        )


def _read_plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_FRAME_BYTES):
            yield block


def _read_packed(path: Path) -> Iterator[bytes]:
    try:
        with (
            path.open("rb") as packed,
            pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd") as plain,
        ):
            while block := plain.read(_BLOCK_BYTES):
                yield block
    except OSError as reason:
        raise DataError(f"{path}: cannot be read: {reason}") from None
