"""Which rank does what: places, stages, accumulation, and the best cut of a layer list."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hpctrain.parallel.topology import (
    ParallelConfig,
    Topology,
    accumulation_steps,
    layout_problems,
    split_layers,
    split_model,
)

costs_and_stages = st.lists(st.integers(0, 30), min_size=1, max_size=9).flatmap(
    lambda costs: st.tuples(st.just(costs), st.integers(1, len(costs)))
)


def dearest(costs: Sequence[int], cuts: Sequence[int]) -> int:
    return max(sum(costs[start:stop]) for start, stop in itertools.pairwise(cuts))


@settings(max_examples=200)
@given(costs_and_stages)
def test_layers_are_cut_as_well_as_any_cut_can(case: tuple[list[int], int]) -> None:
    costs, stages = case
    cuts = split_layers(costs, stages)
    assert cuts[0] == 0
    assert cuts[-1] == len(costs)
    assert len(cuts) == stages + 1
    assert all(start < stop for start, stop in itertools.pairwise(cuts)), "a stage is empty"
    inner = itertools.combinations(range(1, len(costs)), stages - 1)
    assert dearest(costs, cuts) == min(dearest(costs, [0, *middle, len(costs)]) for middle in inner)


def test_a_stage_for_every_layer_and_one_for_all() -> None:
    assert split_layers([5, 0, 9], 3) == [0, 1, 2, 3]
    assert split_layers([5, 0, 9], 1) == [0, 3]
    assert dearest([0, 7, 7, 7, 7, 0, 9], split_layers([0, 7, 7, 7, 7, 0, 9], 2)) == 21
    with pytest.raises(ValueError, match="2 layers cannot fill 3 stages"):
        split_layers([1, 1], 3)


@given(st.integers(1, 12), st.integers(1, 6))
def test_ranks_cover_stages_times_replicas(replicas: int, stages: int) -> None:
    world = replicas * stages
    places = [Topology(world, rank, stages) for rank in range(world)]
    found = [(place.stage, place.data_parallel_rank) for place in places]
    assert sorted(found) == list(itertools.product(range(stages), range(replicas)))
    assert found == sorted(found), "ranks of one stage are adjacent"
    assert {place.data_parallel_size for place in places} == {replicas}


@pytest.mark.parametrize(("world", "stages"), [(8, 2), (6, 3), (4, 1), (4, 4)])
def test_places_are_those_of_deepspeed(world: int, stages: int) -> None:
    from deepspeed.runtime.pipe.topology import PipeDataParallelTopology

    theirs = PipeDataParallelTopology(num_pp=stages, num_dp=world // stages)
    for rank in range(world):
        mine, coordinate = Topology(world, rank, stages), theirs.get_coord(rank)
        assert (mine.stage, mine.data_parallel_rank) == (coordinate.pipe, coordinate.data)


@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 20))
def test_accumulation_makes_up_the_global_batch_or_does_not_fit(
    batch: int, micro: int, replicas: int
) -> None:
    steps = accumulation_steps(batch, micro, replicas)
    if steps is None:
        assert batch % (micro * replicas)
    else:
        assert steps >= 1
        assert steps * micro * replicas == batch


@pytest.mark.parametrize(
    ("zero_stage", "stages", "world", "expected"),
    [
        (1, 1, 7, []),
        (3, 1, 1, []),
        (1, 5, 10, []),
        (2, 2, 4, ["parallel.zero_stage: 2 cannot be combined with a pipeline"]),
        (1, 6, 6, ["parallel.pipeline_stages: 6 stages, but a model of 4 layers can be cut into at most 5"]),
        (1, 2, 3, ["parallel.pipeline_stages: 2 does not divide the 3 ranks"]),
        (1, 4, 2, ["parallel.pipeline_stages: 4 does not divide the 2 ranks"]),
        (3, 6, 4, ["parallel.zero_stage: 3", "6 stages, but", "6 does not divide the 4 ranks"]),
    ],
)
def test_every_problem_of_a_layout_is_named(
    zero_stage: int, stages: int, world: int, expected: list[str]
) -> None:
    parallel = ParallelConfig(zero_stage=zero_stage, pipeline_stages=stages)
    found = layout_problems(parallel, world, blocks=4)
    assert len(found) == len(expected)
    for line, part in zip(found, expected, strict=True):
        assert part in line


@given(st.integers(1, 12), st.data())
def test_every_stage_of_a_model_has_matrices_and_norm_weights(blocks: int, data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, blocks + 1))
    cuts = split_model([0, *[7] * blocks, 0, data.draw(st.integers(0, 100))], stages)
    assert len(cuts) == stages + 1
    assert cuts[0] == 0
    assert cuts[-1] == blocks + 3
    assert cuts == sorted(set(cuts))
    assert 1 not in cuts[1:]  # the embedding alone has no norm weight
    assert blocks + 2 not in cuts[:-1]  # nor has the head


@pytest.mark.parametrize(
    "wrong", [{"zero_stage": 0}, {"zero_stage": 4}, {"pipeline_stages": 0}, {"stages": 2}]
)
def test_impossible_sections_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ParallelConfig.model_validate(wrong)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 50), st.integers(0, 500))
def test_where_only_blocks_are_trained_every_stage_has_one(
    blocks: int, stages: int, cost: int, head: int
) -> None:
    costs = [0, *[cost] * blocks, 0, head]
    stages = min(stages, blocks)
    cuts = split_model(costs, stages, head_apart=False)
    assert cuts[0] == 0
    assert cuts[-1] == len(costs)
    for start, stop in itertools.pairwise(cuts):
        assert any(1 <= layer <= blocks for layer in range(start, stop))
