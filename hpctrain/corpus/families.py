"""Families of related files, and the split of a corpus into training, validation and test by family.

A validation loss means little if a training file is a variant of a validation file: the double precision
copy of a single precision routine, the header of an implementation, the CUDA port of a serial kernel.
Related files nearly always share a directory or a stem, so a family is a directory - or, where a directory
holds so many files that it would be a family of its own kind (LAPACK keeps 1,900 routines in one), a stem in
it. What marks a variant (precision letters, `_kernel`, `-cuda`, digits) is taken out of the names first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hpctrain.config import Section

LARGE_DIRECTORY_FILES = 64
"""A directory with more files than this is divided into families by stem."""
_HELD_OUT_FAMILIES = 4
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
    """How documents are divided into training, validation and test."""

    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the families that is held out for validation."""
    test_share: float = Field(0, ge=0, lt=1)
    """Share of the families that is held out for a test; another share does not change what validates."""
    seed: int = Field(0, ge=0, lt=1 << 64)
    """Another seed holds out other families."""

    @model_validator(mode="after")
    def _check_shares(self) -> SplitConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self


def family_of(source: str, path: str, by_stem: bool) -> str:
    """The family of a file: its directory, and with `by_stem` its stem; variants of one name share it."""
    parent, _, name = path.rpartition("/")
    directory = [word for part in parent.split("/") if (word := _without_variant_words(part))]
    stem = [_stem(name)] if by_stem or not directory else []
    return "/".join([source, *directory, *stem])


def _stem(name: str) -> str:
    """One key for `dgemm.f`, `zgemm3.f90` and `SgemmKernel.cu`; it need not be pretty, only consistent."""
    plain = _DIGITS.sub("", _without_variant_words(name.partition(".")[0]))
    return _PRECISION.sub("", plain) or name


def _without_variant_words(name: str) -> str:
    words = _SEPARATORS.split(_CAMEL.sub("_", name).lower())
    return "-".join(word for word in words if word and word not in _VARIANT_WORDS)


Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Survey:
    """The families of one language: how many, and the keys that are least and greatest.

    A key is a keyed hash of the family's name, so that which families are held out depends on no other
    family. Validation has the least keys, test the greatest.
    """

    families: int
    least: tuple[int, ...]
    greatest: tuple[int, ...]

    def merge(self, other: Survey) -> Survey:
        """The survey of the families of both, which have none in common."""
        least = sorted(self.least + other.least)[:_HELD_OUT_FAMILIES]
        greatest = sorted(self.greatest + other.greatest)[-_HELD_OUT_FAMILIES:]
        return Survey(self.families + other.families, tuple(least), tuple(greatest))


def survey(keys: Keys) -> Survey:
    """Survey the families of one language, given the key of each of its files."""
    found = np.unique(keys)
    least, greatest = found[:_HELD_OUT_FAMILIES], found[-_HELD_OUT_FAMILIES:]
    return Survey(len(found), tuple(least.tolist()), tuple(greatest.tolist()))


class Splits:
    """Which families are held out: a share, and of each language of eight families or more some at least."""

    def __init__(self, surveys: Sequence[Survey], config: SplitConfig) -> None:
        """`surveys`: one for each language."""
        self._below = int(config.validation_share * 2.0**64)
        self._from = int((1 - config.test_share) * 2.0**64)
        self._validation: set[int] = set()
        self._test: set[int] = set()
        for one in surveys:
            number = min(_HELD_OUT_FAMILIES, one.families // 8)
            if config.validation_share:
                self._validation.update(one.least[:number])
            if config.test_share:
                self._test.update(one.greatest[len(one.greatest) - number :])

    def of(self, key: int) -> str:
        """The split of the family with this key."""
        if key < self._below or key in self._validation:
            return "validation"
        return "test" if key >= self._from or key in self._test else "train"
