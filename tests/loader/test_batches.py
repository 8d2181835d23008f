"""Batches: next-token targets, document boundaries, dealing to ranks, digests, and the mixture's pools."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader.synthetic import FIRST_PLAIN, MARKS, ArrayStream, random_stream

from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.batches import Batch, BatchLoader, SampleReader, StepData, digest_of, make_batch
from hpctrain.loader.component import Component, Part
from hpctrain.loader.fim import FimConfig
from hpctrain.loader.mixture import DataConfig, Mixture, build_mixture, build_pools
from hpctrain.loader.order import SampleOrder
from hpctrain.parallel.topology import Topology

SEQUENCE = 12

token_arrays = st.integers(1, 4).flatmap(
    lambda rows: st.lists(
        st.lists(st.sampled_from([0, 0, 1, 2, 9, 10]), min_size=SEQUENCE + 1, max_size=SEQUENCE + 1),
        min_size=rows, max_size=rows,
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def streams() -> list[ArrayStream]:
    return [random_stream(700, seed=1), random_stream(500, seed=2)]


def whole(*streams: ArrayStream) -> list[Part]:
    return [Part(stream, 0, len(stream)) for stream in streams]


def make_reader(streams: list[ArrayStream], seed: int = 3) -> SampleReader:
    components = [Component(whole(stream), SEQUENCE) for stream in streams]
    order = SampleOrder(tuple(map(len, components)), (2.0, 1.0), seed)
    return SampleReader(order, components, FimConfig(rate=0.5), MARKS)


@given(token_arrays)
def test_targets_are_the_next_tokens(rows: list[list[int]]) -> None:
    sequences = np.array(rows, dtype=np.int64)
    batch = make_batch(sequences, MARKS.document)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert batch.tokens.tolist() == [row[:-1] for row in rows]
    assert batch.targets.tolist() == [row[1:] for row in rows]


@given(token_arrays)
def test_boundaries_are_those_of_a_plain_loop(rows: list[list[int]]) -> None:
    edges = [
        row * SEQUENCE + place
        for row, tokens in enumerate(rows)
        for place in range(SEQUENCE)
        if place == 0 or tokens[place] == MARKS.document
    ]
    size = len(rows) * SEQUENCE
    boundaries = make_batch(np.array(rows, dtype=np.int64), MARKS.document).boundaries
    assert boundaries.dtype == torch.int32
    assert boundaries.tolist() == edges + [size] * (size + 1 - len(edges))


def test_a_batch_shares_no_memory_with_the_sequences() -> None:
    sequences = np.zeros((2, SEQUENCE + 1), dtype=np.int64)
    batch = make_batch(sequences, MARKS.document)
    sequences += 7
    assert not batch.tokens.any()
    assert not batch.targets.any()


@st.composite
def dealings(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Data-parallel size, micro-batch size, accumulation steps, pipeline stages."""
    return draw(st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)))


def loaders(
    reader: SampleReader, replicas: int, micro: int, steps: int, stages: int = 1
) -> Iterator[BatchLoader]:
    for rank in range(replicas * stages):
        yield BatchLoader(reader, Topology(replicas * stages, rank, stages), replicas * micro * steps, micro)


@given(dealings(), st.integers(0, 10**6))
def test_ranks_share_out_the_global_batch(
    streams: list[ArrayStream], dealing: tuple[int, ...], first: int
) -> None:
    replicas, micro, steps, stages = dealing
    dealt = [loader.samples(first).tolist() for loader in loaders(make_reader(streams), *dealing)]
    whole = list(range(first, first + replicas * micro * steps))
    for stage in range(stages):
        of_stage = dealt[stage * replicas : (stage + 1) * replicas]
        assert sorted(number for mine in of_stage for number in mine) == whole
        assert of_stage == dealt[:replicas], "every stage of a pipeline sees its replica's samples"
    in_turn = [dealt[rank][i * micro : (i + 1) * micro] for i in range(steps) for rank in range(replicas)]
    assert [number for part in in_turn for number in part] == whole


@pytest.mark.parametrize("layout", [(1, 1, 24), (1, 24, 1), (2, 3, 4), (3, 4, 2), (24, 1, 1)])
def test_every_layout_sees_the_same_sequences_and_digest(
    streams: list[ArrayStream], layout: tuple[int, ...]
) -> None:
    reader = make_reader(streams)
    expected = reader.read(np.arange(48, 72, dtype=np.int64))
    replicas, micro, steps = layout
    loaded = [loader.load(48) for loader in loaders(reader, replicas, micro, steps)]
    assert all(len(data.micro_batches) == steps for data in loaded)
    found = [row for i in range(steps) for data in loaded for row in data.micro_batches[i].tokens.tolist()]
    assert found == [sequence[:-1].tolist() for sequence in expected]
    assert sum(data.digest for data in loaded) % 2**64 == digest_of(np.arange(48, 72), expected)


@settings(max_examples=60)
@given(st.data())
def test_the_digest_changes_with_any_token_and_any_exchange(
    streams: list[ArrayStream], data: st.DataObject
) -> None:
    samples = np.arange(8, dtype=np.int64)
    sequences = make_reader(streams).read(samples)
    digest = digest_of(samples, sequences)
    row, place = data.draw(st.integers(0, 7)), data.draw(st.integers(0, SEQUENCE))
    changed = [sequence.copy() for sequence in sequences]
    changed[row][place] += 1
    assert digest_of(samples, changed) != digest
    other = data.draw(st.integers(0, 7).filter(lambda number: number != row))
    exchanged = list(sequences)
    exchanged[row], exchanged[other] = exchanged[other], exchanged[row]
    assert digest_of(samples, exchanged) != digest
    assert digest_of(samples + 1, sequences) != digest


