"""Memory of a rank, in bytes, by arithmetic: no torch, no GPU. The one place that knows what DeepSpeed keeps.

The terms follow what DeepSpeed 0.19 allocates, as counted in real ranks; see docs/plan.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpctrain.engine.deepspeed_config import BUCKET_ELEMENTS
from hpctrain.model.config import ModelConfig, RecomputeLevel, layer_costs
from hpctrain.parallel.topology import split_model
from hpctrain.train.activations import BYTES, Recompute, level_of, stage_bytes

_PREFETCH_ELEMENTS = 50_000_000
_REUSED_ELEMENTS = 500_000_000  # ZeRO 3 leaves gathered what it wants again within twice as many
_PERSISTENT_ELEMENTS = 100_000  # ZeRO 3 keeps smaller parameters whole on each rank
_LEAST_BYTES = {"fp32": (4, 4, 8), "bf16": (2, 2, 12), "fp8": (2, 2, 12)}
"""Of weights, gradients, and optimizer: Adam's two moments and, in bf16, the master weights."""
_OPTIMIZER_BYTES = 12  # fp32 master weights and two moments; in fp32 too DeepSpeed keeps the copy
_MUON_BYTES = 8  # fp32 master weights and the momentum
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
"""Of fp32 logits that live at once, by device; as `hpctrain.model.loss` has it, which needs torch."""


@dataclass(frozen=True)
class Layout:
    """How a run is spread over ranks, and in which pieces."""

    replicas: int
    pipeline_stages: int
    zero_stage: int
    micro_batch_size: int
    accumulation_steps: int
    recompute: Recompute

    @property
    def ranks(self) -> int:
        """Ranks of the whole run."""
        return self.replicas * self.pipeline_stages


@dataclass(frozen=True)
class Memory:
    """What one rank of a pipeline stage holds, in bytes."""

    stage: int
    parameters: int
    """Parameters of the stage, a number."""
    weights: int
    """In the precision of the products; under ZeRO 3 this rank's part."""
    optimizer: int
    """Master weights and both moments."""
    gradients: int
    """Once a backward is done."""
    activations: int
    """Saved for the backward, of all micro-batches in flight."""
    logits: int
    """What the loss needs while it goes through the vocabulary, a chunk of positions at a time."""
    head_gradient: int
    """Of the head's weight in fp32: the loss makes it in the forward, and it stays to the backward."""
    gathered: int
    """Whole weights that ZeRO 3 has gathered."""
    reduction: int
    """Copies made while gradients are summed."""
    buckets: int
    """DeepSpeed's fixed buffers."""
    peak: int
    """Most at once, buckets and all."""

    @property
    def state(self) -> int:
        """Weights, gradients and optimizer."""
        return self.weights + self.gradients + self.optimizer


def stage_parameters(model: ModelConfig, vocab_size: int, stages: int) -> list[int]:
    """Parameters of each pipeline stage; a tied embedding counts on the first and on the last."""
    return [sum(sizes) for sizes in _stage_sizes(model, vocab_size, stages)]


def memory_of(
    model: ModelConfig,
    vocab_size: int,
    sequence_length: int,
    precision: str,
    layout: Layout,
    *,
    device: str = "cuda",
    optimizer: str = "adamw",
    levels: Sequence[RecomputeLevel] | None = None,
) -> list[Memory]:
    """What a rank of each pipeline stage holds, when all parameters are trained.

    `device`: "cuda" or "cpu". `optimizer`: as `optimizer.kind`. `levels`: what each block of the model
    recomputes, where that is not the layout's.
    """
    stages = layout.pipeline_stages
    shape = _Shape(model, vocab_size, layout.micro_batch_size * sequence_length, precision, device)
    found = []
    for stage, sizes in enumerate(_stage_sizes(model, vocab_size, stages)):
        matrices = _block_matrices(model) * len(stage_blocks(model, vocab_size, stages)[stage])
        state = state_bytes(
            sum(sizes), precision, layout.zero_stage, layout.replicas, matrices if optimizer == "muon" else 0
        )
        here = stage_levels(model, vocab_size, layout, levels)[stage]
        found.append(_rank(shape, layout, stage, sizes, state, here))
    return found


