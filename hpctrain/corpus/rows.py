"""A row of a table that holds a file a row, and what its columns are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hpctrain.config import Section
from hpctrain.corpus.entry import refuse
from hpctrain.errors import DataError

BROKEN = "broken row"


class Columns(Section):
    """Which columns of a table mean what; "" where there is none."""

    content: str = "content"
    """The text of the file."""
    path: str = "path"
    """Its path. Without one, rows are named by their number and the source's `extension`."""
    repository: str = ""
    """The repository. Paths begin with it, so that its files are of related families wherever they stand."""
    licence: str = ""
    """The licence: an SPDX expression, or a list of which all bind."""

    @property
    def named(self) -> tuple[str, ...]:
        """The names that are given, each once."""
        return tuple(dict.fromkeys(filter(None, (self.content, self.path, self.repository, self.licence))))


@dataclass(frozen=True, slots=True)
class TableLimits:
    """Bounds on one table."""

    row_bytes: int
    """Files that are larger are not read, nor lines."""
    total_bytes: int
    """A table that unpacks to more is refused as a decompression bomb."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, its content not yet taken."""

    number: int
    """From 1 on; of JSON lines, the line."""
    size: int = 0
    read: Callable[[], bytes] = field(default=refuse, repr=False)
    path: str = ""
    repository: str = ""
    licences: tuple[str, ...] = ()
    problem: str = ""
    detail: str = ""
    work_bytes: int = 0


class TableBudget:
    """Counts what a table unpacks to."""

    def __init__(self, name: str, limits: TableLimits) -> None:
        """`name` is the table's in messages."""
        self.name, self.limits = name, limits
        self._left = limits.total_bytes

    def spend(self, size: int) -> None:
        """Count bytes. Raises DataError where they are too many."""
        self._left -= size
        if self._left < 0:
            raise DataError(
                f"{self.name}: unpacks to more than {self.limits.total_bytes} bytes; if it is no "
                "decompression bomb, raise max_total_bytes of this source"
            )


def check_columns(name: str, columns: Columns, present: Iterable[str]) -> None:
    """Raises DataError if a table lacks a named column, with the names that it has."""
    has = sorted(present)
    if missing := [column for column in columns.named if column not in has]:
        raise DataError(
            f"{name}: has no column {', '.join(map(repr, missing))}; it has {', '.join(has[:50]) or 'none'}; "
            "name the right ones under `columns` of this source"
        )
