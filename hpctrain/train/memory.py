"""Memory of a rank, in bytes, by arithmetic: no torch, no GPU. The one place that knows what DeepSpeed keeps.

The terms follow what DeepSpeed 0.19 allocates, as counted in real ranks; see docs/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.model.config import ModelConfig, layer_costs
from hpctrain.parallel.topology import split_model

BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default size of a buffer that gradients are summed in."""
_PREFETCH_ELEMENTS = 50_000_000
_PERSISTENT_ELEMENTS = 100_000  # ZeRO 3 keeps smaller parameters whole on each rank
_BYTES = {"fp32": 4, "bf16": 2}
_LEAST_BYTES = {"fp32": (4, 4, 8), "bf16": (2, 2, 12)}
"""Of weights, gradients, and optimizer: Adam's two moments and, in bf16, the master weights."""
_OPTIMIZER_BYTES = 12  # fp32 master weights and two moments; in fp32 too DeepSpeed keeps the copy


@dataclass(frozen=True)
class Layout:
    """How a run is spread over ranks, and in which pieces."""

    replicas: int
    pipeline_stages: int
    zero_stage: int
    micro_batch_size: int
    accumulation_steps: int
    recompute: bool

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
    """What the cross-entropy needs besides what it saves."""
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
    model: ModelConfig, vocab_size: int, sequence_length: int, precision: str, layout: Layout
) -> list[Memory]:
    """What a rank of each pipeline stage holds, when all parameters are trained."""
    stages = layout.pipeline_stages
    costs = layer_costs(model, vocab_size)
    cuts = split_model(costs, stages)
    tokens = layout.micro_batch_size * sequence_length
    found = []
    for stage, sizes in enumerate(_stage_sizes(model, vocab_size, stages)):
        blocks = sum(0 < layer <= model.layers for layer in range(cuts[stage], cuts[stage + 1]))
        held = _activations(model, vocab_size, precision, layout, stage, blocks)
        found.append(_rank(stage, sizes, precision, layout, tokens, held))
    return found


def peak_bytes(memories: list[Memory]) -> int:
    """The memory of the rank that needs most."""
    return max(memory.peak for memory in memories)


@dataclass(frozen=True)
class _Held:
    """Bytes for each token of a micro-batch."""

    in_flight: int
    block: int
    logits: int


def block_bytes_per_token(model: ModelConfig, precision: str) -> int:
    """What one block saves for its backward, for each token.

    Two norms (input in fp32, normalised, output), rotated query and key, value, the attention's output twice,
    four of the feed-forward's width, sines and cosines, and a few numbers a head.
    """
    size = _BYTES[precision]
    norms = 6 * model.hidden_size * size + (0 if precision == "fp32" else 4 * model.hidden_size)
    attention = (3 * model.query_size + 2 * model.kv_size) * size
    return norms + attention + 4 * model.mlp_size * size + 8 * model.head_size + 4 * model.heads + 8


def _activations(
    model: ModelConfig, vocab_size: int, precision: str, layout: Layout, stage: int, blocks: int
) -> _Held:
    size, width = _BYTES[precision], model.hidden_size
    block = block_bytes_per_token(model, precision)
    is_last = stage == layout.pipeline_stages - 1
    kept = blocks * (width * size if layout.recompute else block) + 12  # ids and targets
    if is_last:
        kept += 2 * width * size + 4 * width + 4 + 4 * vocab_size
    in_flight = min(layout.pipeline_stages - stage, layout.accumulation_steps)
    held_logits = size * vocab_size * 2 if layout.pipeline_stages > 1 else 0  # kept in the pipeline's buffers
    logits = 8 * vocab_size + held_logits if is_last else 0
    return _Held(kept * in_flight, block if layout.recompute and blocks else 0, logits)


def _rank(stage: int, sizes: list[int], precision: str, layout: Layout, tokens: int, held: _Held) -> Memory:
    parameters, zero = sum(sizes), layout.zero_stage
    state = state_bytes(parameters, precision, zero, layout.replicas)
    size = _BYTES[precision]
    weights, flat, kept = state.weights, 0, 0
    if zero == 3:
        small = sum(each for each in sizes if each <= _PERSISTENT_ELEMENTS)
        weights += small * size
        flat = size * min(parameters - small, _PREFETCH_ELEMENTS + max(sizes))
        kept = flat if layout.recompute else size * (parameters - small)
    activations, logits = tokens * held.in_flight, tokens * held.logits
    earlier = state.gradients if layout.accumulation_steps > 1 else 0
    at_work = tokens * held.block + flat
    forward = activations + kept + max(logits, at_work) + earlier
    backward = state.gradients + max(state.reduction, kept + at_work)
    # In a pipeline the buffer of one backward is still there when that of the next is made.
    buckets = state.buckets * min(2, layout.pipeline_stages)
    fixed = weights + state.optimizer + buckets
    return Memory(
        stage, parameters, weights, state.optimizer, state.gradients, activations, logits, kept + flat,
        state.reduction, buckets, fixed + max(forward, backward),
    )  # fmt: skip


@dataclass(frozen=True)
class State:
    """What depends on the number of parameters alone, in bytes."""

    weights: int
    optimizer: int
    gradients: int
    reduction: int
    buckets: int


def state_bytes(parameters: int, precision: str, zero_stage: int, replicas: int) -> State:
    """Weights, optimizer, gradients and DeepSpeed's buffers of a rank whose stage has so many parameters.

    ZeRO 1 divides the optimizer's part by the replicas, ZeRO 2 also the gradients', ZeRO 3 also the weights'.
    In bf16 ZeRO 1 sums gradients in a whole fp32 copy besides those of the backward.
    """
    size = _BYTES[precision]
    part = -(-parameters // replicas)
    bucket = min(parameters, BUCKET_ELEMENTS)
    weights, optimizer = size * (part if zero_stage == 3 else parameters), _OPTIMIZER_BYTES * part
    if zero_stage == 1:
        if precision == "bf16":
            return State(weights, optimizer, (4 + 2) * parameters, (4 + 2) * bucket, 0)
        return State(weights, optimizer, 4 * parameters, 0, 4 * BUCKET_ELEMENTS)
    if zero_stage == 2:
        return State(weights, optimizer, 4 * part, size * bucket, 2 * size * BUCKET_ELEMENTS)
    return State(weights, optimizer, 4 * part, 0, size * BUCKET_ELEMENTS)


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
