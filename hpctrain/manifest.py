"""Stage directories: everything is written aside, the manifest last, and the whole is renamed into place.

A directory is a finished stage if and only if it holds `manifest.json`. The manifest carries the size and
XXH3-128 checksum of every other file, so corruption is found before anything is parsed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash
from pydantic import ValidationError

from hpctrain.config import Section, fingerprint
from hpctrain.errors import DataError, HpctrainError

MANIFEST_NAME = "manifest.json"
_BLOCK_BYTES = 1 << 22


class FileRecord(Section):
    """What the manifest knows of one file."""

    bytes: int
    """Size in bytes."""
    xxh3_128: str
    """Hex digest of the content."""


class Manifest(Section):
    """The commit record of a stage directory."""

    kind: str
    """What the directory holds: corpus, tokenizer, shards, checkpoint, export."""
    format_version: int
    """Version of the directory's layout; a reader refuses a newer one."""
    inputs: dict[str, str]
    """Fingerprints of everything this stage was made from, by name."""
    counts: dict[str, Any]
    """Numbers a reader wants without opening the files."""
    files: dict[str, FileRecord]
    """Every file of the stage by its path relative to the directory."""
    details: dict[str, Any] = {}
    """Whatever else the stage records; not part of the fingerprint."""
    seal: str = ""
    """Hash of everything above, so that a damaged manifest is not believed."""

    def expected_seal(self) -> str:
        """What `seal` must be."""
        return fingerprint(self.model_dump(mode="json", exclude={"seal"}))

    @property
    def fingerprint(self) -> str:
        """Identity of the stage's content: equal for equal bytes, whenever and wherever it was built."""
        return fingerprint({"kind": self.kind, "files": {n: f.model_dump() for n, f in self.files.items()}})


