"""Which ranges of which parameters lie where in the flat tensors that a rank's optimizer steps.

DeepSpeed keeps a rank's fp32 weights in flat tensors, a different way in each of its optimizers. This file
and checkpoint/fragments.py alone read those internals (version pinned in pyproject.toml); everything else
sees ranges, which are the same for every ZeRO stage, world size and pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from hpctrain.engine.base import Engine


class Piece(NamedTuple):
    """This rank's range of one parameter, flattened; empty where another rank holds all of it."""

    parameter: Tensor
    start: int
    """First element of the range."""
    flat: Tensor
    """The flat fp32 tensor that the optimizer steps; on every rank the one with the same parameters."""
    offset: int
    """Where in `flat` the range begins."""
    elements: int
    """Length of the range."""


@dataclass(frozen=True)
class Fragment:
    """A range of one parameter, flattened, that this rank owns, and where it lies."""

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

    @property
    def span(self) -> slice:
        """The range in `flat`."""
        return slice(self.offset, self.offset + self.elements)


def owned_fragments(engine: Engine) -> list[Fragment]:
    """Every fragment this rank holds; over all ranks, without replicas, they cover the model exactly once."""
    names = {id(parameter): name for name, parameter in engine.named_parameters().items()}
    return [
        Fragment(
            names[id(piece.parameter)],
            piece.start,
            piece.flat,
            piece.offset,
            piece.elements,
            is_replica=getattr(piece.parameter, "ds_pipe_replicated", False),
        )
        for piece in pieces(engine.deepspeed.optimizer)
        if piece.elements > 0
    ]


def pieces(optimizer: Any) -> Iterator[Piece]:
    """A piece for each parameter of each flat tensor of a DeepSpeed optimizer, in one order on all ranks."""
    return _zero3_pieces(optimizer) if is_zero3(optimizer) else _partitioned_pieces(optimizer)


def is_zero3(optimizer: Any) -> bool:
    """Whether a DeepSpeed optimizer is that of ZeRO-3."""
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _partitioned_pieces(optimizer: Any) -> Iterator[Piece]:
    """ZeRO-1 and 2, and the pipeline's bf16 optimizer: linked through `_hp_mapping`."""
    groups = optimizer.bf16_groups if hasattr(optimizer, "bf16_groups") else optimizer.bit16_groups
    for group, parameters in enumerate(groups):
        flat = optimizer.optimizer.param_groups[group]["params"][0]
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is None:
                yield Piece(parameter, 0, flat, 0, 0)
            else:
                low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
                yield Piece(parameter, low.start, flat, high.start, low.numel)


def _zero3_pieces(optimizer: Any) -> Iterator[Piece]:
    """ZeRO-3: each rank holds one padded slice of every parameter."""
    for group in optimizer.fp16_groups:
        for parameter in group:
            sub_group, offset, padded = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = optimizer._get_param_partition_rank(parameter) * padded
            flat = optimizer.fp32_partitioned_groups_flat[sub_group]
            yield Piece(parameter, start, flat, offset, max(0, min(padded, parameter.ds_numel - start)))
