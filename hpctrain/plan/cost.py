"""Time and traffic of one optimizer step, predicted from stated rates. Nothing here was measured."""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.model.config import ModelConfig, RecomputeLevel
from hpctrain.train.activations import BYTES, level_of
from hpctrain.train.memory import Layout, stage_parameters

_CHEAP_SHARE = 0.06
"""Of the time of a block's products, what it takes to compute norms, rotation and SwiGLU again: measured on a
CPU with the 40m shape. The wider the model, the less; the 3m shape took 0.18."""


@dataclass(frozen=True)
class Rates:
    """What a prediction assumes, each rate for one rank."""

    flops: float
    """Operations a second, sustained."""
    inside: float
    """Bytes a second between ranks of a node."""
    outside: float
    """Bytes a second between nodes."""
    ranks_per_node: int


@dataclass(frozen=True)
class Step:
    """One optimizer step of one rank."""

    compute: float
    """Seconds in products, recomputation included."""
    bubble: float
    """Seconds a pipeline stage waits for others."""
    exchange: float
    """Seconds of communication, none of it hidden behind products."""
    sent: int
    """Bytes that the rank sends."""

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute + self.bubble + self.exchange


def volumes(
    model: ModelConfig, vocab_size: int, sequence_length: int, precision: str, layout: Layout
) -> tuple[int, int]:
    """Bytes that a rank sends in a step: among its replicas, and to its neighbours in the pipeline.

    A ring sends (n-1)/n of the data to gather or to scatter-reduce it, twice that to sum it everywhere.
    """
    size, n, pieces = BYTES[precision], layout.replicas, layout.accumulation_steps
    parameters = max(stage_parameters(model, vocab_size, layout.pipeline_stages))
    gather = size * parameters
    if layout.zero_stage == 1:
        total = gather + 2 * size * parameters
    elif layout.zero_stage == 2:
        total = gather + pieces * size * parameters
    else:
        total = pieces * (2 * gather + size * parameters)
    replicas = total * (n - 1) // n
    if layout.pipeline_stages == 1:
        return replicas, 0
    tokens = layout.micro_batch_size * sequence_length
    return replicas, 2 * pieces * tokens * model.hidden_size * size


def recomputed_flops_per_token(model: ModelConfig, sequence_length: int, level: RecomputeLevel) -> float:
    """Operations that a token costs besides, where all blocks are at a level.

    all: the forward of each block, but for its last product. cheap: no products, but the time of a few.
    """
    attention = 4 * model.query_size * sequence_length
    up = model.hidden_size * (2 * model.query_size + 2 * model.kv_size + 2 * model.mlp_size)
    if level == "all":
        return model.layers * (2 * up + attention)
    whole = 6 * (up + model.hidden_size * model.mlp_size) + 3 * attention
    return model.layers * _CHEAP_SHARE * whole if level == "cheap" else 0


def predict_step(
    model: ModelConfig, vocab_size: int, sequence_length: int, precision: str, layout: Layout, rates: Rates
) -> Step:
    """The step's parts. Stages are taken as equally dear; the longest path of a 1F1B pipeline is counted."""
    stages, pieces = layout.pipeline_stages, layout.accumulation_steps
    tokens = layout.replicas * layout.micro_batch_size * pieces * sequence_length
    work = model.flops_per_token(vocab_size, sequence_length) * tokens / layout.ranks
    again = recomputed_flops_per_token(model, sequence_length, level_of(layout.recompute))
    compute = (work + again * tokens / layout.ranks) / rates.flops
    among, along = volumes(model, vocab_size, sequence_length, precision, layout)
    # Ranks of one stage are adjacent: replicas share a node before stages do.
    exchange = among / (rates.inside if layout.replicas <= rates.ranks_per_node else rates.outside)
    exchange += along / (rates.inside if layout.ranks <= rates.ranks_per_node else rates.outside)
    return Step(compute, compute * (stages - 1) / pieces, exchange, among + along)
