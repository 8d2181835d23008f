"""What is recomputed under a budget: it fits whenever it can, with as little recomputation as it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from runner import Runner

from hpctrain.config import load_config
from hpctrain.errors import ConfigError
from hpctrain.launch.check import Request, run_problems
from hpctrain.launch.site import load_site
from hpctrain.parallel.topology import ParallelConfig
from hpctrain.train.budget import Choice, choose_levels, least_recomputation
from hpctrain.train.config import RunConfig, TrainConfig

VOCABULARY, GIB = 4096, 2**30
ORDER = ("keep", "cheap", "all")
CONFIG = Path(__file__).parents[2] / "configs" / "pretrain" / "quickstart.yaml"


def config(stages: int = 1, layers: int = 6, micro: int = 4, **train: Any) -> RunConfig:
    loaded = load_config(CONFIG, [f"model.layers={layers}", "train.global_batch_size=64"], RunConfig)
    changed = TrainConfig.model_validate(loaded.train.model_dump() | {"micro_batch_size": micro} | train)
    parallel = loaded.parallel.model_copy(update={"pipeline_stages": stages, "zero_stage": 1})
    return loaded.model_copy(update={"train": changed, "parallel": parallel})


def choose(asked: RunConfig, compiled: bool = False) -> Choice:
    return choose_levels(asked, VOCABULARY, 4, compiled)


def bounds(stages: int, layers: int, micro: int) -> tuple[float, float]:
    """GiB of activations when all is recomputed, and when all is kept."""
    least, most = (choose(config(stages, layers, micro, recompute=each)).stages for each in (True, False))
    return max(least) / GIB, max(most) / GIB


def work(choice: Choice) -> int:
    return sum(ORDER.index(level) for level in choice.levels)


shapes = st.tuples(st.sampled_from([1, 2, 4]), st.integers(4, 9), st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=60)
@given(shape=shapes, share=st.floats(0, 1.2))
def test_it_fits_whenever_it_can(shape: tuple[int, int, int], share: float) -> None:
    least, most = bounds(*shape)
    budget = least + share * (most - least) + 1e-9
    choice = choose(config(*shape, activation_memory=budget))
    assert max(choice.stages) <= budget * GIB
    assert len(choice.levels) == shape[1]


@settings(max_examples=60)
@given(shape=shapes, share=st.floats(0, 1.2), more=st.floats(0, 1.2))
def test_a_larger_budget_never_recomputes_more(
    shape: tuple[int, int, int], share: float, more: float
) -> None:
    least, most = bounds(*shape)
    small, large = (
        choose(config(*shape, activation_memory=least + each * (most - least) + 1e-9))
        for each in (share, share + more)
    )
    for one, other in zip(small.levels, large.levels, strict=True):
        assert ORDER.index(other) <= ORDER.index(one)


@settings(max_examples=30)
@given(shape=shapes, share=st.floats(0, 1))
def test_one_block_less_would_not_fit(shape: tuple[int, int, int], share: float) -> None:
    """The bytes of a choice are the least budget of it: with a byte less, some stage recomputes more."""
    least, most = bounds(*shape)
    choice = choose(config(*shape, activation_memory=least + share * (most - least) + 1e-9))
    same = choose(config(*shape, activation_memory=(max(choice.stages) + 1) / GIB))
    assert same == Choice(choice.levels, choice.stages, same.budget)
    if max(choice.stages) > least * GIB:
        tighter = choose(config(*shape, activation_memory=(max(choice.stages) - 1) / GIB))
        assert work(tighter) > work(choice)


@given(blocks=st.integers(0, 40), data=st.data())
def test_the_first_blocks_give_way_first(blocks: int, data: st.DataObject) -> None:
    target = data.draw(st.integers(0, 2 * blocks))
    levels = least_recomputation(
        blocks, ORDER, lambda each: sum(ORDER.index(level) for level in each) >= target
    )
    assert levels is not None
    ranks = [ORDER.index(level) for level in levels]
    assert sum(ranks) == target
    assert ranks == sorted(ranks, reverse=True)
    assert max(ranks, default=0) - min(ranks, default=0) <= 1
    assert least_recomputation(blocks, ORDER, lambda each: False) is None


def test_a_budget_that_is_too_small_says_by_how_much_and_what_would_fit() -> None:
    with pytest.raises(ConfigError) as raised:
        choose(config(micro=8, layers=8, activation_memory=bounds(1, 8, 8)[0] * 0.6))
    told = str(raised.value)
    assert "too much" in told
    remedies = dict(each.split(": ") for each in told.split("what would fit: ")[1].split(", or "))
    smaller = config(
        micro=int(remedies["train.micro_batch_size"]), layers=8, activation_memory=bounds(1, 8, 8)[0] * 0.6
    )
    assert set(choose(smaller).levels) <= set(ORDER)
    enough = config(micro=8, layers=8, activation_memory=float(remedies["train.activation_memory"]))
    assert "all" in choose(enough).levels


def test_without_a_budget_all_blocks_have_one_level() -> None:
    for recompute, level in ((False, "keep"), ("cheap", "cheap"), (True, "all")):
        assert set(choose(config(recompute=recompute)).levels) == {level}


def test_the_compiler_recomputes_what_is_cheap_itself() -> None:
    assert set(choose(config(recompute="cheap"), compiled=True).levels) == {"keep"}
    least, most = bounds(1, 6, 4)
    middle = config(activation_memory=(least + most) / 2)
    assert set(choose(middle, compiled=True).levels) == {"all", "keep"}
    assert set(choose(middle).levels) == {"cheap", "keep"}
    sharded = middle.model_copy(update={"parallel": ParallelConfig(zero_stage=3)})
    assert set(choose(sharded, compiled=True).levels) == {"cheap", "keep"}  # only parts are compiled there


def test_a_level_and_a_budget_contradict_each_other() -> None:
    for recompute in (True, "cheap"):
        with pytest.raises(ValidationError, match="take recompute out, or the budget"):
            config(recompute=recompute, activation_memory=1.0)


def test_what_adapters_keep_is_not_predicted() -> None:
    adapted = ["adapter.rank=4", "run.start_from=elsewhere", "train.activation_memory=1"]
    with pytest.raises(ConfigError, match="what adapters keep is not predicted"):
        load_config(CONFIG, adapted, RunConfig)


def test_a_job_is_checked_before_it_is_submitted(runner: Runner) -> None:
    path = runner.config(train={"activation_memory": 1e-6})
    problems = run_problems(load_config(path, [], RunConfig), "train", load_site("generic"), Request())
    assert [each for each in problems if each.startswith("train.activation_memory: ")]


def test_the_choice_is_told_in_numbers() -> None:
    least, most = bounds(1, 6, 4)
    told = choose(config(activation_memory=(least + most) / 2)).describe()
    assert "recompute what is cheap" in told
    assert f"of {(least + most) / 2:.4g} GiB a rank" in told


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("parallel", [{"pipeline_stages": 2}, {"zero_stage": 3}])
def test_a_run_says_once_what_it_recomputes(runner: Runner, parallel: dict[str, int]) -> None:
    path = runner.config(
        train={"steps": 2, "micro_batch_size": 2, "activation_memory": 0.0007}, model={"layers": 4},
        parallel=parallel,
    )  # fmt: skip
    (line,) = (line for line in runner.train(path).stderr.splitlines() if "activations: " in line)
    assert "of 0.0007 GiB a rank predicted; blocks: " in line
    started = next(event for event in runner.events() if event["event"] == "start")
    assert len(started["activations"]["levels"]) == 4
    assert max(started["activations"]["stages"]) <= started["activations"]["budget"] == int(0.0007 * GIB)


@pytest.mark.ranks
def test_a_run_whose_budget_is_too_small_ends_at_once(runner: Runner) -> None:
    err = runner.train(runner.config(train={"activation_memory": 1e-6}), code=2).stderr
    assert "train.activation_memory: 1e-06 GiB, but with all blocks recomputed" in err