@pytest.mark.parametrize(("first", "count"), [(0, 1), (0, 2), (12, 3), (4096 - 24, 7), (0, 0)])
def test_reading_ahead_yields_what_loading_does(streams: list[ArrayStream], first: int, count: int) -> None:
    loader = BatchLoader(make_reader(streams), Topology(2, 1, 1), 12, 2)
    ahead = list(loader.steps(first, count))
    assert len(ahead) == count
    for number, data in enumerate(ahead):
        assert_equal(data, loader.load(first + 12 * number))


def assert_equal(one: StepData, other: StepData) -> None:
    assert one.digest == other.digest
    for mine, theirs in zip(one.micro_batches, other.micro_batches, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_run_that_goes_on_sees_what_a_straight_one_would(streams: list[ArrayStream]) -> None:
    loader = BatchLoader(make_reader(streams), Topology(1, 0, 1), 6, 3)
    straight = list(loader.steps(0, 5))
    gone_on = [*loader.steps(0, 2), *loader.steps(12, 3)]
    for one, other in zip(straight, gone_on, strict=True):
        assert_equal(one, other)


def test_reading_ahead_stops_with_its_reader(streams: list[ArrayStream]) -> None:
    asked: list[int] = []

    class Counting(BatchLoader):
        def load(self, first_sample: int) -> StepData:
            asked.append(first_sample)
            return super().load(first_sample)

    steps = Counting(make_reader(streams), Topology(1, 0, 1), 2, 2).steps(0, 10**9)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert len(asked) <= 3


class BrokenStream(ArrayStream):
    def read(self, start: int, stop: int) -> np.ndarray:
        raise DataError("train/c-00000.h5: /tokens cannot be read")


def test_an_error_of_the_reader_reaches_the_loop() -> None:
    reader = make_reader([BrokenStream(range(200)), BrokenStream(range(200))])
    with pytest.raises(DataError, match="cannot be read"):
        next(BatchLoader(reader, Topology(1, 0, 1), 2, 2).steps(0, 5))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 9))
def test_a_component_is_its_streams_laid_end_to_end(lengths: list[int], sequence_length: int) -> None:
    edges = np.cumsum([0, *lengths])
    pieces = [ArrayStream(range(start, stop)) for start, stop in itertools.pairwise(edges)]
    component = Component(whole(*pieces), sequence_length)
    every = list(range(int(edges[-1])))
    cut = [every[at : at + sequence_length + 1] for at in range(0, len(every), sequence_length)]
    expected = [sequence for sequence in cut if len(sequence) == sequence_length + 1]
    assert len(component) == len(expected)
    for number, sequence in enumerate(expected):
        found = component.sequence(number)
        assert found.dtype == np.int64
        assert found.tolist() == sequence


def config(**changes: object) -> DataConfig:
    return DataConfig.model_validate({"shards": "corpus/shards", "sequence_length": 8, **changes})


def mix(streams: dict[str, ArrayStream], config: DataConfig) -> Mixture:
    return build_mixture(build_pools(streams, config), config, shards=None, pad=-1)


@pytest.fixture
def languages() -> dict[str, ArrayStream]:
    return {
        "c": ArrayStream(range(50)),
        "fortran-free": ArrayStream(range(50, 81)),
        "hip": ArrayStream([1] * 8),
    }


def test_a_language_that_the_shards_lack_names_those_there_are(languages: dict[str, ArrayStream]) -> None:
    with pytest.raises(ConfigError, match="corpus/shards has no ada, rust; it has c, fortran-free, hip"):
        mix(languages, config(mixture={"rust": 1, "c": 1, "ada": 2}))


def test_a_language_with_less_than_one_sequence_is_named(languages: dict[str, ArrayStream]) -> None:
    with pytest.raises(DataError, match="hip holds fewer tokens than one sequence of 8; shorten"):
        mix(languages, config(mixture={"c": 1, "hip": 1}))
    with pytest.raises(DataError, match="the training split holds fewer tokens than one sequence of 500"):
        mix(languages, config(sequence_length=500))


def test_a_mixture_has_a_component_each_and_none_lays_all_in_one(
    languages: dict[str, ArrayStream],
) -> None:
    mixture = mix(languages, config(mixture={"fortran-free": 3, "c": 0.5}))
    assert mixture.order == ((3, 6), (3, 0.5))
    assert mixture.components[0].sequence(0).tolist() == list(range(50, 59))
    mixture = mix(languages, config())
    assert mixture.order == (((50 + 31 + 8 - 1) // 8,), (1.0,))
    assert mixture.components[0].sequence(6).tolist() == list(range(48, 57))


@pytest.mark.parametrize("weight", [0, -1])
def test_weights_that_are_not_positive_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"leave a language or source out to skip it\); hip: {weight}"):
        config(mixture={"c": 1, "hip": weight})


def test_a_reader_rearranges_by_the_number_of_the_sample() -> None:
    """The same sequence comes rearranged in another way in every epoch."""
    stream = ArrayStream([MARKS.document, MARKS.content, *range(FIRST_PLAIN, FIRST_PLAIN + 11)])
    component = Component(whole(stream), SEQUENCE)
    reader = SampleReader(SampleOrder((1,), (1.0,), 3), [component], FimConfig(rate=1.0), MARKS)
    read = reader.read(np.arange(20, dtype=np.int64))
    assert len({tuple(sequence.tolist()) for sequence in read}) > 10
    assert all(np.array_equal(reader.read(np.array([n]))[0], read[n]) for n in (7, 0, 19))


def test_a_batch_is_a_plain_tuple_of_three() -> None:
    assert Batch._fields == ("tokens", "targets", "boundaries")
