"""From a config to a corpus, by any number of ranks: examine units, settle, drop duplicates, split, publish.

Examined units are kept beside the corpus, so an interrupted build goes on, and a build of changed sources
examines only what changed. All that follows from them is quick, and is computed anew. No step depends on the
number of ranks or on who did what.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from hpctrain.config import Section, fingerprint
from hpctrain.corpus.analyse import Analyst
from hpctrain.corpus.contamination import Benchmarks, ContaminationConfig
from hpctrain.corpus.dedup import PARTITION_ROWS, drop_exact
from hpctrain.corpus.document import (
    CORPUS_FORMAT,
    CORPUS_KIND,
    FILE_CONTENT_BYTES,
    LANGUAGES,
    read_corpus_manifest,
)
from hpctrain.corpus.entry import Source, Unit
from hpctrain.corpus.examine import Rules
from hpctrain.corpus.families import SplitConfig, Splits
from hpctrain.corpus.filters import FilterConfig
from hpctrain.corpus.findings import Findings, UnitPlace
from hpctrain.corpus.gather import NO_CAP, choose_cap, examine_unit, file_name, weigh
from hpctrain.corpus.ledger import LEDGER_NAME, Ledger
from hpctrain.corpus.licences import LicencePolicy
from hpctrain.corpus.near import drop_near
from hpctrain.corpus.nearby import DuplicatesConfig
from hpctrain.corpus.publish import TableWriter, table_ranges, write_documents_file
from hpctrain.corpus.secrets import SecretsConfig
from hpctrain.corpus.settle import LicenceJudge, Settler, write_settled
from hpctrain.corpus.sources import SourceConfig
from hpctrain.corpus.units import RowFile
from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, StageWriter, disk_errors, find_finished
from hpctrain.parallel.crew import ALONE, Crew, write_stage_together
from hpctrain.progress import Progress, progress, say


class CorpusConfig(Section):
    """What a corpus is built from, and by which rules."""

    sources: list[SourceConfig] = Field(min_length=1)
    """Where code comes from. Of equal files the one of the first source is kept."""
    also: list[Literal["build", "docs"]] = []
    """What to keep besides programs: `build` (CMake, make, autoconf, meson, bazel, Spack), `docs` (README,
    Markdown, reStructuredText). They are languages of these names."""
    licences: LicencePolicy = LicencePolicy()
    """Which licences are accepted."""
    filters: FilterConfig = FilterConfig()
    """Thresholds of the content filters."""
    secrets: SecretsConfig = SecretsConfig()
    """What is replaced in kept files."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    """Which files are copies of another."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Which benchmarks are kept out."""
    split: SplitConfig = SplitConfig()
    """How documents are divided into training, validation and test."""

    @field_validator("sources")
    @classmethod
    def _check_names(cls, sources: list[SourceConfig]) -> list[SourceConfig]:
        counts = Counter(source.name for source in sources)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"source names given twice: {', '.join(twice)}")
        return sources


def build_corpus(config: CorpusConfig, out: Path, store: Path | None = None, crew: Crew = ALONE) -> Manifest:
    """Build the corpus directory `out`; a finished one with the same inputs is left as it is.

    `store`: where examined units are kept, by default `.NAME.units` beside `out`, from which then those that
    are not used any more are removed. A collective call; equal inputs give equal bytes, whatever the number
    of ranks. Raises DataError on every rank if a source cannot be had or read, if nothing is kept, or if
    `out` holds a corpus of other inputs.
    """
    return _Build(config, out, store, crew).run()


@dataclass
class _Task:
    """A unit to examine; only rank 0 has these, and sends each to one rank."""

    number: int
    unit: Unit
    source: str
    cap: int = NO_CAP


