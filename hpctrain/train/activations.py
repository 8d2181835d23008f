"""What a rank keeps of a micro-batch for the backward, in bytes for each token, by arithmetic; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpctrain.model.config import ModelConfig, RecomputeLevel

BYTES = {"fp32": 4, "bf16": 2, "fp8": 2}  # fp8 casts just before each product and keeps bf16
Recompute = bool | Literal["cheap"]
"""As `train.recompute` has it: one level for all blocks."""


def level_of(recompute: Recompute) -> RecomputeLevel:
    """The level of each block where all have the same."""
    if recompute == "cheap":
        return "cheap"
    return "all" if recompute else "keep"


def block_bytes(model: ModelConfig, precision: str, level: RecomputeLevel) -> int:
    """What one block keeps for its backward, for each token, at a level; see `hpctrain.model.recompute`.

    keep: two norms (input in fp32, normalised, output), rotated query and key, value, the attention's output
    twice, four of the feed-forward's width, sines and cosines, and a few numbers a head. cheap: the input,
    the results of six products (the last one's no backward needs), the attention's output and its sums.
    """
    size, width = BYTES[precision], model.hidden_size
    if level == "all":
        return width * size
    if level == "cheap":
        products = model.query_size + 2 * model.kv_size + width + 2 * model.mlp_size
        return (width + products + model.query_size) * size + 4 * model.heads
    norms = 6 * width * size + (0 if precision == "fp32" else 4 * width)
    attention = (3 * model.query_size + 2 * model.kv_size) * size
    return norms + attention + 4 * model.mlp_size * size + 8 * model.head_size + 4 * model.heads + 8


@dataclass(frozen=True)
class Held:
    """Bytes for each token of one micro-batch on one pipeline stage."""

    kept: int
    """From its forward to its backward."""
    peak: int
    """Most while its backward runs: what is kept of the blocks to come, one computed again, gradients."""
    exchange: int
    """In buffers between stages, however many micro-batches are in flight."""


def stage_bytes(
    model: ModelConfig, precision: str, levels: Sequence[RecomputeLevel], stage: int, stages: int
) -> Held:
    """What a stage with blocks of these levels holds; `stage` of `stages`, the last with norm and head."""
    size, width = BYTES[precision], model.hidden_size
    row, is_last = width * size, stage == stages - 1
    kept = 12  # token ids, positions and targets
    if stages > 1:  # DeepSpeed keeps what came from the stage before, and what goes to the next
        kept += row * ((stage > 0) + (not is_last))
    # Of what was received before: the buffer, its copy and that one's gradient; and the output of before.
    exchange = 4 * row if stage > 0 else 0
    # Gradients of the residual stream, of SwiGLU's result and of its two factors, less the freed result.
    gradients = row + 2 * model.mlp_size * size
    whole, peak = block_bytes(model, precision, "keep"), 0
    for level in levels:
        mine = block_bytes(model, precision, level)
        # In fp32 a block's input is among what it saves; in 16 bits it saves a wider copy.
        again = 0 if level == "keep" else whole - mine + (0 if precision == "fp32" else row)
        kept += mine
        peak = max(peak, kept + again + gradients)
    if is_last:  # the final norm's input in fp32, normalised, and the gradient of its output
        kept += 2 * row + 4 * width + 4
    return Held(kept, max(kept, peak), exchange)
