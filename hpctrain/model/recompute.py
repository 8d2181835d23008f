"""What the blocks keep for their backward, and what they compute again: one level a block."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from hpctrain.model.blocks import Activations
from hpctrain.model.config import RecomputeLevel
from hpctrain.model.lora import is_block
from hpctrain.model.transformer import Layer

_PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::_scaled_mm"})
"""Not bmm: it is the S x S scores of eager attention, whose results are what one does not want to keep."""
_Kept = deque[tuple[str, Any]]


def recompute_layers(layers: Sequence[Layer], levels: Sequence[RecomputeLevel]) -> list[Layer]:
    """The same list with its blocks, first to last, at these levels. Gradients stay as they are, bit for bit.

    keep: all that autograd saves stays. cheap: the block's input and the results of its products and of its
    attention stay, the rest (norms, rotation, SwiGLU) is computed again in the backward. all: only the input
    stays (Chen et al., arXiv 1604.06174). An attention that is compiled itself (flex) is not kept by cheap.
    """
    blocks = [layer.name for layer in layers if is_block(layer.name)]
    if len(levels) != len(blocks):
        raise ValueError(f"{len(levels)} levels for {len(blocks)} blocks")
    forwards = {"keep": None, "cheap": partial(_run, True), "all": partial(_run, False)}
    chosen = dict(zip(blocks, levels, strict=True))
    return [
        replace(layer, forward=forwards[chosen[layer.name]]) if layer.name in chosen else layer
        for layer in layers
    ]


def _run(is_selective: bool, block: nn.Module, state: Activations) -> Any:
    if not torch.is_grad_enabled():
        return block(state)

    def forward(hidden: Tensor, positions: Tensor, boundaries: Tensor) -> Any:
        return block(Activations(hidden, positions, boundaries))

    if is_selective:
        return checkpoint(forward, *state, use_reentrant=False, context_fn=_contexts)
    return checkpoint(forward, *state, use_reentrant=False)


def _contexts() -> tuple[TorchDispatchMode, TorchDispatchMode]:
    kept: _Kept = deque()
    return _Keep(kept), _Reuse(kept)


# torch's own create_selective_checkpoint_contexts wants forward and recomputation to run the same operations,
# one by one. Under ZeRO 3 they do not: weights are gathered ahead of the one and not of the other.


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operations of one block's forward."""

    def __init__(self, kept: _Kept) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept = kept

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """An attention that is compiled stays so inside."""
        return True


class _Keep(_Mode):
    """Keeps what products and attention give, in their order."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if _is_dear(operation.name()):
            self.kept.append((operation.name(), tree_map_only(Tensor, Tensor.detach, result)))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self.kept:  # the last one is only added to the residual stream, and no backward needs it for that
            name, _ = self.kept.pop()
            self.kept.append((name, None))


class _Reuse(_Mode):  # type: ignore[no-untyped-call]
    """Gives them back, in their order, instead of computing them again."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _is_dear(operation.name()):
            return operation(*args, **(kwargs or {}))
        if not self.kept or self.kept[0][0] != operation.name():
            raise RuntimeError(f"{operation.name()} was not run at this point of the block's forward")
        _, result = self.kept.popleft()
        return operation(*args, **(kwargs or {})) if result is None else result


def _is_dear(name: str) -> bool:
    return name in _PRODUCTS or "_attention" in name or "varlen_attn" in name
