"""Examined units: one Parquet file each, under a name that changes with the unit's content and the rules.

A unit's file appears whole or not at all, so an interrupted build and the next build take up what is there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hpctrain.errors import DataError
from hpctrain.manifest import sync_directory

_GROUP_CONTENT_BYTES = 1 << 20
_GROUP_ROWS = 4096
_FOUND = b"found"
_TYPES = {"str": pa.string(), "int": pa.int64(), "bytes | None": pa.binary()}


@dataclass(slots=True)
class Row:
    """What examination says of one file."""

    path: str
    size: int
    """Bytes as the source states them; of a found file those of its content."""
    reason: str = ""
    """Why the file is dropped, or "" if it is found worth keeping so far."""
    detail: str = ""
    """More on the reason."""
    language: str = ""
    licence: str = ""
    """What the file itself states; of a LICENSE file, what it says of the files around it."""
    declared: str = ""
    """What the source states for this very file."""
    sha256: bytes | None = None
    content: bytes | None = None
    """Of a found file."""
    sample: bytes | None = None
    """The beginning of a few of the dropped files."""


class RowWriter:
    """Writes records of one dataclass in their order; holds about a MiB of their `content`."""

    def __init__(self, path: Path, kind: type[Any]) -> None:
        self._schema = pa.schema([(field.name, _TYPES[str(field.type)]) for field in fields(kind)])
        self._columns: dict[str, list[Any]] = {}
        self._writer = pq.ParquetWriter(
            path, self._schema, compression="zstd", compression_level=1, write_statistics=False,
            use_dictionary=["reason", "detail", "language", "licence", "declared", "models", "secrets"],
            write_page_checksum=True,
        )  # fmt: skip
        self.found = 0
        self._begin()

    def add(self, record: Any) -> None:
        """Append one record."""
        for name, column in self._columns.items():
            column.append(getattr(record, name))
        self._rows += 1
        if record.content is not None:
            self.found += 1
            self._bytes += len(record.content)
        if self._bytes >= _GROUP_CONTENT_BYTES or self._rows >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left and the end of the file."""
        self._flush()
        self._writer.add_key_value_metadata({_FOUND: str(self.found)})
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.table(self._columns, schema=self._schema))
        self._begin()

    def _begin(self) -> None:
        self._columns = {name: [] for name in self._schema.names}
        self._rows = self._bytes = 0


@contextmanager
def write_rows(path: Path, kind: type[Any]) -> Iterator[RowWriter]:
    """Write a file of records aside, and rename it to `path` when the block ends without an error."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        writer = RowWriter(aside, kind)
        yield writer
        writer.close()
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
        sync_directory(path.parent)
    finally:
        aside.unlink(missing_ok=True)


class RowFile:
    """Reads a file of records. Raises DataError where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._damage():
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
            self.rows: int = self._file.metadata.num_rows
            self.found = int((self._file.metadata.metadata or {}).get(_FOUND, 0))
            sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
            self._ends = np.cumsum(sizes, dtype=np.int64)

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def columns(self, *names: str) -> pa.Table:
        """Some columns of all rows."""
        with self._damage():
            return self._file.read(list(names))

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Some columns row by row; a batch of rows is in memory at a time."""
        with self._damage():
            for batch in self._file.iter_batches(_GROUP_ROWS, columns=list(names)):
                yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)

    def found_rows(self) -> npt.NDArray[np.int64]:
        """The numbers of the rows that are found worth keeping; they are counted in this order elsewhere."""
        return np.flatnonzero(np.asarray(self.columns("reason")["reason"]) == "")

    def groups_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row groups in which some rows stand."""
        return np.searchsorted(self._ends, rows, side="right")

    def read_group(self, group: int, names: Sequence[str]) -> tuple[int, pa.Table]:
        """Some columns of a row group, and the number of its first row."""
        with self._damage():
            return int(self._ends[group - 1]) if group else 0, self._file.read_row_group(group, list(names))

    def read(self, rows: npt.NDArray[np.int64], names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of some rows, given in order; one row group is in memory at a time."""
        groups = self.groups_of(rows)
        for group in np.unique(groups).tolist():
            first, table = self.read_group(group, names)
            yield from table.take(pa.array(rows[groups == group] - first)).to_pylist()

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as reason:
            raise DataError(
                f"{self.path}: not a readable result of an examination ({reason}); remove it, and run the "
                "same command again"
            ) from None
