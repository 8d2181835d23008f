"""Parquet tables of strangers: a few rows in memory at a time, and texts only where they are asked for.

Text columns are read as dictionaries, so that a page of one long text and many references to it, which is
small on disk, is not spread out in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpctrain.corpus.compression import damage_error
from hpctrain.corpus.rows import BROKEN, Columns, Row, TableBudget, check_columns
from hpctrain.errors import DataError

_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20
_MAX_NAME_BYTES = 4096
_MAX_LICENCES = 256


def read_parquet_rows(place: Path, columns: Columns, budget: TableBudget) -> Iterator[Row]:
    """The rows of a Parquet file.

    Raises DataError for a file that is damaged, or without a named column of text.
    """
    with _named_damage(place):
        leaves = _check(place, columns)
        with pq.ParquetFile(
            place, read_dictionary=leaves, pre_buffer=False, buffer_size=_BUFFER_BYTES,
            page_checksum_verification=True,
        ) as file:  # fmt: skip
            number = 0
            work_bytes = place.stat().st_size // max(1, file.metadata.num_rows)
            for batch in _batches(file, columns):
                texts = {name: _Texts(batch.column(name)) for name in columns.named}
                for index in range(batch.num_rows):
                    number += 1
                    yield _row(number, index, texts, columns, budget, work_bytes)


def _batches(file: Any, columns: Columns) -> Iterator[Any]:
    """Batches of rows, none across row groups: lists of dictionaries cannot be joined."""
    try:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(
                _BATCH_ROWS, row_groups=[group], columns=list(columns.named), use_threads=False
            )
    except pa.ArrowNotImplementedError:
        if not columns.licence:
            raise
        raise ValueError(
            f"the lists of column {columns.licence!r} change their encoding and cannot be read in bounded "
            "memory; leave out `columns.licence`"
        ) from None


@contextmanager
def _named_damage(place: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as reason:
        raise damage_error(str(place), reason) from reason


def _check(place: Path, columns: Columns) -> list[str]:
    """The leaves of the named columns. Raises DataError for what is missing or no text."""
    with pq.ParquetFile(place) as file:
        schema = file.schema_arrow
        check_columns(str(place), columns, schema.names)
        for name in columns.named:
            kind = schema.field(name).type
            of_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
            if not _is_text(kind.value_type if of_list and name == columns.licence else kind):
                raise DataError(f"{place}: column {name!r} is {kind}, not text")
        paths = (file.schema.column(index).path for index in range(len(file.schema)))
        return [path for path in paths if path.split(".", 1)[0] in columns.named]


def _is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in tests)


class _Texts:
    """The texts of one column of a batch. None is copied before it is asked for."""

    def __init__(self, column: Any) -> None:
        """`column` holds texts or, where a licence may be one, lists of texts."""
        self._lists: npt.NDArray[np.int64] | None = None
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            self._lists = np.asarray(column.offsets, np.int64)
            column = column.values
        places = column.indices if isinstance(column, pa.DictionaryArray) else pa.array(range(len(column)))
        if not isinstance(column, pa.DictionaryArray):
            places = pc.if_else(column.is_valid(), places, pa.scalar(None, pa.int64()))
        values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
        self._places = np.asarray(pc.fill_null(places.cast(pa.int64()), -1))
        large = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
        _, offsets, self._bytes = values.buffers()
        count = values.offset + len(values) + 1
        self._offsets = np.frombuffer(offsets, np.int64 if large else np.int32, count)[values.offset :]

    def get(self, index: int) -> pa.Buffer | None:
        """The text of a row, or None for a null."""
        if (place := int(self._places[index])) < 0:
            return None
        start, stop = int(self._offsets[place]), int(self._offsets[place + 1])
        return self._bytes.slice(start, stop - start) if stop > start else pa.py_buffer(b"")

    def several(self, index: int) -> list[pa.Buffer]:
        """The texts of a row's list, or its only text; nulls are left out, and what comes after many."""
        places = range(index, index + 1)
        if self._lists is not None:
            start, stop = int(self._lists[index]), int(self._lists[index + 1])
            places = range(start, min(stop, start + _MAX_LICENCES))
        return [text for place in places if (text := self.get(place)) is not None]


def _row(
    number: int, index: int, texts: dict[str, _Texts], columns: Columns, budget: TableBudget, work_bytes: int
) -> Row:
    content = texts[columns.content].get(index)
    if content is None:
        detail = f"row {number}: {columns.content!r} is missing"
        return Row(number, problem=BROKEN, detail=detail, work_bytes=work_bytes)
    try:
        path = _name(texts, columns.path, index)
        repository = _name(texts, columns.repository, index)
        licences = texts[columns.licence].several(index) if columns.licence else ()
        names = tuple(_short(licence, columns.licence) for licence in licences)
    except ValueError as reason:
        return Row(number, problem=BROKEN, detail=f"row {number}: {reason}", work_bytes=work_bytes)
    too_large = "too large" if content.size > budget.limits.row_bytes else ""
    read = partial(_take, content, budget)
    return Row(number, content.size, read, path, repository, names, too_large, work_bytes=work_bytes)


def _take(content: Any, budget: TableBudget) -> bytes:
    budget.spend(content.size)
    return bytes(content.to_pybytes())


def _name(texts: dict[str, _Texts], column: str, index: int) -> str:
    if not column:
        return ""
    if (content := texts[column].get(index)) is None:
        raise ValueError(f"{column!r} is missing")
    return _short(content, column)


def _short(content: Any, column: str) -> str:
    if content.size > _MAX_NAME_BYTES:
        raise ValueError(f"{column!r} has more than {_MAX_NAME_BYTES} bytes")
    return str(content.to_pybytes().decode())
