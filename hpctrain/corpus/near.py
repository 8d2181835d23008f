"""Near-duplicates of a build: the units' signatures go into one table, and what is found into the columns."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpctrain.corpus.analyse import places_of
from hpctrain.corpus.dedup import mark_winners
from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.findings import Files, Findings
from hpctrain.corpus.minhash import Hashes
from hpctrain.corpus.nearby import DuplicatesConfig, Signer, find_near_duplicates
from hpctrain.corpus.units import RowFile
from hpctrain.parallel.crew import Crew

_HELD_GROUPS = 64
"""Row groups of a MiB that stay in memory."""
_OPEN_UNITS = 32


def drop_near(findings: Findings, config: DuplicatesConfig, crew: Crew) -> None:
    """Mark the winner of every document that is a near copy of one before it; a collective call."""
    table = _Table(findings, config)
    with crew.together():
        if crew.rank == 0:
            table.create()
    with crew.deal(range(len(findings.places))) as deal:
        for number in deal:
            table.write(number)
            deal.advance(1)
    found = find_near_duplicates(table.map(), table.shingles_of, config, crew)
    mine = np.array_split(found, crew.size)[crew.rank]
    pairs = np.stack([table.files()[mine[name]] for name in ("dropped", "kept")], axis=1)
    mark_winners(findings.columns, pairs, crew, mine["jaccard"])


class _Table:
    """The documents that are left, in corpus order: the file of each, and signatures, place by place."""

    def __init__(self, findings: Findings, config: DuplicatesConfig) -> None:
        self.findings, self.signer = findings, Signer(config)
        self.before = findings.kept_before()
        self.shape = (config.permutations, int(self.before[-1]))
        self._signatures, self._files = (
            findings.scratch / "signatures.bin",
            findings.scratch / "documents.bin",
        )
        self._languages = findings.columns.map("language")
        self._contents = _Contents(findings)
        self._mapped: Files | None = None

    def create(self) -> None:
        """Make the table."""
        for path, size in ((self._signatures, 4 * self.shape[0]), (self._files, 8)):
            with path.open("wb") as stream:
                stream.truncate(size * self.shape[1])

    def write(self, number: int) -> None:
        """Write the rows of one unit's documents."""
        starts, first = self.findings.starts, int(self.before[number])
        start, stop = int(starts[number]), int(starts[number + 1])
        kept = np.flatnonzero(self.findings.columns.kept(start, stop))
        if not len(kept):
            return
        with self.findings.open(number) as unit, self.findings.open_analysis(number) as analysed:
            places = places_of(analysed, unit.found_rows()[kept])
            column = analysed.columns("signature")["signature"].take(pa.array(places))
        signatures = np.frombuffer(b"".join(column.to_pylist()), np.uint32).reshape(len(kept), -1)
        offsets = (4 * (place * self.shape[1] + first) for place in range(self.shape[0]))
        _write_at(self._signatures, zip(offsets, np.ascontiguousarray(signatures.T), strict=True))
        _write_at(self._files, [(8 * first, kept + start)])

    def map(self) -> npt.NDArray[np.uint32]:
        """All signatures, uint32 [documents,permutations]; to be called when all are written."""
        table: npt.NDArray[np.uint32] = np.empty(self.shape, np.uint32)
        if self.shape[1]:
            table = np.memmap(self._signatures, np.uint32, "r", shape=self.shape)
        return np.transpose(table)

    def files(self) -> Files:
        """The numbers of the files that are the documents; to be called when all are written."""
        if self._mapped is None:
            self._mapped = np.empty(0, np.int64)
            if self.shape[1]:
                self._mapped = np.asarray(np.memmap(self._files, np.int64, "r", shape=(self.shape[1],)))
        return self._mapped

    def shingles_of(self, document: int) -> Hashes:
        """The shingles of the document at a place."""
        file = int(self.files()[document])
        return self.signer.shingles_of(self._contents[file], LANGUAGES[int(self._languages[file])])


def _write_at(path: Path, parts: Iterable[tuple[int, npt.NDArray[Any]]]) -> None:
    """Write arrays at their offsets in a file; other ranks write elsewhere in it."""
    with path.open("r+b") as stream:
        for offset, values in parts:
            os.pwrite(stream.fileno(), values.tobytes(), offset)
        os.fsync(stream.fileno())


class _Contents:
    """Contents of files by number; the row groups read last stay in memory, for neighbours come next."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._units: OrderedDict[int, tuple[RowFile, Files]] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], tuple[int, pa.ChunkedArray]] = OrderedDict()

    def __getitem__(self, file: int) -> bytes:
        number = int(np.searchsorted(self._findings.starts, file, side="right")) - 1
        unit, rows = self._unit(number)
        row = int(rows[file - self._findings.starts[number]])
        key = number, int(unit.groups_of(np.array([row]))[0])
        if key not in self._groups:
            first, table = unit.read_group(key[1], ["content"])
            self._groups[key] = first, table["content"]
            if len(self._groups) > _HELD_GROUPS:
                self._groups.popitem(last=False)
        first, contents = self._groups[key]
        self._groups.move_to_end(key)
        content: bytes = contents[row - first].as_py()
        return content

    def _unit(self, number: int) -> tuple[RowFile, Files]:
        if number not in self._units:
            unit = self._findings.open(number)
            self._units[number] = unit, unit.found_rows()
            if len(self._units) > _OPEN_UNITS:
                self._units.popitem(last=False)[1][0].close()
        self._units.move_to_end(number)
        return self._units[number]
