"""Families of related files, and the split of a corpus into training and validation by family.

A validation loss means little if a training file is a variant of a validation file: the double precision
copy of a single precision routine, the header of an implementation, the CUDA port of a serial kernel.
Related files nearly always share a directory or a stem, so a family is a directory - or, where a directory
holds so many files that it would be a family of its own kind (LAPACK keeps 1,900 routines in one), a stem in
it. What marks a variant (precision letters, `_kernel`, `-cuda`, digits) is taken out of the names first.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import PurePosixPath

import xxhash
from pydantic import Field

from hpctrain.config import Section

LARGE_DIRECTORY_FILES = 64
"""A directory with more files than this is divided into families by stem."""
_VALIDATION_FAMILIES = 4
"""Each language is validated on so many families at least, but never on more than one in eight of its own."""

_VARIANT_WORDS = frozenset(
    """cpu gpu cuda hip sycl ocl opencl omp openmp mpi acc openacc kokkos kernel kernels serial seq sequential
    parallel par device host impl inl inline internal simd avx avx2 avx512 sse neon fwd test tests f90 f77
    single double complex real c cc cpp cxx fortran""".split()  # noqa: SIM905
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SEPARATORS = re.compile(r"[-_.\s]+")
_DIGITS = re.compile(r"\d+")
_PRECISION = re.compile(r"^[sdcz]{1,2}(?=.{2})")


class SplitConfig(Section):
    """How documents are divided into training and validation."""

    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the families that is held out for validation."""
    seed: int = Field(0, ge=0, lt=1 << 64)
    """Another seed holds out other families."""


def families(source: str, paths: Sequence[str]) -> list[str]:
    """The family of each file of one source; depends on the source's paths only."""
    sizes = Counter(PurePosixPath(path).parent for path in paths)
    return [
        _family(source, path, sizes[PurePosixPath(path).parent] > LARGE_DIRECTORY_FILES) for path in paths
    ]


def _family(source: str, path: str, by_stem: bool) -> str:
    pure = PurePosixPath(path)
    directory = [word for part in pure.parent.parts if (word := _without_variant_words(part))]
    stem = [_stem(pure.name)] if by_stem or not directory else []
    return "/".join([source, *directory, *stem])


def _stem(name: str) -> str:
    """One key for `dgemm.f`, `zgemm3.f90` and `SgemmKernel.cu`; it need not be pretty, only consistent."""
    plain = _DIGITS.sub("", _without_variant_words(name.partition(".")[0]))
    return _PRECISION.sub("", plain) or name


def _without_variant_words(name: str) -> str:
    words = _SEPARATORS.split(_CAMEL.sub("_", name).lower())
    return "-".join(word for word in words if word and word not in _VARIANT_WORDS)


def choose_validation(languages_of: Mapping[str, Set[str]], config: SplitConfig) -> set[str]:
    """The families held out: a keyed hash of the name below the share, so that it depends on no other family.

    A language that came off badly gets more of its families, those with the lowest hashes, so that every
    language with eight families or more is validated.
    """
    if not config.validation_share:
        return set()
    rank = {family: xxhash.xxh3_64_intdigest(family.encode(), config.seed) for family in languages_of}
    chosen = {family for family, value in rank.items() if value < config.validation_share * 2.0**64}
    by_language: dict[str, list[str]] = defaultdict(list)
    for family in sorted(rank, key=lambda name: (rank[name], name)):
        for language in languages_of[family]:
            by_language[language].append(family)
    for _, members in sorted(by_language.items()):
        # the lowest hashes are those below the share, then those that come next
        chosen.update(members[: min(_VALIDATION_FAMILIES, len(members) // 8)])
    return chosen


def languages_of_families(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """From (family, language) pairs to the languages of each family."""
    found: dict[str, set[str]] = defaultdict(set)
    for family, language in pairs:
        found[family].add(language)
    return found
