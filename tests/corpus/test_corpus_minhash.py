"""Signatures estimate the exact similarity, and bands find what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.minhash import (
    NOT_COMPARED,
    Hashes,
    Sketcher,
    band_keys,
    choose_bands,
    estimate,
    jaccard,
    mix,
)

_HASH = st.integers(0, 2**64 - 1)


def _ordered(values: set[int]) -> Hashes:
    return np.array(sorted(values), np.uint64)


def _pair(seed: int, size: int, shared: int) -> tuple[Hashes, Hashes]:
    """Two sets of `size` hashes, `shared` of them in both."""
    drawn = mix(np.arange(2 * size - shared, dtype=np.uint64) + np.uint64(seed << 20))
    return np.sort(drawn[:size]), np.sort(drawn[size - shared :])


@given(st.sets(_HASH), st.sets(_HASH), st.sets(_HASH))
def test_jaccard_is_that_of_sets(one: set[int], other: set[int], both: set[int]) -> None:
    a, b = one | both, other | both
    expected = len(a & b) / len(a | b) if a and b else 0.0
    assert jaccard(_ordered(a), _ordered(b)) == jaccard(_ordered(b), _ordered(a)) == expected


@pytest.mark.parametrize("size", [20, 200, 5000])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_estimates_have_no_bias_and_little_more_variance_than_independent_hashes(
    size: int, share: float
) -> None:
    """Also where most places must borrow, as 20 hashes fill few of 128 places."""
    sketcher, trials = Sketcher(128), 400
    errors = []
    for seed in range(trials):
        one, other = _pair(seed, size, round(size * share))
        signatures = np.array([sketcher.signature(one), sketcher.signature(other)])
        errors.append(float(estimate(signatures[0], signatures[1])) - jaccard(one, other))
    exact = jaccard(one, other)
    deviation = np.sqrt(exact * (1 - exact) / 128)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(trials)
    assert np.std(errors) < (1.35 if size < 128 else 1.1) * deviation


@given(st.sets(_HASH, min_size=1, max_size=40), st.sampled_from([16, 100, 128]))
def test_every_place_holds_a_member_and_none_the_mark_of_the_uncompared(
    values: set[int], places: int
) -> None:
    signature = Sketcher(places).signature(_ordered(values | {0xFFFFFFFF}))
    low = {value & 0xFFFFFFFF for value in values} | {0xFFFFFFFE}
    assert set(signature.tolist()) <= low
    assert NOT_COMPARED not in signature
    assert signature.shape == (places,)


def test_no_set_has_no_signature() -> None:
    assert (Sketcher(32).signature(np.empty(0, np.uint64)) == NOT_COMPARED).all()


@given(st.floats(0.05, 0.98), st.integers(16, 512), st.floats(0.5, 0.99))
def test_bands_fit_and_keep_their_promise(threshold: float, permutations: int, recall: float) -> None:
    bands, rows = choose_bands(threshold, permutations, recall)
    assert bands * rows <= permutations
    if rows > 1:
        assert 1 - (1 - threshold**rows) ** bands >= recall - 1e-12
        wider = permutations // (rows + 1)
        assert wider == 0 or 1 - (1 - threshold ** (rows + 1)) ** wider < recall + 1e-12


def test_pairs_at_the_threshold_share_a_band_as_often_as_promised() -> None:
    bands, rows = choose_bands(0.8, 128, 0.95)
    sketcher, met, trials = Sketcher(128), 0, 400
    for seed in range(trials):
        one, other = _pair(seed, 900, 800)  # similarity 0.8
        equal = (sketcher.signature(one) == sketcher.signature(other))[: bands * rows]
        met += bool(equal.reshape(bands, rows).all(axis=1).any())
    assert met / trials >= 0.95


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=50))
def test_keys_are_equal_where_rows_are(rows: list[tuple[int, int, int]]) -> None:
    keys = band_keys(np.array(rows, np.uint32))
    assert len(set(keys.tolist())) == len(set(rows)) == len(set(zip(keys.tolist(), rows, strict=True)))
