"""MinHash signatures of shingle sets by one permutation, and the bands under which similar ones meet.

Two sets agree in a place of their signatures with a probability equal to their Jaccard similarity. One sorted
array of hashes serves all places: place p holds the least hash in the p-th of k equal ranges of hash values
(Li, Owen, Zhang: One Permutation Hashing, NIPS 2012). A range without a hash borrows from another one, drawn
by its number and the attempt, so that equal sets borrow alike and the estimate keeps its mean (Shrivastava:
Optimal Densification for Fast and Accurate Minwise Hashing, ICML 2017). The cost is that of k binary
searches. Its deviation is that of k independent hash functions; where most places borrow, up to a fifth more.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Signature = npt.NDArray[np.uint32]

NOT_COMPARED = np.uint32(0xFFFFFFFF)
"""Fills the signature of a document that is too short to be compared. No other signature holds it."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: Hashes) -> Hashes:
    """A bijection under which every bit depends on all bits: the last step of SplitMix64."""
    mixed: Hashes = values.copy()
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


class Sketcher:
    """Turns shingle sets into signatures of `permutations` places."""

    def __init__(self, permutations: int) -> None:
        self.permutations = permutations
        self._starts = np.array([-(-(p << 64) // permutations) for p in range(permutations)], np.uint64)
        self._lenders: list[npt.NDArray[np.intp]] = []

    def signature(self, shingles: Hashes) -> Signature:
        """The signature of a sorted array of distinct hashes; all NOT_COMPARED if it is empty."""
        if not len(shingles):
            return np.full(self.permutations, NOT_COMPARED)
        first = np.searchsorted(shingles, self._starts)
        empty = np.append(first[1:], len(shingles)) == first
        # The high bits of a least hash are nearly known; the low ones tell hashes apart.
        values = shingles[np.minimum(first, len(shingles) - 1)].astype(np.uint32)
        values[values == NOT_COMPARED] -= np.uint32(1)
        return self._densify(values, empty) if empty.any() else values

    def _densify(self, values: Signature, empty: npt.NDArray[np.bool_]) -> Signature:
        borrowers, attempt = np.flatnonzero(empty), 0
        while len(borrowers):
            lenders = self._draw_lenders(attempt)[borrowers]
            found = ~empty[lenders]
            values[borrowers[found]] = values[lenders[found]]
            borrowers, attempt = borrowers[~found], attempt + 1
        return values

    def _draw_lenders(self, attempt: int) -> npt.NDArray[np.intp]:
        """Whom each place asks in this attempt, drawn independently of other places and attempts."""
        count = np.uint64(self.permutations)
        while len(self._lenders) <= attempt:
            draws = np.arange(self.permutations, dtype=np.uint64) + count * np.uint64(len(self._lenders) + 1)
            self._lenders.append((mix(draws * _GOLDEN) % count).astype(np.intp))
        return self._lenders[attempt]


def jaccard(one: Hashes, other: Hashes) -> float:
    """Exact similarity of two sorted arrays of distinct hashes: shared over all; 0 if either is empty."""
    if not len(one) or not len(other):
        return 0.0
    places = np.searchsorted(other, one)
    places[places == len(other)] = 0
    shared = int(np.count_nonzero(other[places] == one))
    return shared / (len(one) + len(other) - shared)


def estimate(ones: Signature, others: Signature) -> npt.NDArray[np.float64]:
    """Estimated similarity of the signatures in equal rows of two [n,k] arrays: the share of equal places."""
    shares: npt.NDArray[np.float64] = np.mean(ones == others, axis=-1)
    return shares


def choose_bands(threshold: float, permutations: int, recall: float) -> tuple[int, int]:
    """Bands and rows of each, so that a pair at the threshold shares a band with probability `recall`.

    Of the choices that do, the one with most rows: it proposes the fewest pairs below the threshold. A pair
    of similarity s shares one of b bands of r rows with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman,
    Ullman: Mining of Massive Datasets, chapter 3). One row a band where no choice reaches the recall.
    """
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if -math.expm1(bands * math.log1p(-(threshold**rows))) >= recall:
            return bands, rows
    return permutations, 1


def band_keys(signatures: Signature) -> Hashes:
    """One 64-bit key for each row of an [n,r] band; equal rows have equal keys."""
    keys = np.full(len(signatures), _GOLDEN)
    for column in range(signatures.shape[1]):
        keys = mix(keys + signatures[:, column].astype(np.uint64))
    return keys
