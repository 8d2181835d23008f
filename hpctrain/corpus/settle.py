"""What only the surroundings of a file can tell: its licence, a header's language, its family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from hpctrain.corpus.columns import Columns
from hpctrain.corpus.document import LANGUAGES
from hpctrain.corpus.families import LARGE_DIRECTORY_FILES, family_of
from hpctrain.corpus.headers import HeaderVotes
from hpctrain.corpus.licences import LicencePolicy, LicenceReader, is_licence_file
from hpctrain.corpus.surroundings import Surroundings
from hpctrain.corpus.units import RowFile

_NUMBER = {language: number for number, language in enumerate(LANGUAGES)}
SETTLED = ("reason", "language", "licence", "family")


class LicenceJudge:
    """Applies a policy to licences, and classifies them, each one once."""

    def __init__(self, reader: LicenceReader, policy: LicencePolicy) -> None:
        self.reader, self.policy = reader, policy
        self._reasons: dict[str, str] = {}
        self._classes: dict[str, str] = {}

    def class_of(self, licence: str) -> str:
        """One of LICENCE_CLASSES."""
        if licence not in self._classes:
            self._classes[licence] = self.reader.class_of(licence)
        return self._classes[licence]

    def reason(self, licence: str) -> str:
        """The drop reason of files under a licence, or ""."""
        if licence not in self._reasons:
            accepted = self.reader.accepts(licence, self.policy)
            refusal = "licence not allowed" if licence else "licence unknown"
            self._reasons[licence] = "" if accepted else refusal
        return self._reasons[licence]


class Settler:
    """Settles the units of one scope: adds each one's files, then tells what became of them.

    Holds the names of the scope's directories, and the names of one unit's files.
    """

    def __init__(self, source: str, licence: str, metadata_licence: str, judge: LicenceJudge) -> None:
        """`licence`: the config's for files that state none; `metadata_licence`: the source's own."""
        self.source, self.licence, self._judge = source, licence, judge
        self._last = judge.reader.parse(metadata_licence) if metadata_licence else ""
        self._votes = HeaderVotes()
        self._statements: list[tuple[str, str]] = []
        self._surroundings = Surroundings([])
        self._sizes: Counter[str] = Counter()

    def add(self, unit: RowFile) -> None:
        """Learn a unit's directories."""
        for path, reason, language, licence in unit.tuples("path", "reason", "language", "licence"):
            if not reason:
                self._votes.add(path, language)
            elif licence and is_licence_file(path):
                self._statements.append((path, licence))

    def close(self) -> None:
        """Sum up what was learnt; to be called between the last `add` and the first `count`."""
        self._votes.close()
        self._surroundings = Surroundings(self._statements)

    def count(self, unit: RowFile) -> None:
        """Count a unit's accepted files by directory; to be done for all units before the first `settle`."""
        for path, reason, own, declared in unit.tuples("path", "reason", "licence", "declared"):
            if not reason and not self._judge.reason(self._licence(path, own, declared)):
                self._sizes[path.rpartition("/")[0]] += 1

    def settle(self, unit: RowFile) -> pa.Table:
        """The columns SETTLED for every row of a unit."""
        names = ("path", "reason", "language", "licence", "declared")
        columns: list[list[str]] = [[] for _ in SETTLED]
        for row in unit.tuples(*names):
            for column, value in zip(columns, self._settle(*row), strict=True):
                column.append(value)
        return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in SETTLED]))

    def _settle(self, path: str, reason: str, language: str, own: str, declared: str) -> tuple[str, ...]:
        if reason:
            return reason, language, "", ""  # what a LICENSE file says is not what it is under
        licence = self._licence(path, own, declared)
        by_stem = self._sizes[path.rpartition("/")[0]] > LARGE_DIRECTORY_FILES
        family = family_of(self.source, path, by_stem)
        return self._judge.reason(licence), self._votes.settle(path, language), licence, family

    def _licence(self, path: str, own: str, declared: str) -> str:
        return own or declared or self.licence or self._surroundings.licence_of(path) or self._last


def write_settled(
    unit: RowFile, table: pa.Table, path: Path, columns: Columns, start: int, seed: int
) -> None:
    """Write a unit's settled rows to `path`, and its found files from place `start` on into the columns."""
    pq.write_table(table, path, compression="zstd", use_dictionary=True)
    rows = unit.found_rows()
    if not len(rows):
        return
    found = table.take(pa.array(rows))
    numbers = unit.columns("sha256", "size").take(pa.array(rows))
    columns.write("digest", start, _digests(numbers["sha256"]))
    columns.write("bytes", start, numbers["size"].to_numpy())
    accepted = [not reason for reason in found["reason"].to_pylist()]
    columns.write("accepted", start, np.array(accepted, np.uint8))
    languages = [_NUMBER[language] for language in found["language"].to_pylist()]
    columns.write("language", start, np.array(languages, np.uint8))
    columns.write("family", start, family_keys(found["family"].to_pylist(), seed))


def _digests(column: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    joined = b"".join(digest[:16] for digest in column.to_pylist())
    return np.frombuffer(joined, ">u8").reshape(-1, 2).astype(np.uint64)


def family_keys(families: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Keyed hashes of family names: what decides on which side of a split each one is."""
    return np.array([xxhash.xxh3_64_intdigest(family.encode(), seed) for family in families], np.uint64)
