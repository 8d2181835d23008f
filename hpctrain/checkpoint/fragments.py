"""What a rank owns: 1-D ranges of parameters with their fp32 master weight and both Adam moments.

DeepSpeed keeps these in flat tensors, a different way in each optimizer. This file alone reads those
internals (version pinned in pyproject.toml); everything else sees `Fragment`s, which are the same for every
ZeRO stage, world size and pipeline, so any layout can read any other's checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpctrain.engine.base import Engine

STATE_KINDS = ("weight", "exp_avg", "exp_avg_sq")
"""The tensors of each fragment: fp32 master weight, first and second Adam moment."""


@dataclass(frozen=True)
class Fragment:
    """A range of one parameter, flattened, that this rank owns, and where its state lies."""

    parameter: str
    start: int
    """First element of the range."""
    flat: Tensor
    """The flat fp32 tensor that the optimizer steps."""
    offset: int
    """Where in `flat` the range begins."""
    elements: int
    """Length of the range."""
    is_replica: bool
    """Whether another pipeline stage owns the same range of a tied parameter: to be loaded, not saved."""

    def view(self, state: dict[str, Tensor], kind: str) -> Tensor:
        """The 1-D view of this range of the master weight or of a moment in the optimizer's state."""
        whole = self.flat if kind == "weight" else state[kind]
        return whole.detach()[self.offset : self.offset + self.elements]


def owned_fragments(engine: Engine) -> list[Fragment]:
    """Every fragment this rank holds; over all ranks, without replicas, they cover the model exactly once."""
    optimizer = engine.deepspeed.optimizer
    names = {id(parameter): name for name, parameter in engine.named_parameters().items()}
    pieces = _zero3_pieces(optimizer) if _is_zero3(optimizer) else _partitioned_pieces(optimizer)
    return [
        Fragment(
            names[id(parameter)],
            start,
            flat,
            offset,
            elements,
            is_replica=getattr(parameter, "ds_pipe_replicated", False),
        )
        for parameter, start, flat, offset, elements in pieces
        if elements > 0
    ]


def optimizer_state(engine: Engine, flat: Tensor) -> dict[str, Tensor]:
    """The Adam state of a flat tensor: step, exp_avg, exp_avg_sq; made of zeros before the first step."""
    state: dict[str, Tensor] = engine.deepspeed.optimizer.optimizer.state[flat]
    if "exp_avg" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(flat), torch.zeros_like(flat)
    return state


def publish_master_weights(engine: Engine, step: int, samples: int) -> None:
    """After fragments were overwritten: refresh the live weights and DeepSpeed's counters; collective."""
    deepspeed_engine, optimizer = engine.deepspeed, engine.deepspeed.optimizer
    if _is_zero3(optimizer):
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
        optimizer.invalidate_secondary_tensor()
    else:
        optimizer.update_lp_params()
        optimizer._hp_optimizer_states_linked = False
    deepspeed_engine.global_steps = step
    deepspeed_engine.global_samples = samples
    deepspeed_engine.micro_steps = step * deepspeed_engine.gradient_accumulation_steps()


def full_shapes(engine: Engine) -> dict[str, list[int]]:
    """The whole shape of each of this rank's trained parameters, also where ZeRO-3 has partitioned it."""
    return {
        name: list(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in engine.named_parameters().items()
        if parameter.requires_grad
    }


_Piece = tuple[Tensor, int, Tensor, int, int]


def _is_zero3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _partitioned_pieces(optimizer: Any) -> Iterator[_Piece]:
    """ZeRO-1 and 2, and the pipeline's bf16 optimizer: linked through `_hp_mapping`."""
    groups = optimizer.bf16_groups if hasattr(optimizer, "bf16_groups") else optimizer.bit16_groups
    for group, parameters in enumerate(groups):
        flat = optimizer.optimizer.param_groups[group]["params"][0]
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is not None:
                low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
                yield parameter, low.start, flat, high.start, low.numel


def _zero3_pieces(optimizer: Any) -> Iterator[_Piece]:
    """ZeRO-3: each rank holds one padded slice of every parameter."""
    for group in optimizer.fp16_groups:
        for parameter in group:
            sub_group, offset, padded = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = optimizer._get_param_partition_rank(parameter) * padded
            flat = optimizer.fp32_partitioned_groups_flat[sub_group]
            yield parameter, start, flat, offset, min(padded, parameter.ds_numel - start)