def peak_bytes(memories: list[Memory]) -> int:
    """The memory of the rank that needs most."""
    return max(memory.peak for memory in memories)


def stage_blocks(model: ModelConfig, vocab_size: int, stages: int) -> list[range]:
    """The blocks of each pipeline stage."""
    cuts = split_model(layer_costs(model, vocab_size), stages)
    return [range(max(0, cuts[stage] - 1), min(model.layers, cuts[stage + 1] - 1)) for stage in range(stages)]


def stage_levels(
    model: ModelConfig, vocab_size: int, layout: Layout, levels: Sequence[RecomputeLevel] | None = None
) -> list[list[RecomputeLevel]]:
    """The levels of each stage's blocks; those of the layout where none are given."""
    given = levels or [level_of(layout.recompute)] * model.layers
    return [[given[i] for i in blocks] for blocks in stage_blocks(model, vocab_size, layout.pipeline_stages)]


def micro_batches_in_flight(layout: Layout, stage: int) -> int:
    """How many micro-batches a stage has run forward, and not yet backward, at most."""
    return min(layout.pipeline_stages - stage, layout.accumulation_steps)


def activation_bytes(
    model: ModelConfig,
    sequence_length: int,
    precision: str,
    layout: Layout,
    stage: int,
    levels: Sequence[RecomputeLevel],
) -> int:
    """Most that a rank of a stage keeps for its backwards, what one block computes again included.

    `levels`: of the stage's blocks.
    """
    held = stage_bytes(model, precision, levels, stage, layout.pipeline_stages)
    tokens = layout.micro_batch_size * sequence_length
    earlier = held.kept * (micro_batches_in_flight(layout, stage) - 1)
    return tokens * (earlier + held.peak + held.exchange)


@dataclass(frozen=True)
class _Shape:
    """What is the same on all stages."""

    model: ModelConfig
    vocab_size: int
    tokens: int
    """Of a micro-batch."""
    precision: str
    device: str

    @property
    def head(self) -> int:
        """Elements of the head's weight."""
        return self.vocab_size * self.model.hidden_size


