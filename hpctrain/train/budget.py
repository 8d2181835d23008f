"""Which blocks compute what again, so that activations fit a budget: from the config alone, on every rank."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hpctrain.errors import ConfigError
from hpctrain.model.config import RecomputeLevel
from hpctrain.parallel.topology import accumulation_steps, layout_problems
from hpctrain.train.activations import level_of
from hpctrain.train.config import RunConfig
from hpctrain.train.memory import Layout, activation_bytes, stage_blocks

_GIB = 2**30


@dataclass(frozen=True)
class Choice:
    """What each block of a model recomputes."""

    levels: tuple[RecomputeLevel, ...]
    """Of all blocks, first to last."""
    stages: tuple[int, ...]
    """Predicted activations of a rank of each pipeline stage, in bytes."""
    budget: int | None
    """Bytes; None: none was asked for."""

    def describe(self) -> str:
        """One line for the start of a run."""
        counts = ", ".join(
            f"{self.levels.count(level)} {what}" for level, what in _WORDS.items() if level in self.levels
        )
        asked = "" if self.budget is None else f" of {self.budget / _GIB:.4g} GiB"
        return f"activations: {max(self.stages) / _GIB:.4g} GiB{asked} a rank predicted; blocks: {counts}"


_WORDS = {"keep": "keep all", "cheap": "recompute what is cheap", "all": "recompute all"}


def choose_levels(config: RunConfig, vocab_size: int, world_size: int, compiled: bool) -> Choice:
    """The levels of a run's blocks; with a budget the first blocks of each stage give way first.

    Where blocks are `compiled`, whole ones below ZeRO 3, the compiler itself computes again what it finds
    cheap: cheap is keep there, and what is predicted for it is too much, by up to a half.

    Raises ConfigError saying by how much, and what would fit, where a budget is too small for any.
    """
    layout = _layout(config, world_size)
    asked = config.train.activation_memory
    budget = None if asked is None else int(asked * _GIB)
    is_whole = compiled and config.parallel.zero_stage < 3  # see `compile_blocks`
    order: tuple[RecomputeLevel, ...] = ("keep", "all") if is_whole else ("keep", "cheap", "all")
    if budget is None:
        level = level_of(config.train.recompute)
        order = (level if level in order else "keep",) * 2
    chosen: list[RecomputeLevel] = []
    stages: list[int] = []
    for stage, blocks in enumerate(stage_blocks(config.model, vocab_size, layout.pipeline_stages)):
        levels = least_recomputation(len(blocks), order, partial(_fits, budget, config, layout, stage))
        if levels is None:
            raise ConfigError(_too_small(config, vocab_size, world_size))
        chosen += levels
        stages.append(_bytes(config, layout, stage, levels))
    return Choice(tuple(chosen), tuple(stages), budget)


def least_recomputation(
    blocks: int, order: Sequence[RecomputeLevel], fits: Callable[[tuple[RecomputeLevel, ...]], bool]
) -> tuple[RecomputeLevel, ...] | None:
    """The first levels that fit: all at the first of `order`, then the first blocks, one by one, at the next.

    None where not even all at its last fit.
    """
    for late, early in itertools.pairwise(order):
        for count in range(blocks + 1):
            levels = (early,) * count + (late,) * (blocks - count)
            if fits(levels):
                return levels
    return None


def _layout(config: RunConfig, world_size: int) -> Layout:
    stages, train = config.parallel.pipeline_stages, config.train
    replicas = world_size // stages
    pieces = accumulation_steps(train.global_batch_size, train.micro_batch_size, replicas)
    assert pieces is not None  # check_layout saw to it
    return Layout(
        replicas, stages, config.parallel.zero_stage, train.micro_batch_size, pieces, train.recompute
    )


def _fits(
    budget: int | None, config: RunConfig, layout: Layout, stage: int, levels: Sequence[RecomputeLevel]
) -> bool:
    return budget is None or _bytes(config, layout, stage, levels) <= budget


def _bytes(config: RunConfig, layout: Layout, stage: int, levels: Sequence[RecomputeLevel]) -> int:
    length, precision = config.data.sequence_length, config.train.precision
    return activation_bytes(config.model, length, precision, layout, stage, levels)


def _least(config: RunConfig, vocab_size: int, layout: Layout) -> int:
    """Activations of the rank that needs most, when all blocks recompute all."""
    blocks = stage_blocks(config.model, vocab_size, layout.pipeline_stages)
    every: RecomputeLevel = "all"
    return max(_bytes(config, layout, stage, [every] * len(here)) for stage, here in enumerate(blocks))


def _too_small(config: RunConfig, vocab_size: int, world_size: int) -> str:
    asked = config.train.activation_memory
    assert asked is not None
    layout = _layout(config, world_size)
    least = _least(config, vocab_size, layout) / _GIB
    found = [*_smaller_batches(config, layout), *_more_stages(config, world_size)]
    fitting: dict[str, int] = {}
    for key, value, other in found:
        if key not in fitting and _least(config, vocab_size, other) <= asked * _GIB:
            fitting[key] = value
    fitting_keys = [f"{key}: {value}" for key, value in fitting.items()]
    remedies = [*fitting_keys, f"train.activation_memory: {_round_up(least):g}"]
    return (
        f"train.activation_memory: {asked:g} GiB, but with all blocks recomputed a rank keeps {least:.4g}, "
        f"{least - asked:.4g} GiB too much; what would fit: {', or '.join(remedies)}"
    )


def _smaller_batches(config: RunConfig, layout: Layout) -> list[tuple[str, int, Layout]]:
    """Micro-batches that still divide the global batch, the largest first."""
    per_replica = config.train.global_batch_size // layout.replicas
    return [
        ("train.micro_batch_size", size,
         replace(layout, micro_batch_size=size, accumulation_steps=per_replica // size))
        for size in range(layout.micro_batch_size - 1, 0, -1)
        if per_replica % size == 0
    ]  # fmt: skip


def _more_stages(config: RunConfig, world_size: int) -> list[tuple[str, int, Layout]]:
    """Longer pipelines on the same ranks, the shortest first."""
    found = []
    for stages in range(config.parallel.pipeline_stages + 1, config.model.layers + 2):
        parallel = config.parallel.model_copy(update={"pipeline_stages": stages})
        train = config.train
        if layout_problems(parallel, world_size, config.model.layers):
            continue
        if accumulation_steps(train.global_batch_size, train.micro_batch_size, world_size // stages):
            longer = config.model_copy(update={"parallel": parallel})
            found.append(("parallel.pipeline_stages", stages, _layout(longer, world_size)))
    return found


def _round_up(gib: float) -> float:
    """To three digits, never less."""
    text = float(f"{gib:.2e}")
    return text if text >= gib else float(f"{gib * 1.01:.2e}")