class StageWriter:
    """Where a stage writes its files before they are published; see `write_stage`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.inputs: dict[str, str] = {}
        self.counts: dict[str, Any] = {}
        self.details: dict[str, Any] = {}
        self.files: dict[str, FileRecord] = {}

    def path(self, name: str) -> Path:
        """Where to write the file `name` (relative, may contain folders)."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: Any) -> None:
        """Write a small JSON file of the stage."""
        self.path(name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def seal(self, name: str) -> None:
        """Flush and hash the finished file `name` now; what is not sealed so is sealed at the end."""
        self.files[name] = seal_file(self.directory / name)


@contextmanager
def write_stage(final: Path, kind: str, format_version: int) -> Iterator[StageWriter]:
    """Write a stage aside and publish it whole when the block ends without an error.

    Files go to `.<name>.partial` beside `final`; what a killed run left there is discarded. A published
    directory is never overwritten: the caller decides beforehand whether it is still good.
    """
    if (final / MANIFEST_NAME).exists():
        raise DataError(f"{final}: already holds a finished {kind}; remove it or choose another directory")
    partial = partial_directory(final)
    with disk_errors(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        writer = StageWriter(partial)
        yield writer
        files = {name: writer.files.get(name) or seal_file(partial / name) for name in _names_in(partial)}
        commit(partial, kind, format_version, writer.inputs, writer.counts, writer.details, files)
        if final.exists():
            final.rmdir()  # an empty directory that the user made; rename needs it gone
        partial.rename(final)
        sync_directory(final.parent)


def partial_directory(final: Path) -> Path:
    """Where a stage is written before it is renamed to `final`."""
    return final.parent / f".{final.name}.partial"


def commit(
    directory: Path,
    kind: str,
    format_version: int,
    inputs: Mapping[str, str],
    counts: Mapping[str, Any],
    details: Mapping[str, Any],
    files: Mapping[str, FileRecord] | None = None,
) -> Manifest:
    """Flush every file of `directory` to disk and write its manifest, last and atomically.

    `files` may be given where the writers already flushed and hashed their own.
    """
    if files is None:
        files = {name: seal_file(directory / name) for name in _names_in(directory)}
    manifest = Manifest(
        kind=kind, format_version=format_version, inputs=dict(inputs), counts=dict(counts),
        files=dict(files), details=dict(details),
    )  # fmt: skip
    manifest = manifest.model_copy(update={"seal": manifest.expected_seal()})
    write_atomically(directory / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _names_in(directory: Path) -> list[str]:
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    return [name for name in names if name != MANIFEST_NAME]


def seal_file(path: Path) -> FileRecord:
    """Flush a written file to disk and return its size and checksum."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return FileRecord(bytes=path.stat().st_size, xxh3_128=checksum(path))


def checksum(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """XXH3-128 of a file's content, read in blocks; `on_bytes` hears of each block for progress."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            if on_bytes:
                on_bytes(len(block))
    return str(digest.hexdigest())


def write_atomically(path: Path, text: str) -> None:
    """Replace a small text file so that a reader sees the old content or the new, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries, so that a rename survives a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(
    directory: Path, kind: str, format_version: int, error: type[HpctrainError] = DataError
) -> Manifest:
    """Read and check the manifest of a finished stage; raises `error` that says what to do."""
    path = directory / MANIFEST_NAME
    if newer := newer_format(directory, format_version):
        raise error(newer)
    if not path.is_file():
        state = "is not finished" if directory.is_dir() else "does not exist"
        raise error(f"{directory}: this {kind} {state} (no {MANIFEST_NAME}); build it first")
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as reason:
        raise error(f"{path}: not a readable manifest: {str(reason).splitlines()[0]}") from None
    if manifest.seal != manifest.expected_seal():
        raise error(f"{path}: damaged (its content does not match its seal)")
    if manifest.kind != kind:
        raise error(f"{directory}: holds a {manifest.kind}, expected a {kind}")
    return manifest


def newer_format(directory: Path, format_version: int) -> str | None:
    """What to say of an undamaged manifest of a newer format, whatever else it holds; None if it is not."""
    try:
        tree = json.loads((directory / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    version = tree.get("format_version") if isinstance(tree, dict) else None
    if not isinstance(version, int) or version <= format_version:
        return None
    if tree.pop("seal", None) != fingerprint(tree):
        return None
    return (
        f"{directory}: written in {tree.get('kind')} format {version}, newer than the {format_version} "
        "that this hpctrain reads; use a newer hpctrain"
    )


def is_finished(directory: Path) -> bool:
    """True if the directory is a published stage."""
    return (directory / MANIFEST_NAME).is_file()


def find_finished(
    directory: Path, kind: str, format_version: int, inputs: Mapping[str, str]
) -> Manifest | None:
    """The manifest of a stage that is already there and was made from `inputs`; None if there is none.

    Raises DataError if the directory holds a finished stage that was made from something else.
    """
    if not is_finished(directory):
        return None
    manifest = read_manifest(directory, kind, format_version)
    changed = sorted(n for n in {*inputs, *manifest.inputs} if inputs.get(n) != manifest.inputs.get(n))
    if changed:
        raise DataError(
            f"{directory}: its {kind} was made from another {' and '.join(changed)}; "
            "remove it or choose another directory"
        )
    return manifest


def find_damage(
    directory: Path,
    manifest: Manifest,
    names: list[str] | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> list[str]:
    """Compare files with the manifest: size first, then checksum. One line for each file that differs."""
    damage = []
    for name in sorted(manifest.files) if names is None else names:
        record, path = manifest.files[name], directory / name
        try:
            if not path.is_file():
                damage.append(f"{path}: missing")
            elif path.stat().st_size != record.bytes:
                damage.append(f"{path}: {path.stat().st_size} bytes, the manifest says {record.bytes}")
            elif checksum(path, on_bytes) != record.xxh3_128:
                damage.append(f"{path}: checksum differs from the manifest's")
        except OSError as reason:
            damage.append(f"{path}: cannot be read: {reason.strerror}")
    return damage


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and its kin into one clear DataError that names the place."""
    try:
        yield
    except OSError as reason:
        raise DataError(f"{reason.filename or path}: {reason.strerror or reason}") from reason
