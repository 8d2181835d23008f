"""The order of samples: a bijection, a pure function of the number, exact shares, any size at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpctrain.loader.order import SampleOrder, derive_key, keyed_hash, permute

PERIOD = 4096

keys = st.integers(0, 2**64 - 1)


@st.composite
def orders(draw: st.DrawFn, least: int = 1) -> SampleOrder:
    sizes = draw(st.lists(st.integers(least, 3000), min_size=1, max_size=4))
    weights = draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    return SampleOrder(tuple(sizes), tuple(weights), draw(st.integers(0, 2**40)))


def numbers(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.int64)


@settings(max_examples=150)
@given(st.integers(1, 5000), keys)
@example(1, 0)
@example(2, 0)
@example(4096, 1)
@example(4097, 1)
def test_permute_is_a_bijection(size: int, key: int) -> None:
    found = permute(numbers(0, size), size, key)
    assert np.array_equal(np.sort(found), numbers(0, size))


@settings(max_examples=50)
@given(st.integers(2, 5000), keys, st.data())
def test_permute_answers_for_each_index_alone(size: int, key: int, data: st.DataObject) -> None:
    whole = permute(numbers(0, size), size, key)
    asked = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    assert np.array_equal(permute(asked, size, key), whole[asked])


def test_permute_leaves_its_argument_alone() -> None:
    asked = numbers(0, 10)
    permute(asked, 10, 1)
    assert np.array_equal(asked, numbers(0, 10))


@pytest.mark.parametrize("size", [100, 1000, 4096])
def test_permutations_look_random(size: int) -> None:
    """Over many keys each place gets each index about equally often, and neighbours do not stay together."""
    keys = 400
    found = np.array([permute(numbers(0, size), size, derive_key("test", key)) for key in range(keys)])
    fixed = (found == numbers(0, size)).sum(axis=1)
    assert 0.8 < fixed.mean() < 1.2, "a random permutation keeps one place on average"
    neighbours = (np.diff(found) == 1).sum(axis=1)
    assert 0.8 < neighbours.mean() < 1.2
    first = np.bincount(found[:, 0] * 10 // size, minlength=10)
    assert ((first > 15) & (first < 75)).all(), "the first place, in tenths, expected 40 each"


@settings(max_examples=40)
@given(orders(least=3), st.integers(0, 50_000), st.data())
def test_locate_is_a_pure_function_of_the_number(order: SampleOrder, start: int, data: st.DataObject) -> None:
    """Any split into batches, in any order, gives the same answers."""
    samples = numbers(start, start + 300)
    components, sequences = order.locate(samples)
    cuts = sorted(data.draw(st.sets(st.integers(1, 299), max_size=6)))
    parts = [order.locate(part) for part in np.split(samples, cuts)]
    assert np.array_equal(np.concatenate([part[0] for part in parts]), components)
    assert np.array_equal(np.concatenate([part[1] for part in parts]), sequences)
    shuffle = np.array(data.draw(st.permutations(range(300))))
    assert np.array_equal(order.locate(samples[shuffle])[0], components[shuffle])
    assert np.array_equal(order.locate(samples[shuffle])[1], sequences[shuffle])


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 5))
def test_without_a_mixture_each_sequence_comes_once_an_epoch(size: int, seed: int, epoch: int) -> None:
    order = SampleOrder((size,), (1.0,), seed)
    components, sequences = order.locate(numbers(epoch * size, (epoch + 1) * size))
    assert not components.any()
    assert np.array_equal(np.sort(sequences), numbers(0, size))


@settings(max_examples=30)
@given(orders(least=100))
def test_in_a_mixture_each_sequence_comes_once_before_any_comes_again(order: SampleOrder) -> None:
    """In every component every epoch is whole, but not in the order of the samples: only up to a period."""
    periods = 4
    components, sequences = order.locate(numbers(0, periods * PERIOD))
    for component, size in enumerate(order.sizes):
        seen = np.bincount(sequences[components == component], minlength=size)
        assert len(seen) == size
        assert seen.max() - seen.min() <= 1


@settings(max_examples=60)
@given(orders(), st.integers(0, 10))
def test_the_draws_of_a_component_are_consecutive_over_a_period(order: SampleOrder, period: int) -> None:
    samples = numbers(period * PERIOD, (period + 1) * PERIOD)
    components, draws = order._draws(samples)
    quotas = (PERIOD,) if len(order.sizes) == 1 else order.quotas()
    for component, quota in enumerate(quotas):
        mine = np.sort(draws[components == component])
        assert np.array_equal(mine, numbers(period * quota, (period + 1) * quota))


@settings(max_examples=300)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_quotas_sum_up_and_share_as_the_weights_do(weights: list[float]) -> None:
    quotas = SampleOrder((1,) * len(weights), tuple(weights), 0).quotas()
    assert sum(quotas) == PERIOD
    assert min(quotas) >= 1
    exact = [PERIOD * weight / sum(weights) for weight in weights]
    raised = sum(share < 1 for share in exact)  # at least one each, which others give up
    for quota, share in zip(quotas, exact, strict=True):
        assert share - 1 - raised <= quota <= share + 1
        if not raised:
            assert abs(quota / PERIOD - share / PERIOD) <= 1 / PERIOD


def test_rare_components_are_drawn_and_only_the_largest_pays() -> None:
    quotas = SampleOrder((1,) * 5, (1e9, 1e9 / 4, 1.0, 1.0, 1e-9), 0).quotas()
    assert quotas == (3274, 819, 1, 1, 1)


def test_the_mixture_is_drawn_evenly_along_the_run() -> None:
    """A batch of any size sees about the shares of the whole: components do not come in blocks."""
    order = SampleOrder((500, 500, 500), (4.0, 3.0, 1.0), 5)
    components, _ = order.locate(numbers(0, PERIOD))
    for part in np.split(components, 8):
        shares = np.bincount(part, minlength=3) / len(part)
        assert np.abs(shares - [0.5, 0.375, 0.125]).max() < 0.08


@pytest.mark.parametrize("sizes", [(997,), (997, 601)])
def test_epochs_seeds_and_components_differ(sizes: tuple[int, ...]) -> None:
    weights = (1.0,) * len(sizes)
    order, other = SampleOrder(sizes, weights, 1), SampleOrder(sizes, weights, 2)
    draws = numbers(0, sizes[0])
    epochs = [order._sequences(0, sizes[0], draws + epoch * sizes[0]) for epoch in range(4)]
    epochs += [order._sequences(1, sizes[0], draws), other._sequences(0, sizes[0], draws)]
    for number, one in enumerate(epochs):
        for two in epochs[:number]:
            assert (one == two).mean() < 0.05
    samples = numbers(0, 2000)
    assert not np.array_equal(order.locate(samples)[1], other.locate(samples)[1])
    periods = [order.locate(samples[:1000] + period * PERIOD)[1] for period in range(2)]
    assert not np.array_equal(*periods)


def test_the_size_of_the_corpus_costs_nothing() -> None:
    order = SampleOrder((10**12, 7, 10**11), (5.0, 1.0, 2.0), 3)
    start = time.process_time()
    components, sequences = order.locate(numbers(10**13, 10**13 + 512))
    permuted = permute(numbers(10**12 - 1000, 10**12), 10**12, 9)
    assert time.process_time() - start < 1
    for component, size in enumerate(order.sizes):
        mine = sequences[components == component]
        assert mine.size
        assert ((mine >= 0) & (mine < size)).all()
    assert len(set(permuted.tolist())) == 1000
    assert permuted.min() < 10**11
    assert permuted.max() > 9 * 10**11


def test_the_order_is_the_one_that_was_published() -> None:
    """A run that goes on under a new hpctrain must see the same samples: these numbers never change."""
    assert permute(numbers(0, 8), 10, 42).tolist() == PUBLISHED_PERMUTATION
    components, sequences = SampleOrder((100, 30), (3.0, 1.0), 7).locate(numbers(4090, 4100))
    assert components.tolist() == PUBLISHED_COMPONENTS
    assert sequences.tolist() == PUBLISHED_SEQUENCES
    assert keyed_hash(np.array([1], dtype=np.uint64), 0).tolist() == [0x5692161D100B05E5]  # SplitMix64


PUBLISHED_PERMUTATION = [4, 8, 2, 1, 3, 6, 9, 7]
PUBLISHED_COMPONENTS = [0, 0, 0, 1, 0, 1, 0, 0, 0, 0]
PUBLISHED_SEQUENCES = [90, 31, 18, 27, 37, 15, 53, 66, 65, 95]
