"""All examined and settled units of a build in corpus order, and the numbers of their found files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hpctrain.corpus.analyse import Analyst, analyse_unit, places_of
from hpctrain.corpus.columns import CONTAMINATED, Columns
from hpctrain.corpus.document import Document
from hpctrain.corpus.families import Splits, Survey, survey
from hpctrain.corpus.units import RowFile


@dataclass(frozen=True, slots=True)
class UnitPlace:
    """What the ranks know of a unit after it was examined."""

    source: str
    key: str
    scope: str
    file: str
    """Name of its file in the directory of examined units."""
    rows: int = 0
    found: int = 0


Files = npt.NDArray[np.int64]


class Findings:
    """What the steps after examination read from. A file's number is its place among the found ones."""

    def __init__(self, places: Sequence[UnitPlace], store: Path, scratch: Path, analyst: Analyst) -> None:
        """`store` holds the examined units; `scratch` will hold settled units and columns."""
        self.places, self.store, self.scratch, self.analyst = places, store, scratch, analyst
        self.starts = np.cumsum([0, *(place.found for place in places)], dtype=np.int64)
        self.columns = Columns(scratch / "columns", int(self.starts[-1]))

    def open(self, number: int) -> RowFile:
        """The examined unit of this number."""
        return RowFile(self.store / self.places[number].file)

    def open_analysis(self, number: int) -> RowFile:
        """The analysis of a unit that has documents, or had some before benchmarks were taken out."""
        return RowFile(self.analyst.path_of(self.store / self.places[number].file))

    def is_analysed(self, number: int) -> bool:
        """Whether a unit has an analysis."""
        return self.analyst.path_of(self.store / self.places[number].file).exists()

    def analyse(self, number: int, advance: Callable[[float], None]) -> int:
        """Analyse a unit's documents, and take out those of a benchmark; returns how many were new."""
        start, stop = int(self.starts[number]), int(self.starts[number + 1])
        kept = np.flatnonzero(self.columns.kept(start, stop))
        if not len(kept):
            return 0
        with self.open(number) as unit:
            rows = unit.found_rows()[kept]
            languages = self.settled(number)["language"].take(pa.array(rows)).to_pylist()
            missing = analyse_unit(self.analyst, unit, rows, languages, advance)
        with self.open_analysis(number) as analysed:
            found = analysed.columns("contamination")["contamination"].take(
                pa.array(places_of(analysed, rows))
            )
        copied = kept[np.asarray(found) != ""]
        if len(copied):
            accepted = np.array(self.columns.map("accepted")[start:stop])
            accepted[copied] = CONTAMINATED
            self.columns.write("accepted", start, accepted)
        return missing

    def settled_path(self, number: int) -> Path:
        """Where the settled columns of a unit lie."""
        return self.scratch / f"settled-{number:06d}.parquet"

    def settled(self, number: int) -> pa.Table:
        """The settled columns of a unit."""
        return pq.read_table(self.settled_path(number))

    def scopes(self) -> list[range]:
        """The units that are settled together, scope by scope."""
        names = [(place.source, place.scope) for place in self.places]
        begins = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
        return [range(*pair) for pair in zip(begins, [*begins[1:], len(names)], strict=True)]

    def by_unit(self, files: Files) -> Iterator[tuple[int, Files]]:
        """Files given in order, unit by unit: the unit's number, and their places among its found files."""
        units = np.searchsorted(self.starts, files, side="right") - 1
        for unit in np.unique(units):
            yield int(unit), files[units == unit] - self.starts[unit]

    def kept_before(self) -> Files:
        """How many documents stand before each unit, and how many there are."""
        starts = np.zeros(len(self.places) + 1, np.int64)
        for start, stop in self.columns.blocks():
            files = np.flatnonzero(self.columns.kept(start, stop)) + start
            starts[1:] += np.bincount(
                np.searchsorted(self.starts, files, side="right") - 1, minlength=len(self.places)
            )
        return np.cumsum(starts)

    def kept_bytes(self) -> int:
        """Size of the documents as they were found."""
        sizes = self.columns.map("bytes")
        blocks = self.columns.blocks()
        return sum(int(sizes[start:stop][self.columns.kept(start, stop)].sum()) for start, stop in blocks)

    def documents(self, start: int, stop: int, splits: Splits) -> Iterator[Document]:
        """The documents among the files from `start` to before `stop`."""
        files = np.flatnonzero(self.columns.kept(start, stop)) + start
        families = self.columns.map("family")
        for number, places in self.by_unit(files):
            with self.open(number) as unit, self.open_analysis(number) as analysed:
                rows = unit.found_rows()[places]
                settled = self.settled(number).take(pa.array(rows)).to_pylist()
                read = unit.read(rows, ["path", "content"])
                analyses = analysed.read(places_of(analysed, rows), ["models", "content"])
                for place, row, label, analysis in zip(places, read, settled, analyses, strict=True):
                    content = row["content"] if analysis["content"] is None else analysis["content"]
                    split = splits.of(int(families[self.starts[number] + place]))
                    yield Document(
                        self.places[number].source, row["path"], label["language"], label["licence"],
                        label["family"], split, content, analysis["models"],
                    )  # fmt: skip

    def document_ranges(self, file_bytes: int) -> list[tuple[int, int]]:
        """The files that go into each documents file, so that none holds more bytes, or one document only."""
        ends, held = [0], 0
        sizes = self.columns.map("bytes")
        for start, stop in self.columns.blocks():
            kept = np.flatnonzero(self.columns.kept(start, stop))
            total = np.cumsum(sizes[start:stop][kept].astype(np.int64))
            first = 0
            while first < len(kept):
                before = int(total[first - 1]) if first else 0
                fitting = int(np.searchsorted(total, before + file_bytes - held, side="right"))
                if fitting == first and not held:
                    fitting += 1
                if fitting == len(kept):
                    held += int(total[-1]) - before
                    break
                ends.append(start + int(kept[fitting]))
                first, held = fitting, 0
        return list(zip(ends, [*ends[1:], self.columns.count], strict=True))

    def names(self, files: Files) -> dict[int, tuple[str, str]]:
        """Source and path of some files, given in order, each once."""
        found: dict[int, tuple[str, str]] = {}
        for number, places in self.by_unit(files):
            with self.open(number) as unit:
                paths = unit.columns("path")["path"].take(pa.array(unit.found_rows()[places])).to_pylist()
            numbers = (places + self.starts[number]).tolist()
            found |= {
                file: (self.places[number].source, path) for file, path in zip(numbers, paths, strict=True)
            }
        return found

    def survey_partition(self, partition: int, partitions: int, languages: int) -> list[Survey]:
        """Survey the families whose keys are in one of `partitions` equal ranges, language by language."""
        keys: list[list[npt.NDArray[np.uint64]]] = [[] for _ in range(languages)]
        family, language = self.columns.map("family"), self.columns.map("language")
        for start, stop in self.columns.blocks():
            block, labels = family[start:stop], language[start:stop]
            part = (block >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)
            mine = (part == partition) & self.columns.kept(start, stop)
            for number in range(languages):
                keys[number].append(np.unique(block[mine & (labels == number)]))
        return [survey(np.concatenate([np.empty(0, np.uint64), *parts])) for parts in keys]
