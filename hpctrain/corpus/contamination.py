"""Keeps benchmarks out of a corpus: documents that share too much of their code, or define their functions.

Code is compared by runs of normalised tokens, so that comments, layout, case, Fortran's form and precision do
not hide a copy. Of each benchmark file only the runs with the least hashes are held: a sample of fixed size
from which shares are estimated. A renamed copy has other tokens and is not found.

Memory: 16 bytes for each of `sketch_runs` and some names a benchmark file, 200 MB for ten thousand files.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import Field, field_validator

from hpctrain.config import Section, fingerprint
from hpctrain.corpus.benchmarks import BenchmarkConfig, BenchmarkFile, defined_names, read_benchmark
from hpctrain.corpus.families import family_of
from hpctrain.corpus.languages import UNDECIDED
from hpctrain.corpus.normalise import Normaliser

_COMMON_FAMILIES = 4
"""A run or a name that more families of one benchmark share is what its harness repeats."""
_MIN_NAME_BYTES = 6
_WORD = re.compile(rb"[A-Za-z_]\w{5,99}")
_Hashes = npt.NDArray[np.uint64]


class ContaminationConfig(Section):
    """Which benchmarks are kept out, and what counts as a copy."""

    benchmarks: list[BenchmarkConfig] = []
    """What is kept out; see docs/contamination.md for how to name known ones."""
    run_tokens: int = Field(12, ge=4, le=64)
    """Tokens in a row that are compared as one."""
    min_runs: int = Field(20, ge=1)
    """A benchmark file and a document must share so many runs, or all of a smaller file."""
    max_share: float = Field(0.5, gt=0, le=1)
    """A document is dropped if it shares this part of a benchmark file's runs, or of its own."""
    min_names: int = Field(3, ge=1)
    """A document is dropped too if it defines so many functions of one benchmark file ..."""
    max_name_share: float = Field(0.6, gt=0, le=1)
    """... and this share of those that are distinctive of it."""
    sketch_runs: int = Field(1024, ge=64)
    """So many runs of each benchmark file are held; the share of a larger file is estimated from them."""

    @field_validator("benchmarks")
    @classmethod
    def _check_names(cls, given: list[BenchmarkConfig]) -> list[BenchmarkConfig]:
        counts = Counter(benchmark.name for benchmark in given)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"benchmark names given twice: {', '.join(twice)}")
        return given


@dataclass(frozen=True, slots=True)
class Match:
    """What a document repeats."""

    benchmark: str
    path: str
    """The file of the benchmark."""
    share: float
    """Of the runs or names that are the same."""
    by: str
    """`runs of tokens` or `function names`."""

    def __str__(self) -> str:
        return f"{self.benchmark}: {self.path}, {self.share:.0%} by {self.by}"


@dataclass(frozen=True, slots=True)
class _File:
    """A benchmark file as it is held."""

    benchmark: str
    path: str
    family: str
    runs: _Hashes
    """The least hashes of its runs, sorted."""
    bound: int
    """Runs with hashes up to this are held; the greatest there is where all are."""
    names: frozenset[bytes]
    """What it defines."""

    def without(self, runs: _Hashes, names: frozenset[bytes], limit: int) -> _File:
        """The file without what is common, and with so many runs at most."""
        own = self.runs[~np.isin(self.runs, runs)]
        bound = int(own[limit - 1]) if len(own) > limit else self.bound
        return replace(self, runs=own[:limit], bound=bound, names=self.names - names)


