"""JSON lines, plain or compressed: a broken line costs itself only, and no line is held that is too long."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from hpctrain.corpus.compression import (
    CHUNK_BYTES,
    COMPRESSIONS,
    DAMAGE,
    BoundedStream,
    damage_error,
    decompressed,
)
from hpctrain.corpus.rows import BROKEN, Columns, Row, TableBudget, check_columns
from hpctrain.errors import DataError

JSON_SUFFIXES = tuple(
    suffix + compression for suffix in (".jsonl", ".ndjson", ".json") for compression in ("", *COMPRESSIONS)
)
_TRIED_ROWS = 1000
_WIDE = (b"\xff\xfe", b"\xfe\xff")
_MAX_LICENCES = 256


def read_json_rows(place: Path, columns: Columns, budget: TableBudget) -> Iterator[Row]:
    """The rows of a file of JSON lines; lines end with LF, CRLF or CR, and empty ones are passed over.

    Raises DataError for a file that is damaged, in UTF-16, or without a named column.
    """
    keys: set[str] = set()
    sound = tried = 0
    with _named_damage(place), place.open("rb") as packed, _open_text(packed, place, budget) as text:
        done = 0
        for number, line in _lines(text, budget.limits.row_bytes):
            position = os.lseek(packed.fileno(), 0, os.SEEK_CUR)
            row = _parse(number, line, columns, keys, budget.limits.row_bytes, position - done)
            done = position
            tried += 1
            sound += row.problem != BROKEN
            if not sound and tried == _TRIED_ROWS and keys:
                check_columns(str(place), columns, keys)
            yield row
    if not sound and keys:
        check_columns(str(place), columns, keys)


@contextmanager
def _named_damage(place: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as reason:
        raise damage_error(str(place), reason) from reason


@contextmanager
def _open_text(packed: IO[bytes], place: Path, budget: TableBudget) -> Iterator[io.TextIOWrapper]:
    compression = place.suffix if place.suffix in COMPRESSIONS else ""
    with decompressed(packed, compression) as plain:
        stream = io.BufferedReader(cast(io.RawIOBase, BoundedStream(plain, budget.spend)), CHUNK_BYTES)
        start = stream.peek(4)[:4]
        if start[:2] in _WIDE or b"\0" in start:
            raise DataError(
                f"{place}: is UTF-16 or binary, not JSON lines; convert it with iconv -f UTF-16 -t UTF-8"
            )
        with io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape") as text:
            yield text


def _lines(text: io.TextIOWrapper, max_chars: int) -> Iterator[tuple[int, str | None]]:
    """Line numbers and lines; None for a line that is too long, whose rest is skipped piece by piece."""
    number = 0
    while line := text.readline(max_chars + 1):
        number += 1
        if len(line) > max_chars and not line.endswith("\n"):
            while (piece := text.readline(CHUNK_BYTES)) and not piece.endswith("\n"):
                pass
            yield number, None
        elif line.strip():
            yield number, line


def _parse(
    number: int, line: str | None, columns: Columns, keys: set[str], max_bytes: int, work_bytes: int
) -> Row:
    """One line as a row; `keys` gathers the columns that were seen."""

    def broken(detail: str, problem: str = BROKEN) -> Row:
        return Row(number, problem=problem, detail=f"line {number}: {detail}", work_bytes=work_bytes)

    if line is None:
        return broken(f"longer than {max_bytes} characters", "too large")
    try:
        record = json.loads(line)
    except RecursionError:
        return broken("nested too deep")
    except ValueError as reason:
        return broken(str(reason))
    if not isinstance(record, dict):
        return broken("not an object")
    if len(keys) < _TRIED_ROWS:
        keys.update(record)
    try:
        content = _text(record, columns.content).encode()
        path = _text(record, columns.path) if columns.path else ""
        repository = _text(record, columns.repository) if columns.repository else ""
        licences = _strings(record.get(columns.licence)) if columns.licence else ()
        f"{path}{repository}".encode()
    except UnicodeEncodeError:
        return broken("not UTF-8")
    except ValueError as reason:
        return broken(str(reason))
    return Row(number, len(content), _giver(content), path, repository, licences, work_bytes=work_bytes)


def _text(record: dict[str, Any], column: str) -> str:
    value = record.get(column)
    if isinstance(value, str):
        return value
    raise ValueError(f"{column!r} is {'missing' if value is None else 'no text'}")


def _strings(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values[:_MAX_LICENCES] if isinstance(item, str))


def _giver(content: bytes) -> Callable[[], bytes]:
    return lambda: content
