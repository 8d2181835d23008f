"""The order of samples as arithmetic: which sequence is sample n of the run, for any n, at once.

The order is a pure function of the seed, the number of sequences of each component, and the mixture. World
size, micro-batch, layout and worker count never enter, so a run may change all of them and still see each
sequence exactly as planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

Indices = npt.NDArray[np.int64]
_Unsigned = npt.NDArray[np.uint64]

_ROUNDS = 6
_MIXTURE_PERIOD = 4096


def keyed_hash(values: _Unsigned, key: int) -> _Unsigned:
    """A 64-bit mix of each value under a key (the finaliser of SplitMix64: Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(key & 0xFFFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashed: _Unsigned = mixed ^ (mixed >> np.uint64(31))
        return hashed


def derive_key(*parts: int | str) -> int:
    """A 64-bit key from a seed and whatever names its purpose."""
    return int(xxhash.xxh3_64_intdigest("/".join(str(part) for part in parts).encode()))


def permute(indices: Indices, size: int, key: int) -> Indices:
    """Where a keyed permutation of range(size) sends each index; constant memory at any size.

    A Feistel network over the smallest even number of bits that holds `size`, walked until the value falls
    inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half_bits = max(1, (max(1, size - 1).bit_length() + 1) // 2)
    rounds = [derive_key(key, number) for number in range(_ROUNDS)]
    result = indices.astype(np.uint64)
    outside = np.ones(len(result), dtype=bool)
    while outside.any():
        result[outside] = _feistel(result[outside], half_bits, rounds)
        outside = result >= np.uint64(size)
    return result.astype(np.int64)


def _feistel(values: _Unsigned, half_bits: int, rounds: Sequence[int]) -> _Unsigned:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in rounds:
        left, right = right, left ^ (keyed_hash(right, key) & mask)
    joined: _Unsigned = (left << shift) | right
    return joined


@dataclass(frozen=True)
class SampleOrder:
    """Sample number -> (component, sequence in it).

    `sizes`: sequences in each component, all positive. `weights`: share of the samples each component gets;
    they are rounded to 1/4096. Within a component every sequence comes once before any comes again, in a
    new order each epoch.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def locate(self, samples: Indices) -> tuple[Indices, Indices]:
        """Component and sequence of each sample number: two arrays of the same length."""
        components, draws = self._draws(samples)
        sequences = np.empty_like(draws)
        for component, size in enumerate(self.sizes):
            mine = components == component
            sequences[mine] = self._sequences(component, size, draws[mine])
        return components, sequences

    def quotas(self) -> tuple[int, ...]:
        """Samples of each component in every 4,096, by largest remainder, at least one each."""
        return _apportion(self.weights, _MIXTURE_PERIOD)

    def _draws(self, samples: Indices) -> tuple[Indices, Indices]:
        """Component of each sample, and how many samples of that component came before it.

        Samples come in periods of 4,096 slots. In each the slots are permuted and dealt out to components
        in blocks of their quota, so both answers need no counting.
        """
        if len(self.sizes) == 1:
            return np.zeros_like(samples), samples
        quotas = np.array(self.quotas(), dtype=np.int64)
        starts = np.cumsum(quotas) - quotas
        periods, slots = np.divmod(samples, _MIXTURE_PERIOD)
        places = np.empty_like(slots)
        for period in np.unique(periods):
            mine = periods == period
            key = derive_key(self.seed, "mixture", int(period))
            places[mine] = permute(slots[mine], _MIXTURE_PERIOD, key)
        components = np.searchsorted(starts, places, side="right").astype(np.int64) - 1
        return components, periods * quotas[components] + places - starts[components]

    def _sequences(self, component: int, size: int, draws: Indices) -> Indices:
        epochs, places = np.divmod(draws, size)
        sequences = np.empty_like(places)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            sequences[mine] = permute(
                places[mine], size, derive_key(self.seed, "order", component, int(epoch))
            )
        return sequences


def _apportion(weights: Sequence[float], total: int) -> tuple[int, ...]:
    """Split `total` in proportion to positive weights, by largest remainder, at least one each."""
    exact = np.array(weights, dtype=np.float64) / sum(weights) * total
    shares = np.floor(exact).astype(np.int64)
    remainders = np.argsort(-(exact - shares), kind="stable")
    shares[remainders[: total - int(shares.sum())]] += 1
    while not shares.all():
        shares[shares.argmax()] -= 1
        shares[shares.argmin()] += 1
    return tuple(shares.tolist())