class Benchmarks:
    """All benchmark files, ready to be compared with documents."""

    def __init__(self, config: ContaminationConfig, files: Sequence[_File]) -> None:
        self.config, self._normaliser = config, Normaliser(config.run_tokens)
        self._files = [replace(file, runs=np.zeros(0, np.uint64)) for file in files]
        self._sizes = np.array([len(file.runs) for file in files], np.int64)
        runs = np.concatenate([np.zeros(0, np.uint64), *(file.runs for file in files)])
        owners = np.repeat(np.arange(len(files), dtype=np.int32), self._sizes)
        order = np.argsort(runs, kind="stable")
        self._runs, self._owners = runs[order], owners[order]
        self._names: Mapping[bytes, list[int]] = _where_defined(file.names for file in files)

    @classmethod
    def load(cls, config: ContaminationConfig) -> Benchmarks:
        """Read the benchmarks of a config. Raises DataError if one is not there or holds no code."""
        normaliser = Normaliser(config.run_tokens)
        files: list[_File] = []
        for benchmark in config.benchmarks:
            # twice as many as are held in the end, for what is common is taken out
            own = [_read(file, normaliser, 2 * config.sketch_runs) for file in read_benchmark(benchmark)]
            runs, names = _common_runs(own), _common_names(own)
            files += [file.without(runs, names, config.sketch_runs) for file in own]
        return cls(config, files)

    @property
    def fingerprint(self) -> str:
        """Changes with the benchmarks and the thresholds."""
        names = [sorted(name.decode("latin-1") for name in file.names) for file in self._files]
        files = [[file.benchmark, file.path, str(file.bound)] for file in self._files]
        runs = [xxhash.xxh3_128_hexdigest(array.tobytes()) for array in (self._runs, self._owners)]
        return fingerprint([self.config.model_dump(mode="json"), files, names, runs])

    def match(self, content: bytes, language: str) -> str:
        """The name of the benchmark that a document repeats, or ""."""
        found = self.find(content, language)
        return found.benchmark if found else ""

    def find(self, content: bytes, language: str) -> Match | None:
        """What a document repeats, the file with the greatest share of it; None if nothing."""
        if not self._files:
            return None
        language = "c" if language == UNDECIDED else language
        return self._find_runs(content, language) or self._find_names(content, language)

    def _find_runs(self, content: bytes, language: str) -> Match | None:
        runs = self._normaliser.shingles(content, language)
        shared = self._count_shared(runs)
        few = np.minimum(self.config.min_runs, self._sizes)
        best = None
        for number in np.flatnonzero((shared > 0) & (shared >= few)).tolist():
            file, count = self._files[number], int(shared[number])
            share = count / int(self._sizes[number])
            if count >= self.config.min_runs:  # an excerpt: most of the document, little of the benchmark
                share = max(share, count / int(np.searchsorted(runs, np.uint64(file.bound), "right")))
            if share >= self.config.max_share and (best is None or share > best.share):
                best = Match(file.benchmark, file.path, share, "runs of tokens")
        return best

    def _count_shared(self, runs: _Hashes) -> npt.NDArray[np.int64]:
        """How many runs of a document each file has."""
        first = np.searchsorted(self._runs, runs, "left")
        number = np.searchsorted(self._runs, runs, "right") - first
        hits = number > 0
        first, number = first[hits], number[hits]
        within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        owners = self._owners[np.repeat(first, number) + within]
        return np.bincount(owners, minlength=len(self._files))

    def _find_names(self, content: bytes, language: str) -> Match | None:
        mentioned = {word.lower() for word in _WORD.findall(content)} & self._names.keys()
        if not self._best_by_names(mentioned):  # what is mentioned is found at once, what is defined is not
            return None
        return self._best_by_names(mentioned & defined_names(content, language))

    def _best_by_names(self, names: Iterable[bytes]) -> Match | None:
        shared = Counter(number for name in names for number in self._names[name])
        best = None
        for number, count in sorted(shared.items()):
            file = self._files[number]
            share = count / len(file.names)
            enough = count >= self.config.min_names and share >= self.config.max_name_share
            if enough and (best is None or share > best.share):
                best = Match(file.benchmark, file.path, share, "function names")
        return best


def _read(file: BenchmarkFile, normaliser: Normaliser, limit: int) -> _File:
    runs = normaliser.shingles(file.content, file.language)
    bound = int(runs[limit - 1]) if len(runs) > limit else 2**64 - 1
    names = frozenset(n for n in defined_names(file.content, file.language) if len(n) >= _MIN_NAME_BYTES)
    family = family_of(file.benchmark, file.path, by_stem=False)
    return _File(file.benchmark, file.path, family, runs[:limit].copy(), bound, names)


def _where_defined(names: Iterable[frozenset[bytes]]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for number, defined in enumerate(names):
        for name in defined:
            found[name].append(number)
    return dict(found)


def _common_runs(files: Sequence[_File]) -> _Hashes:
    """The runs that more than a few families have."""
    by_family: dict[str, list[_Hashes]] = defaultdict(list)
    for file in files:
        by_family[file.family].append(file.runs)
    every = [np.unique(np.concatenate(runs)) for runs in by_family.values()]
    values, counts = np.unique(np.concatenate(every), return_counts=True)
    common: _Hashes = values[counts > _COMMON_FAMILIES]
    return common


def _common_names(files: Sequence[_File]) -> frozenset[bytes]:
    """The names that more than a few families define."""
    families: dict[bytes, set[str]] = defaultdict(set)
    for file in files:
        for name in file.names:
            families[name].add(file.family)
    return frozenset(name for name, where in families.items() if len(where) > _COMMON_FAMILIES)
