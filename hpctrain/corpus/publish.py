"""The last step of a build: documents files, tables of verdicts and the ledger, each rank a share of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpctrain.corpus.document import documents_name, write_documents
from hpctrain.corpus.families import Splits
from hpctrain.corpus.findings import Files, Findings
from hpctrain.corpus.ledger import CONTAMINATION, DUPLICATE, NEAR_DUPLICATE, Kept, Ledger
from hpctrain.corpus.settle import SETTLED, LicenceJudge
from hpctrain.corpus.units import RowFile
from hpctrain.corpus.verdicts import DUPLICATES, VERDICTS, duplicates_name, open_table, verdicts_name
from hpctrain.errors import DataError
from hpctrain.manifest import StageWriter

_TABLE_ROWS = 1 << 18
_GROUP_ROWS = 1 << 14
_FROM_UNIT = ("path", "size", "reason", "detail", "sample")
_VERDICT = ("source", "unit", "path", "bytes", "reason", "detail", "sample")


def write_documents_file(
    findings: Findings, splits: Splits, number: int, files: tuple[int, int], writer: StageWriter
) -> None:
    """Write and seal one documents file; its content is in memory at once."""
    name = documents_name(number)
    write_documents(writer.path(name), list(findings.documents(*files, splits)))
    writer.seal(name)


def table_ranges(findings: Findings) -> list[range]:
    """The units that go into each table: so many that rows suffice, but at least one."""
    begins, rows = [0], 0
    for number, place in enumerate(findings.places):
        if rows and rows + place.rows > _TABLE_ROWS:
            begins.append(number)
            rows = 0
        rows += place.rows
    return [range(*pair) for pair in zip(begins, [*begins[1:], len(findings.places)], strict=True)]


class TableWriter:
    """Writes the verdicts and duplicates of some units and counts them in a ledger."""

    def __init__(self, findings: Findings, splits: Splits, judge: LicenceJudge, ledger: Ledger) -> None:
        self.findings, self.splits, self.judge, self.ledger = findings, splits, judge, ledger
        self._documents = findings.kept_before()
        self._families = findings.columns.map("family")

    def write(self, number: int, units: range, writer: StageWriter) -> None:
        """Write and seal the pair of tables of this number."""
        names = verdicts_name(number), duplicates_name(number)
        with (
            open_table(writer.path(names[0]), VERDICTS) as verdicts,
            open_table(writer.path(names[1]), DUPLICATES) as duplicates,
        ):
            verdict_rows, duplicate_rows = _Rows(verdicts), _Rows(duplicates)
            for unit in units:
                for row, duplicate in self._rows(unit):
                    self._count(row)
                    verdict_rows.add(row)
                    if duplicate:
                        duplicate_rows.add(duplicate)
            verdict_rows.flush()
            duplicate_rows.flush()
        for name in names:
            writer.seal(name)

    def _rows(self, number: int) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        """The verdict on every file of a unit, and of each duplicate where it stood."""
        place, start = self.findings.places[number], int(self.findings.starts[number])
        winners, jaccard = self._winners(start, start + place.found)
        names = self.findings.names(np.unique(winners[winners >= 0]))
        file, document = 0, int(self._documents[number])
        with ExitStack() as stack:
            unit = stack.enter_context(self.findings.open(number))
            settled = stack.enter_context(RowFile(self.findings.settled_path(number)))
            analyses = _Analyses(self.findings, number, stack)
            labels = settled.tuples(*SETTLED)
            for index, (values, label) in enumerate(zip(unit.tuples(*_FROM_UNIT), labels, strict=True)):
                row: dict[str, Any] = dict.fromkeys(("models", "secrets", "split"), "")
                row |= zip(_VERDICT, (place.source, place.key, *values), strict=True)
                found = not row["reason"]
                row |= dict(zip(SETTLED, label, strict=True))
                duplicate = None
                if not row["reason"] and winners[file] >= 0:
                    duplicate = _duplicate(row, names[int(winners[file])], float(jaccard[file]))
                elif not row["reason"]:
                    analyses.add_to(row, index)
                    if not row["reason"]:
                        row["split"] = self.splits.of(int(self._families[start + file]))
                        row["document"], document = document, document + 1
                file += found
                yield row, duplicate

    def _winners(self, start: int, stop: int) -> tuple[Files, Any]:
        """The document that each of some files gave way to (-1: none), and how similar it is."""
        winner = self.findings.columns.map("winner")
        winners = np.array(winner[start:stop]) - 1
        while len(again := np.flatnonzero((winners >= 0) & (winner[winners] > 0))):
            winners[again] = winner[winners[again]] - 1  # it was itself a near duplicate of an earlier one
        return winners, self.findings.columns.map("jaccard")[start:stop]

    def _count(self, row: dict[str, Any]) -> None:
        ledger = self.ledger.sources[row["source"]]
        if row["reason"]:
            ledger.drop(row["reason"], row["bytes"], row["detail"])
        else:
            names = ("language", "licence", "split", "models", "secrets")
            facts = {name: row[name] for name in names}
            ledger.keep(Kept(licence_class=self.judge.class_of(row["licence"]), **facts), row["bytes"])


class _Analyses:
    """Goes through the analysis of a unit beside its rows."""

    def __init__(self, findings: Findings, number: int, stack: ExitStack) -> None:
        names = ("row", "contamination", "models", "secrets", "size")
        self._records: Iterator[tuple[Any, ...]] = iter(())
        if findings.is_analysed(number):
            self._records = stack.enter_context(findings.open_analysis(number)).tuples(*names)

    def add_to(self, row: dict[str, Any], index: int) -> None:
        """Put what is known of the row with this index in its unit into a verdict."""
        for place, contamination, models, secrets, size in self._records:
            if place == index:
                row |= {"models": models, "secrets": secrets, "bytes": size}
                if contamination:
                    row |= {"reason": CONTAMINATION, "detail": contamination}
                return
        raise DataError(f"{row['source']}/{row['path']}: its analysis is missing; run the same command again")


def _duplicate(row: dict[str, Any], kept: tuple[str, str], jaccard: float) -> dict[str, Any]:
    """Mark a row as a duplicate; returns what the table of duplicates says of it."""
    near = jaccard > 0
    row["reason"] = NEAR_DUPLICATE if near else DUPLICATE
    row["detail"] = "/".join(kept)
    return {
        "source": row["source"], "path": row["path"], "bytes": row["bytes"], "kept_source": kept[0],
        "kept_path": kept[1], "kind": "near" if near else "exact", "jaccard": jaccard if near else 1.0,
    }  # fmt: skip


class _Rows:
    """Rows on their way to a table, a row group at a time."""

    def __init__(self, table: pq.ParquetWriter) -> None:
        self._table = table
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._table.write_table(pa.Table.from_pylist(self._rows, schema=self._table.schema))
            self._rows = []
