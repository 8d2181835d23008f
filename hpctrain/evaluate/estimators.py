"""Unbiased estimates over the samples of each problem, as their papers define them."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def pass_at_k(samples: int, passed: int, k: int) -> float | None:
    """Probability that one of `k` answers is right, from `passed` of `samples` (Chen et al. 2021).

    None where there are fewer than `k` samples: nothing unbiased can be said. build@k is the same of builds.
    """
    if not 0 <= passed <= samples or k < 1:
        raise ValueError(f"{passed} of {samples} samples, k = {k}")
    if samples < k:
        return None
    return 1.0 - comb(samples - passed, k) / comb(samples, k)


def best_at_k(figures: Sequence[float], k: int) -> float | None:
    """Expected largest of `k` figures drawn from these without putting back; None for fewer than `k`.

    With the speedup of each answer, 0 for one that is not right, this is speedup@k of Nichols et al. 2024;
    with the speedup divided by the threads or ranks, efficiency@k.
    """
    if k < 1:
        raise ValueError(f"k = {k}")
    if len(figures) < k:
        return None
    ascending = sorted(figures)
    ways = comb(len(ascending), k)
    return sum(comb(index, k - 1) / ways * figure for index, figure in enumerate(ascending))


def mean(figures: Sequence[float | None]) -> float | None:
    """Mean of what could be measured; None if nothing could."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None