class _Build:
    """One build; the methods stand in the order of its steps."""

    def __init__(self, config: CorpusConfig, out: Path, store: Path | None, crew: Crew) -> None:
        self.config, self.out, self.crew = config, out, crew
        self.store = store or out.parent / f".{out.name}.units"
        self.owns_store = store is None
        benchmarks = crew.once(lambda: Benchmarks.load(config.contamination))
        self.rules = Rules(config.filters, config.also)
        self.analyst = Analyst(config.secrets, config.duplicates, benchmarks)
        self.judge = LicenceJudge(self.rules.licences, config.licences)
        self.ledger = Ledger(source.name for source in config.sources)
        self.tasks: list[_Task] = []
        self.metadata_licences: dict[str, str] = {}

    def run(self) -> Manifest:
        """All steps."""
        inputs = self.crew.once(self._open)
        self.metadata_licences = self.crew.bcast(self.metadata_licences)
        if finished := self.crew.once(lambda: find_finished(self.out, CORPUS_KIND, CORPUS_FORMAT, inputs)):
            self._say(f"{self.out}: up to date")
            return finished
        places = self._examine()
        with write_stage_together(self.crew, self.out, CORPUS_KIND, CORPUS_FORMAT) as writer:
            scratch = writer.directory / "scratch"
            findings = Findings(places, self.store, scratch, self.analyst)
            self._settle(findings)
            drop_exact(findings.columns, self.crew)
            self._analyse(findings)
            if self.config.duplicates.near:
                drop_near(findings, self.config.duplicates, self.crew)
            splits = self._split(findings)
            self._publish(findings, splits, writer)
            writer.inputs = inputs
            with self.crew.together():
                if self.crew.rank == 0:
                    shutil.rmtree(scratch)
        self.crew.once(lambda: self._forget(findings))
        return self.crew.once(lambda: read_corpus_manifest(self.out))

    # --- sources and units --------------------------------------------------------------------------------

    def _open(self) -> dict[str, str]:
        """Open every source and list its units; returns the fingerprints of what goes in."""
        opened = _open_sources(self.config.sources, self.ledger)
        prints: dict[str, list[list[str]]] = {}
        for name, source in opened.items():
            units = source.units()
            self.metadata_licences[name] = source.licence
            self.tasks += [_Task(len(self.tasks) + i, unit, name) for i, unit in enumerate(units)]
            prints[name] = [[unit.key, unit.fingerprint()] for unit in units]
        inputs = {"config": fingerprint(self.config), "sources": fingerprint(prints)}
        if self.config.contamination.benchmarks:
            inputs["benchmarks"] = self.analyst.benchmarks.fingerprint
        return inputs

    def _examine(self) -> list[UnitPlace]:
        """Examine every unit that is not examined yet; returns all in corpus order."""
        self._choose_caps()
        with self.crew.together(), disk_errors(self.store):
            self.store.mkdir(parents=True, exist_ok=True)
        done: dict[int, UnitPlace] = {}
        examined = 0
        total = sum(task.unit.work_bytes for task in self.tasks)
        tasks = sorted(self.tasks, key=lambda task: -task.unit.work_bytes)
        with (
            self._progress("corpus", total, "bytes") as bar,
            self.crew.deal(tasks, bar.advance) as deal,
            disk_errors(self.store),
        ):
            for task in deal:
                advance = partial(deal.advance, status=task.source)
                path = self.store / file_name(task.unit, self.rules, task.cap)
                if path.exists():
                    advance(task.unit.work_bytes)
                else:
                    examine_unit(task.unit, path, self.rules, task.cap, advance)
                    examined += 1
                done[task.number] = _place(task, path)
        places = {number: place for part in self.crew.allgather(done) for number, place in part.items()}
        examined = self.crew.total(examined)
        self._say(f"corpus: {examined} of {len(places)} units examined, the others were before")
        return [places[number] for number in sorted(places)]

    def _choose_caps(self) -> None:
        """Find out which files of sources with a bound are read."""
        bounds = {source.name: source.max_bytes for source in self.config.sources if source.max_bytes}
        for name, max_bytes in bounds.items():
            tasks = [task for task in self.tasks if task.source == name]
            weights = np.zeros(NO_CAP, np.int64)
            with self.crew.deal(tasks) as deal:
                for task in deal:
                    weights += weigh(task.unit.entries(), self.rules, deal.advance)
            cap = choose_cap(self.crew.total(weights), max_bytes)
            for task in tasks:
                task.cap = cap

    # --- what the surroundings tell -----------------------------------------------------------------------

    def _settle(self, findings: Findings) -> None:
        """Settle every scope and fill the columns."""
        with self.crew.together(), disk_errors(findings.scratch):
            if self.crew.rank == 0:
                findings.columns.create()
        settings = {source.name: source.licence for source in self.config.sources}
        scopes = findings.scopes()
        total = len(findings.places)
        with (
            self._progress("settle", total, "units") as bar,
            self.crew.deal(scopes, bar.advance) as deal,
            disk_errors(findings.scratch),
        ):
            for scope in deal:
                name = findings.places[scope[0]].source
                settler = Settler(name, settings[name], self.metadata_licences[name], self.judge)
                self._settle_scope(findings, scope, settler)
                deal.advance(len(scope), name)

    def _settle_scope(self, findings: Findings, scope: range, settler: Settler) -> None:
        for number in scope:
            with findings.open(number) as unit:
                settler.add(unit)
        settler.close()
        for number in scope:
            with findings.open(number) as unit:
                settler.count(unit)
        for number in scope:
            with findings.open(number) as unit:
                write_settled(
                    unit, settler.settle(unit), findings.settled_path(number), findings.columns,
                    int(findings.starts[number]), self.config.split.seed,
                )  # fmt: skip

    # --- documents ---------------------------------------------------------------------------------------

    def _analyse(self, findings: Findings) -> None:
        """Analyse the documents that are left and not analysed yet; those of a benchmark go."""
        sizes = [place.found for place in findings.places]
        largest_first = sorted(range(len(sizes)), key=lambda number: -sizes[number])
        missing, total = 0, int(findings.kept_before()[-1])
        with (
            self._progress("documents", findings.kept_bytes(), "bytes") as bar,
            self.crew.deal(largest_first, bar.advance) as deal,
            disk_errors(self.store),
        ):
            for number in deal:
                missing += findings.analyse(number, deal.advance)
        missing = self.crew.total(missing)
        self._say(f"corpus: {missing} of {total} documents analysed, the others were before")

    def _split(self, findings: Findings) -> Splits:
        """Choose the families that are held out."""
        rounds = max(1, -(-findings.columns.count // (PARTITION_ROWS * self.crew.size)))
        surveys = [
            findings.survey_partition(
                turn * self.crew.size + self.crew.rank, rounds * self.crew.size, len(LANGUAGES)
            )
            for turn in range(rounds)
        ]
        everyone = [one for part in self.crew.allgather(surveys) for one in part]
        merged = everyone[0]
        for other in everyone[1:]:
            merged = [mine.merge(theirs) for mine, theirs in zip(merged, other, strict=True)]
        return Splits(merged, self.config.split)

    # --- the corpus ---------------------------------------------------------------------------------------

    def _publish(self, findings: Findings, splits: Splits, writer: StageWriter) -> None:
        ledger = Ledger(source.name for source in self.config.sources)
        ranges = table_ranges(findings)
        tables = TableWriter(findings, splits, self.judge, ledger)
        with self.crew.deal(range(len(ranges))) as deal, disk_errors(writer.directory):
            for number in deal:
                tables.write(number, ranges[number], writer)
                deal.advance(1)
        for other in self.crew.gather(ledger):
            self.ledger.merge(other)
        with self.crew.together():
            if self.crew.rank == 0:
                self._write_ledger(writer)
        files = findings.document_ranges(FILE_CONTENT_BYTES)
        with (
            self._progress("documents", len(files), "files") as bar,
            self.crew.deal(range(len(files)), bar.advance) as deal,
            disk_errors(writer.directory),
        ):
            for number in deal:
                write_documents_file(findings, splits, number, files[number], writer)
                deal.advance(1)

    def _write_ledger(self, writer: StageWriter) -> None:
        if not any(source.kept.files for source in self.ledger.sources.values()):
            raise DataError(
                f"nothing to train on: no file of any source was kept\n{self.ledger.explain_empty()}"
            )
        writer.counts = self.ledger.counts()
        with disk_errors(writer.directory):
            writer.write_json(LEDGER_NAME, self.ledger.to_json())

    def _forget(self, findings: Findings) -> None:
        """Remove what is in a store of its own and of no use for this build."""
        if self.owns_store:
            units = [self.store / place.file for place in findings.places]
            used = {*units, *(self.analyst.path_of(unit) for unit in units)}
            for path in self.store.iterdir():
                if path not in used:
                    path.unlink()

    def _progress(self, label: str, total: float, unit: str) -> AbstractContextManager[Progress]:
        return progress(label, total, unit, visible=self.crew.rank == 0)

    def _say(self, message: str) -> None:
        if self.crew.rank == 0:
            say(message)


def _place(task: _Task, path: Path) -> UnitPlace:
    examined = RowFile(path)
    place = UnitPlace(task.source, task.unit.key, task.unit.scope, path.name, examined.rows, examined.found)
    examined.close()
    return place


def _open_sources(configs: Sequence[SourceConfig], ledger: Ledger) -> dict[str, Source]:
    """Open every source; an optional one that does not exist is noted and left out."""
    opened = {}
    for config in configs:
        try:
            opened[config.name] = config.open()
        except DataError as reason:
            if not config.optional:
                raise DataError(f"source {config.name}: {reason}") from None
            say(f"source {config.name} is left out: {reason}")
            ledger.sources[config.name].missing[config.name] = str(reason)
        else:
            ledger.sources[config.name].missing.update(opened[config.name].missing)
    return opened