def _loss_bytes(shape: _Shape) -> int:
    """Most that the loss needs beside the gradients it makes; see `linear_cross_entropy`."""
    size = BYTES[shape.precision]
    whole = 4 * shape.vocab_size * shape.tokens
    pieces = max(1, math.ceil(whole / CHUNK_BYTES[shape.device]))
    logits = 4 * shape.vocab_size * math.ceil(shape.tokens / pieces)
    output = size * shape.tokens * shape.model.hidden_size
    is_narrow = size == 2
    product = is_narrow * (logits // 2 + size * shape.head)
    return output + max(2 * logits, product)


def _rank(
    shape: _Shape, layout: Layout, stage: int, sizes: list[int], state: State, levels: list[RecomputeLevel]
) -> Memory:
    parameters, zero, size = sum(sizes), layout.zero_stage, BYTES[shape.precision]
    is_last = stage == layout.pipeline_stages - 1
    held = stage_bytes(shape.model, shape.precision, levels, stage, layout.pipeline_stages)
    weights, gathered = state.weights, 0
    if zero == 3:
        small = sum(each for each in sizes if each <= _PERSISTENT_ELEMENTS)
        weights += small * size
        by_autograd = _block_matrices(shape.model) * levels.count("keep")
        live = by_autograd + _REUSED_ELEMENTS + _PREFETCH_ELEMENTS + max(sizes)
        gathered = size * min(parameters - small, live)
    activations = shape.tokens * (held.kept * micro_batches_in_flight(layout, stage) + held.exchange)
    loss = _loss_bytes(shape) if is_last else 0
    head_gradient = 4 * shape.head if is_last else 0
    earlier = state.gradients if layout.accumulation_steps > 1 else 0
    at_work = shape.tokens * (held.peak - held.kept)
    forward = activations + gathered + head_gradient + max(loss, at_work) + earlier
    backward = state.gradients + max(state.reduction, gathered + at_work)
    # In a pipeline the buffer of one backward is still there when that of the next is made.
    buckets = state.buckets * min(2, layout.pipeline_stages)
    fixed = weights + state.optimizer + buckets
    return Memory(
        stage, parameters, weights, state.optimizer, state.gradients, activations, loss, head_gradient,
        gathered, state.reduction, buckets, fixed + max(forward, backward),
    )  # fmt: skip


@dataclass(frozen=True)
class State:
    """What depends on the number of parameters alone, in bytes."""

    weights: int
    optimizer: int
    gradients: int
    reduction: int
    buckets: int


def state_bytes(
    parameters: int, precision: str, zero_stage: int, replicas: int, muon_parameters: int = 0
) -> State:
    """Weights, optimizer, gradients and DeepSpeed's buffers of a rank whose stage has so many parameters.

    ZeRO 1 divides the optimizer's part by the replicas, ZeRO 2 also the gradients', ZeRO 3 also the weights'.
    In bf16 ZeRO 1 sums gradients in a whole fp32 copy besides those of the backward. `muon_parameters`: how
    many of them are Muon's, which keeps one moment. Below ZeRO 3 they lie before all others, so the last
    rank, which is counted, has the most of the others.
    """
    size = BYTES[precision]
    part = -(-parameters // replicas)
    bucket = min(parameters, BUCKET_ELEMENTS)
    others = parameters - muon_parameters
    if zero_stage == 3:
        others = -(-others // replicas)
    optimizer = _MUON_BYTES * part + (_OPTIMIZER_BYTES - _MUON_BYTES) * min(part, others)
    weights = size * (part if zero_stage == 3 else parameters)
    if zero_stage == 1:
        if precision != "fp32":
            return State(weights, optimizer, (4 + 2) * parameters, (4 + 2) * bucket, 0)
        return State(weights, optimizer, 4 * parameters, 0, 4 * BUCKET_ELEMENTS)
    if zero_stage == 2:
        return State(weights, optimizer, 4 * part, size * bucket, 2 * size * BUCKET_ELEMENTS)
    return State(weights, optimizer, 4 * part, 0, size * BUCKET_ELEMENTS)


def _block_matrices(model: ModelConfig) -> int:
    """Parameters of one block's matrices."""
    return model.hidden_size * (2 * model.query_size + 2 * model.kv_size + 3 * model.mlp_size)


def _stage_sizes(model: ModelConfig, vocab_size: int, stages: int) -> list[list[int]]:
    """The sizes of the parameters of each stage."""
    width, head = model.hidden_size, vocab_size * model.hidden_size
    block = [width, width * model.query_size, *[width * model.kv_size] * 2, width * model.query_size,
             width, *[width * model.mlp_size] * 3]  # fmt: skip
    if model.attention_bias != "none":
        block += [model.query_size, model.kv_size, model.kv_size]
    if model.attention_bias == "all":
        block.append(width)
    layers = [[head], *[block] * model.layers, [width], [] if model.tied and stages == 1 else [head]]
    cuts = split_model(layer_costs(model, vocab_size), stages)
    return [
        [size for layer in layers[cuts[stage] : cuts[stage + 1]] for size in layer] for stage in range(stages)
    ]


def least_gpu_bytes(parameters: int, precision: str, zero_stage: int, replicas: int, stages: int) -> int:
    """A lower bound of the memory each GPU needs: P/stages x (weights + gradients + optimizer).

    ZeRO 1 divides the optimizer's part by the replicas, ZeRO 2 also the gradients', ZeRO 3 all three. Bytes a
    parameter: fp32 4 + 4 + 8, bf16 2 + 2 + 12. Activations, buffers and fragmentation come on top.
    """
    weights, gradients, optimizer = _LEAST_BYTES[precision]
    whole = (weights if zero_stage < 3 else 0) + (gradients if zero_stage < 2 else 0)
    divided = weights + gradients + optimizer - whole
    return int(parameters / stages * (whole + divided / replicas))


def frozen_gpu_bytes(parameters: int, precision: str, zero_stage: int, replicas: int, stages: int) -> int:
    """Memory of the weights that an adapter leaves as they are, on each GPU."""
    weights, _, _ = _LEAST_BYTES[precision]
    return max(0, parameters) * weights // stages // (replicas if zero_stage == 3 else 1)
