"""The estimators against what drawing gives."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.evaluate.estimators import best_at_k, mean, pass_at_k


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_mean_over_all_draws(samples: int, data: st.DataObject) -> None:
    passed, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(combinations([1] * passed + [0] * (samples - passed), k))
    assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(max, draws)) / len(draws))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.data())
def test_best_at_k_is_the_mean_over_all_draws(figures: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(figures)))
    draws = list(combinations(figures, k))
    assert best_at_k(figures, k) == pytest.approx(sum(map(max, draws)) / len(draws))


def test_too_few_samples_say_nothing() -> None:
    assert pass_at_k(3, 3, 5) is None
    assert best_at_k([1.0], 2) is None
    assert mean([None, 1.0, 3.0]) == 2.0
    assert mean([None]) is None


@pytest.mark.parametrize("counts", [(2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(*counts)
