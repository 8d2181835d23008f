"""From a config to a corpus: sources -> findings -> duplicates out -> split -> documents on disk."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from pydantic import Field, field_validator

from hpctrain.config import Section, fingerprint
from hpctrain.corpus.dedup import drop_duplicates
from hpctrain.corpus.document import (
    CORPUS_FORMAT,
    CORPUS_KIND,
    SPLITS,
    Document,
    read_corpus_manifest,
    write_corpus_files,
)
from hpctrain.corpus.entry import Entry, Source
from hpctrain.corpus.examine import Drop, Finding, Rules, examine
from hpctrain.corpus.families import SplitConfig, choose_validation, families, languages_of_families
from hpctrain.corpus.filters import FilterConfig
from hpctrain.corpus.languages import may_be_kept, settle_headers
from hpctrain.corpus.ledger import LEDGER_NAME, UNKNOWN_LICENCE, Ledger, SourceLedger
from hpctrain.corpus.licences import LicencePolicy, combine, is_licence_file, nearest
from hpctrain.corpus.sources import SourceConfig
from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, find_finished, write_stage
from hpctrain.progress import progress, say


class CorpusConfig(Section):
    """What a corpus is built from, and by which rules."""

    sources: list[SourceConfig] = Field(min_length=1)
    """Where code comes from. Of equal files the one of the first source is kept."""
    licences: LicencePolicy = LicencePolicy()
    """Which licences are accepted."""
    filters: FilterConfig = FilterConfig()
    """Thresholds of the content filters."""
    split: SplitConfig = SplitConfig()
    """How documents are divided into training and validation."""

    @field_validator("sources")
    @classmethod
    def _check_names(cls, sources: list[SourceConfig]) -> list[SourceConfig]:
        counts = Counter(source.name for source in sources)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"source names given twice: {', '.join(twice)}")
        return sources


def build_corpus(config: CorpusConfig, out: Path) -> Manifest:
    """Build the corpus directory `out`; a finished one with the same inputs is left as it is.

    Equal inputs give equal bytes. Raises DataError if a source cannot be had or read, if nothing is kept, or
    if `out` holds a corpus of other inputs.
    """
    ledger = Ledger(source.name for source in config.sources)
    opened = _open_sources(config.sources, ledger)
    inputs = {
        "config": fingerprint(config),
        "sources": fingerprint({name: source.fingerprint() for name, source in opened.items()}),
    }
    if finished := find_finished(out, CORPUS_KIND, CORPUS_FORMAT, inputs):
        say(f"{out}: up to date")
        return finished
    with write_stage(out, CORPUS_KIND, CORPUS_FORMAT) as writer, Spool(out.parent) as spool:
        gathered = _gather_all(config, opened, ledger, spool)
        kept = list(drop_duplicates(gathered, lambda k: ledger.sources[k.source].drop("duplicate", k.size)))
        if not kept:
            raise DataError(f"nothing to train on: no file of any source was kept\n{ledger.explain_empty()}")
        splits = _assign_splits(kept, config.split)
        for item in kept:
            ledger.sources[item.source].keep(item.language, item.licence, item.size)
        write_corpus_files(writer, (item.document(splits[item.family], spool) for item in kept))
        writer.inputs = inputs
        writer.counts = _count(kept, splits)
        writer.write_json(LEDGER_NAME, ledger.to_json())
    return read_corpus_manifest(out)


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


class Spool:
    """A nameless file for the content of kept files until their order and split are known."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by __exit__
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, content: bytes) -> int:
        """Store content; returns its place."""
        place = self._end
        self._file.seek(place)
        self._file.write(content)
        self._end += len(content)
        return place

    def read(self, place: int, size: int) -> bytes:
        """The `size` bytes stored at `place`."""
        self._file.seek(place)
        return self._file.read(size)


@dataclass(slots=True)
class _Kept:
    """A kept file: everything but its content, which lies in the spool."""

    source: str
    path: str
    language: str
    licence: str
    sha256: str
    place: int
    size: int
    family: str = ""

    def document(self, split: str, spool: Spool) -> Document:
        content = spool.read(self.place, self.size)
        return Document(self.source, self.path, self.language, self.licence, self.family, split, content)


def _gather_all(
    config: CorpusConfig, opened: dict[str, Source], ledger: Ledger, spool: Spool
) -> Iterator[_Kept]:
    """The kept files of all sources in corpus order: sources as in the config, paths sorted."""
    rules = Rules(config.filters)
    total = sum(source.work_bytes for source in opened.values())
    with progress("corpus", total, "bytes") as bar:
        for settings in config.sources:
            if settings.name in opened:
                gatherer = _Gatherer(config, settings, rules, ledger.sources[settings.name], spool)
                yield from gatherer.gather(opened[settings.name], bar.advance)


