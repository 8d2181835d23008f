"""MinHash signatures of shingle sets by one permutation, and the bands under which similar ones meet.

Two sets agree in a place of their signatures with a probability equal to their Jaccard similarity. One sorted
array of hashes serves all places: place p holds the least hash in the p-th of k equal ranges of hash values (Li,
Owen, Zhang: One Permutation Hashing, NIPS 2012). A range that holds no hash borrows from another that is drawn by
a hash of p and the attempt, so that equal sets still borrow alike and estimates stay unbiased with least variance
(Shrivastava: Optimal Densification for Fast and Accurate Minwise Hashing, ICML 2017). The cost is that of k binary
searches, whatever k is; k hash functions over every shingle would cost k times the reading.
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
    """A bijection of 64-bit values whose every output bit depends on every input bit (SplitMix64's finalizer)."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


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
        values = shingles[np.minimum(first, len(shingles) - 1)].astype(np.uint32)  # the low bits are identity
        values[values == NOT_COMPARED] -= np.uint32(1)
        return self._densify(values, empty) if empty.any() else values

    def _densify(self, values: Signature, empty: npt.NDArray[np.bool_]) -> Signature:
        borrowers, attempt = np.flatnonzero(empty), 0
        while len(borrowers):
            lenders = self._lenders_of(attempt)[borrowers]
            found = ~empty[lenders]
            values[borrowers[found]] = values[lenders[found]]
            borrowers, attempt = borrowers[~found], attempt + 1
        return values

    def _lenders_of(self, attempt: int) -> npt.NDArray[np.intp]:
        """Whom each place asks in this attempt: an independent draw for each place and attempt."""
        while len(self._lenders) <= attempt:
            places = np.arange(self.permutations, dtype=np.uint64)
            drawn = mix(places + _GOLDEN * np.uint64(1 + self.permutations * len(self._lenders)))
            self._lenders.append(((drawn >> np.uint64(32)) * np.uint64(self.permutations) >> np.uint64(32)).astype(np.intp))
        return self._lenders[attempt]


def jaccard(one: Hashes, other: Hashes) -> float:
    """Exact similarity of two sorted arrays of distinct hashes: shared over all; 0 for two empty ones."""
    if not len(one) or not len(other):
        return 0.0
    places = np.searchsorted(other, one)
    places[places == len(other)] = 0
    shared = int(np.count_nonzero(other[places] == one))
    return shared / (len(one) + len(other) - shared)


def estimate(ones: npt.NDArray[np.uint32], others: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """Estimated similarity of the signatures in equal rows of two [n,k] arrays: the share of equal places."""
    return np.count_nonzero(ones == others, axis=-1) / ones.shape[-1]


def choose_bands(threshold: float, permutations: int, recall: float) -> tuple[int, int]:
    """Bands and rows of each, so that a pair at the threshold shares a band with probability `recall` or more.

    Of the choices that do, the one with most rows: it proposes the fewest pairs below the threshold. A pair of
    similarity s shares one of b bands of r rows with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman, Ullman:
    Mining of Massive Datasets, chapter 3). One row each where nothing reaches the recall.
    """
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if -math.expm1(bands * math.log1p(-(threshold**rows))) >= recall:
            return bands, rows
    return permutations, 1


def band_keys(signatures: npt.NDArray[np.uint32]) -> Hashes:
    """One 64-bit key for each row of an [n,r] band; equal rows have equal keys."""
    keys = np.full(len(signatures), _GOLDEN)
    for column in range(signatures.shape[1]):
        keys = mix(keys + signatures[:, column].astype(np.uint64))
    return keys
