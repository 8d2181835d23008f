"""Tables with a file a row, as public code corpora come: JSON lines and Parquet.

The columns are named by the config. Rows are bounded, and no column is read that is not named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

import xxhash

from hpctrain.config import fingerprint
from hpctrain.corpus.entry import Entry, Salvaged, Unit, UnitSource, printable, refuse
from hpctrain.corpus.jsonl import JSON_SUFFIXES, read_json_rows
from hpctrain.corpus.licences import LicenceReader, combine
from hpctrain.corpus.parquet import read_parquet_rows
from hpctrain.corpus.rows import Columns, Row, TableBudget, TableLimits
from hpctrain.corpus.trees import selected, walk
from hpctrain.errors import DataError

_READER = 1
"""Goes up with every change of what is read from the same table."""
_PARQUET = ".parquet"
_MAX_PATH_CHARS = 4096
_SEEN_BITS = 1 << 26


@dataclass(frozen=True, slots=True)
class TableUnit:
    """One file of JSON lines or Parquet."""

    key: str
    place: Path
    size: int
    mtime_ns: int
    columns: Columns
    limits: TableLimits
    extension: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """One for all files where rows tell their repository: it may be spread over them."""
        return "" if self.columns.repository else self.key

    @property
    def work_bytes(self) -> int:
        """Size of the file as it lies on disk."""
        return self.size

    def fingerprint(self) -> str:
        """A hash over name, size and modification time, and how it is read."""
        how = [self.columns.model_dump(), astuple(self.limits), self.extension, self.include, self.exclude]
        return fingerprint(["table", _READER, self.key, self.size, self.mtime_ns, how])

    def entries(self) -> Iterator[Entry]:
        """The rows in their order. Raises DataError for a damaged table, or one without a named column."""
        read = read_parquet_rows if self.place.suffix == _PARQUET else read_json_rows
        namer = _Namer(self)
        for row in read(self.place, self.columns, TableBudget(str(self.place), self.limits)):
            entry = namer.entry(row)
            if entry.problem or selected(entry.path, self.include, self.exclude):
                yield entry


def open_table(
    path: Path,
    columns: Columns,
    limits: TableLimits,
    extension: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip_damaged: bool = False,
) -> UnitSource:
    """The table at `path`, or every table below that directory, by the suffix of the names.

    Raises DataError if there is none. With `skip_damaged`, damage costs only what cannot be read.
    """
    if path.is_file():
        names = [path.name]
        path = path.parent
    elif path.is_dir():
        names = sorted(name for name in walk(path) if name.endswith((*JSON_SUFFIXES, _PARQUET)))
    else:
        raise DataError(f"{path}: no such file or directory")
    places = {name: path / name for name in names if (path / name).is_file()}
    if not places:
        raise DataError(f"{path}: holds no table (*.parquet, *.jsonl, *.jsonl.gz, *.jsonl.zst, *.json, ...)")
    units: list[Unit] = []
    for name, place in places.items():
        status = place.stat()
        units.append(
            TableUnit(
                printable(name), place, status.st_size, status.st_mtime_ns, columns, limits, extension,
                tuple(include), tuple(exclude),
            )
        )  # fmt: skip
    return UnitSource([Salvaged(unit) for unit in units] if skip_damaged else units)


class _Namer:
    """Turns rows into entries with a path each of its own."""

    def __init__(self, unit: TableUnit) -> None:
        self._key, self._extension = unit.key, unit.extension
        self._in_repository = bool(unit.columns.repository)
        self._has_path = bool(unit.columns.path)
        self._reader = LicenceReader()
        self._licences: dict[tuple[str, ...], str] = {}
        self._seen = bytearray(_SEEN_BITS // 8)

    def entry(self, row: Row) -> Entry:
        """The entry of a row. Rows that cannot be read or named are named by the table and their number."""
        path, problem, detail = self._path(row), row.problem, row.detail
        if not problem and not path:
            problem, detail = "unsafe path", f"row {row.number}: {row.repository}/{row.path}"[:200]
        if problem:
            path = path or f"{self._key}:{row.number}"
            return Entry(path, row.size, refuse, problem, row.work_bytes, detail=detail)
        return Entry(path, row.size, row.read, "", row.work_bytes, self._licence(row.licences))

    def _path(self, row: Row) -> str:
        """The path of a row, or "" if it has none or would lead elsewhere."""
        if not self._has_path:
            return "" if row.problem else f"{self._key}/row-{row.number:09d}{self._extension}"
        first = PurePosixPath(row.repository if self._in_repository else self._key)
        rest = PurePosixPath(row.path.replace("\\", "/"))
        whole = printable(str(first / rest)).replace("\0", "?")
        unsafe = (
            not row.path or first.is_absolute() or rest.is_absolute() or ".." in (*first.parts, *rest.parts)
        )
        if unsafe or (self._in_repository and not row.repository) or len(whole) > _MAX_PATH_CHARS:
            return ""
        return self._told_apart(whole, row.number)

    def _told_apart(self, path: str, number: int) -> str:
        """The path, or with the row's number if it was (or, seldom, may have been) there before."""
        bit = xxhash.xxh3_64_intdigest(path.encode()) % _SEEN_BITS
        byte, mask = bit >> 3, 1 << (bit & 7)
        if not self._seen[byte] & mask:
            self._seen[byte] |= mask
            return path
        pure = PurePosixPath(path)
        return str(pure.with_name(f"{pure.name.removesuffix(pure.suffix)}~{number}{pure.suffix}"))

    def _licence(self, names: tuple[str, ...]) -> str:
        """What a licence column says; all of its licences bind, so one that is not known spoils it."""
        if names not in self._licences:
            if len(self._licences) >= 10_000:
                self._licences.clear()
            parsed = [self._reader.parse(name.strip()) for name in names]
            self._licences[names] = combine(parsed) if all(parsed) else ""
        return self._licences[names]