class _Gatherer:
    """Reads one source: what is kept goes to the spool, everything else to the ledger."""

    def __init__(
        self, config: CorpusConfig, settings: SourceConfig, rules: Rules, ledger: SourceLedger, spool: Spool
    ) -> None:
        self.config, self.settings, self.rules = config, settings, rules
        self.ledger, self.spool = ledger, spool

    def gather(self, source: Source, advance: Callable[[float, str], None]) -> list[_Kept]:
        chosen = _choose(source, self.settings.max_bytes, self.config) if self.settings.max_bytes else None
        kept: list[_Kept] = []
        texts: dict[str, set[str]] = defaultdict(set)
        for entry in source.entries():
            advance(entry.work_bytes, self.settings.name)
            self.ledger.seen.add(entry.size)
            if is_licence_file(entry.path):
                self._note_licence(entry, texts)
                self.ledger.drop("language", entry.size)
            elif isinstance(item := self._judge(entry, chosen), Drop):
                self.ledger.drop(item.reason, entry.size)
            else:
                kept.append(item)
        by_directory = {directory: combine(found) for directory, found in texts.items()}
        return self._finish(kept, by_directory, source.licence)

    def _note_licence(self, entry: Entry, texts: dict[str, set[str]]) -> None:
        """Remember what a LICENSE or COPYING file means for the files below its directory."""
        if not entry.problem and entry.size <= self.config.filters.max_bytes:
            with suppress(OSError):
                directory = entry.path.rpartition("/")[0]
                texts[directory].add(self.rules.licences.of_source(entry.read()))

    def _judge(self, entry: Entry, chosen: set[str] | None) -> _Kept | Drop:
        if problem := _unread_problem(entry, self.config):
            return Drop(problem)
        if chosen is not None and entry.path not in chosen:
            return Drop("over max_bytes")
        try:
            content = entry.read()
        except OSError:
            return Drop("unreadable")
        verdict: Finding | Drop = examine(entry.path, content, self.rules)
        if isinstance(verdict, Drop):
            return verdict
        place = self.spool.append(content)
        return _Kept(
            self.settings.name,
            entry.path,
            verdict.language,
            verdict.licence,
            verdict.sha256,
            place,
            len(content),
        )

    def _finish(self, kept: list[_Kept], by_directory: dict[str, str], from_metadata: str) -> list[_Kept]:
        """Fill in what only the whole source can tell (headers, licences, families), and sort."""
        accepted = []
        languages = settle_headers([(item.path, item.language) for item in kept])
        for item, language in zip(kept, languages, strict=True):
            item.language = language
            declared = self.settings.licence or nearest(item.path, by_directory)
            item.licence = item.licence or declared or self.rules.licences.parse(from_metadata)
            if self.rules.licences.accepts(item.licence, self.config.licences):
                accepted.append(item)
            else:
                self.ledger.drop("licence not allowed" if item.licence else "licence unknown", item.size)
        accepted.sort(key=lambda item: item.path)
        names = families(self.settings.name, [item.path for item in accepted])
        for item, family in zip(accepted, names, strict=True):
            item.family = family
        return accepted


def _unread_problem(entry: Entry, config: CorpusConfig) -> str:
    """The drop reason of what need not be read, or ""."""
    if entry.problem:
        return entry.problem
    if not may_be_kept(entry.path):
        return "language"
    return "too large" if entry.size > config.filters.max_bytes else ""


def _choose(source: Source, max_bytes: int, config: CorpusConfig) -> set[str]:
    """Paths of at most `max_bytes` together, by hash: a sample, not the first in the alphabet."""
    candidates = [(e.path, e.size) for e in source.entries() if not _unread_problem(e, config)]
    candidates.sort(key=lambda item: (xxhash.xxh3_64_intdigest(item[0].encode()), item[0]))
    chosen, total = set(), 0
    for path, size in candidates:
        if total + size <= max_bytes:
            chosen.add(path)
            total += size
    return chosen


def _assign_splits(kept: Sequence[_Kept], config: SplitConfig) -> dict[str, str]:
    languages = languages_of_families((item.family, item.language) for item in kept)
    validation = choose_validation(languages, config)
    return {family: SPLITS[family in validation] for family in languages}


def _count(kept: Iterable[_Kept], splits: dict[str, str]) -> dict[str, Any]:
    """The manifest's counts: documents and bytes by split and language, bytes by licence."""
    documents: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    sizes: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    licences: Counter[str] = Counter()
    for item in kept:
        split = splits[item.family]
        documents[split][item.language] += 1
        sizes[split][item.language] += item.size
        licences[item.licence or UNKNOWN_LICENCE] += item.size
    by_split = {
        name: {split: dict(sorted(counter.items())) for split, counter in table.items()}
        for name, table in (("documents", documents), ("bytes", sizes))
    }
    return {**by_split, "licences": dict(sorted(licences.items()))}
