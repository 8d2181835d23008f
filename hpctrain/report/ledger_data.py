"""What the page of a corpus shows: the ledger, and counts over the tables of verdicts and duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from hpctrain.corpus.document import read_corpus_manifest
from hpctrain.corpus.filters import FilterConfig, make_filters
from hpctrain.corpus.ledger import CONTAMINATION, DUPLICATE, NEAR_DUPLICATE
from hpctrain.corpus.secrets import scrub
from hpctrain.corpus.show import read_ledger
from hpctrain.corpus.verdicts import read_duplicates, read_verdicts
from hpctrain.errors import DataError
from hpctrain.shards.reader import read_shards_manifest

SIZE_BINS = 33
"""Documents are counted by size, in bins from one power of two to the next."""
JACCARD_BINS = 50
"""Near duplicates are counted by similarity, in so many equal bins from 0 to 1."""
_SAMPLES = 4
_SAMPLE_BYTES = 600
_SCRUBBED_BYTES = 4096
_SAMPLE_LINES = 12
_LISTED = 200
_CLUSTERS = 10


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.files + other.files, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Sample:
    """How a dropped file begins."""

    source: str
    path: str
    bytes: int
    text: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A file that repeats a benchmark."""

    source: str
    path: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A document that stayed in place of others."""

    path: str
    copies: int


@dataclass
class CorpusRecord:
    """All that is known of a corpus."""

    name: str
    fingerprint: str
    sources: dict[str, Any]
    """The ledger, by source."""
    sizes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """Documents of each language by size, in SIZE_BINS."""
    models: dict[str, dict[str, Amount]] = field(default_factory=dict)
    """Documents by programming model and language; a document of two models counts for both."""
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """A few dropped files by reason."""
    removals: list[Removal] = field(default_factory=list)
    """What repeated a benchmark, the first of it in corpus order."""
    jaccard: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(JACCARD_BINS, np.int64))
    """Near duplicates by similarity, in JACCARD_BINS."""
    clusters: list[Cluster] = field(default_factory=list)
    """Documents with the most copies."""
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)
    """By split and language, where shards tell."""

    def total(self, key: str) -> Amount:
        """`seen` or `kept` of all sources."""
        return sum((amount(source[key]) for source in self.sources.values()), Amount())

    def by(self, key: str) -> dict[str, Amount]:
        """A table of the ledger over all sources, large ones first."""
        found: defaultdict[str, Amount] = defaultdict(Amount)
        for source in self.sources.values():
            for name, tally in source[key].items():
                found[name] += amount(tally)
        return dict(sorted(found.items(), key=lambda item: (-item[1].bytes, -item[1].files, item[0])))

    @property
    def benchmarks(self) -> dict[str, Amount]:
        """What was dropped as a copy of each benchmark; a detail names it before its first colon."""
        found: defaultdict[str, Amount] = defaultdict(Amount)
        for detail, tally in self.by("contamination").items():
            found[detail.partition(":")[0]] += tally
        return dict(found)

    @property
    def secrets(self) -> dict[str, int]:
        """Replaced places in documents by kind, frequent ones first."""
        counts: Counter[str] = Counter()
        for source in self.sources.values():
            counts.update(source["secrets"])
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def missing(self) -> dict[str, str]:
        """Sources, or parts of them, that could not be had, and why."""
        return {name: why for source in self.sources.values() for name, why in source["missing"].items()}

    @property
    def languages(self) -> dict[str, dict[str, Amount]]:
        """Documents by language and split, large languages first."""
        found: dict[str, dict[str, Amount]] = {language: {} for language in self.by("languages")}
        for name, tally in self.by("splits").items():
            split, _, language = name.partition("/")
            found[language][split] = tally
        return found


def amount(tally: Mapping[str, int]) -> Amount:
    """A tally of the ledger."""
    return Amount(tally["files"], tally["bytes"])


def read_corpus(directory: Path) -> CorpusRecord:
    """Read a corpus's ledger and go once through its tables; memory does not grow with the documents kept.

    Raises DataError if the corpus is missing, unfinished or damaged.
    """
    manifest = read_corpus_manifest(directory)
    record = CorpusRecord(directory.resolve().name, manifest.fingerprint, read_ledger(directory, manifest))
    models: Counter[tuple[str, str, str]] = Counter()
    ranked: dict[str, list[tuple[int, Sample]]] = {}
    columns = ["source", "path", "bytes", "reason", "detail", "language", "models", "sample"]
    for batch in read_verdicts(directory, columns):
        table = pa.Table.from_batches([batch])
        _count_documents(table.filter(pc.equal(table["reason"], "")), record, models)
        _pick_samples(table.filter(pc.is_valid(table["sample"])), ranked)
        room = _LISTED - len(record.removals)
        removed = table.filter(pc.equal(table["reason"], CONTAMINATION)).slice(0, room)
        record.removals += (Removal(*row) for row in _rows(removed, "source", "path", "detail"))
    for (model, language, what), number in models.items():
        of_model = record.models.setdefault(model, {})
        of_model[language] = of_model.get(language, Amount()) + Amount(**{what: number})
    record.samples = {reason: [sample for _, sample in found] for reason, found in sorted(ranked.items())}
    _count_duplicates(directory, record)
    return record


def read_tokens(shards: Path, corpus: str) -> dict[str, dict[str, int]]:
    """Tokens of shards by split and language. Raises DataError if they are of another corpus."""
    manifest = read_shards_manifest(shards)
    if manifest.inputs.get("corpus") != corpus:
        raise DataError(f"{shards}: made of another corpus than this one")
    tokens: dict[str, dict[str, int]] = manifest.counts["tokens"]
    return tokens


def _rows(table: pa.Table, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in columns), strict=True)


def _count_documents(table: pa.Table, record: CorpusRecord, models: Counter[tuple[str, str, str]]) -> None:
    languages = table["language"]
    for language in pc.unique(languages).to_pylist():
        sizes = table.filter(pc.equal(languages, language))["bytes"].to_numpy()
        bins = np.bincount(np.frexp(sizes)[1].clip(0, SIZE_BINS - 1), minlength=SIZE_BINS)
        record.sizes[language] = record.sizes.get(language, 0) + bins
    groups = table.group_by(["models", "language"]).aggregate([("bytes", "count"), ("bytes", "sum")])
    for names, language, files, size in _rows(groups, "models", "language", "bytes_count", "bytes_sum"):
        for model in filter(None, names.split(",")):
            models[model, language, "files"] += files
            models[model, language, "bytes"] += size


def _pick_samples(table: pa.Table, ranked: dict[str, list[tuple[int, Sample]]]) -> None:
    """Keep of each reason the samples whose paths have the least hashes: an even choice over the corpus."""
    for reason, source, path, size, content in _rows(table, "reason", "source", "path", "bytes", "sample"):
        place = xxhash.xxh3_64_intdigest(f"{source}/{path}".encode())
        found = ranked.setdefault(reason, [])
        if len(found) < _SAMPLES or place < found[-1][0]:
            found.append((place, Sample(source, path, size, excerpt(content))))
            found.sort(key=lambda item: item[0])
            del found[_SAMPLES:]


def excerpt(content: bytes, max_lines: int = _SAMPLE_LINES) -> str:
    """The beginning of a file for people to read; what was dropped was not scrubbed, so it is here."""
    text = scrub(content[:_SCRUBBED_BYTES])[0][:_SAMPLE_BYTES].decode("utf-8", "replace")
    shown = "\n".join(line[:160] for line in text.splitlines()[:max_lines])
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in shown)


def _count_duplicates(directory: Path, record: CorpusRecord) -> None:
    hashes: list[npt.NDArray[np.uint64]] = []
    for batch in read_duplicates(directory):
        near = batch.filter(pc.equal(batch["kind"], "near"))["jaccard"].to_numpy()
        bins = (near * JACCARD_BINS).astype(np.int64).clip(0, JACCARD_BINS - 1)
        record.jaccard = record.jaccard + np.bincount(bins, minlength=JACCARD_BINS)
        hashes.append(np.fromiter(map(_hash, _kept(batch)), np.uint64, batch.num_rows))
    if not hashes:
        return
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_CLUSTERS]
    wanted = dict(zip(values[most].tolist(), counts[most].tolist(), strict=True))
    names = {key: name for batch in read_duplicates(directory) for name in _kept(batch)
             if (key := _hash(name)) in wanted}  # fmt: skip
    record.clusters = [Cluster(names[key], number) for key, number in wanted.items()]


def _kept(batch: pa.RecordBatch) -> Iterator[str]:
    pairs = zip(batch["kept_source"].to_pylist(), batch["kept_path"].to_pylist(), strict=True)
    return (f"{source}/{path}" for source, path in pairs)


def _hash(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode())


KEPT, NO_LANGUAGE = "kept", "no language of the corpus"
FATES = (KEPT, "duplicate", "licence", "poor quality", "benchmark", "not read", NO_LANGUAGE)
"""What can become of a file, in the order in which pictures stack it."""
_FATES = {
    DUPLICATE: "duplicate", NEAR_DUPLICATE: "duplicate", CONTAMINATION: "benchmark", "language": NO_LANGUAGE,
    "licence unknown": "licence", "licence not allowed": "licence",
    **{rule.reason: "poor quality" for rule in make_filters(FilterConfig())},
    "too large": "poor quality",
}  # fmt: skip


def fate_of(reason: str) -> str:
    """The one of FATES that a drop reason belongs to."""
    return _FATES.get(reason, "not read")


def fates(source: Mapping[str, Any]) -> dict[str, Amount]:
    """What became of the files of one source."""
    found = dict.fromkeys(FATES, Amount())
    found[KEPT] = amount(source["kept"])
    for reason, tally in source["dropped"].items():
        found[fate_of(reason)] += amount(tally)
    return found


def top(items: Mapping[str, Amount], limit: int) -> Iterable[tuple[str, Amount]]:
    """The first `limit` of a table, the rest summed up as one line."""
    rows = list(items.items())
    rest = rows[limit:]
    if len(rest) < 2:
        return rows
    return [*rows[:limit], (f"and {len(rest)} more", sum((each for _, each in rest), Amount()))]
