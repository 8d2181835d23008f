"""Where a build of shards keeps what is done: whole files with their checksums, taken up after a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from hpctrain.manifest import FileRecord, checksum, seal_file, sync_directory, write_atomically

_PURPOSE_NAME = "purpose"


class Workplace:
    """A directory of finished files, each with a record of its size and checksum, written after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, purpose: str) -> None:
        """Keep what is there if it was made for the same purpose, else begin anew; for one rank to call."""
        path = self.directory / _PURPOSE_NAME
        if not path.is_file() or path.read_text(encoding="utf-8") != purpose:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
            write_atomically(path, purpose)

    def path(self, name: str) -> Path:
        """Where the finished file `name` lies."""
        return self.directory / name

    def finished(self, name: str) -> FileRecord | None:
        """The record of a file that is there and whole."""
        path = self.path(name)
        try:
            record = FileRecord.model_validate_json(_record_path(path).read_bytes())
            same = path.stat().st_size == record.bytes and checksum(path) == record.xxh3_128
        except (FileNotFoundError, ValidationError):
            return None
        return record if same else None

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Write the file `name` aside; it takes its place when the block ends without an error."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            yield aside
            record = seal_file(aside)
            aside.replace(path)
            sync_directory(path.parent)
            write_atomically(_record_path(path), record.model_dump_json())
        finally:
            aside.unlink(missing_ok=True)

    def take(self, name: str, target: Path) -> FileRecord:
        """Move a finished file out of the workplace; returns its record, which goes with it."""
        record = FileRecord.model_validate_json(_record_path(self.path(name)).read_bytes())
        self.path(name).replace(target)
        return record

    def remove(self) -> None:
        """Remove the directory with all in it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.record")
