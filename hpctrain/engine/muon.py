"""Muon for the matrices of the blocks and AdamW for the rest, in one optimizer over DeepSpeed's flat tensors.

DeepSpeed's own Muon clips after it orthogonalizes, and what it orthogonalizes depends on the layout. This
one is given clipped gradients, as AdamW is, and orthogonalizes whole matrices in every layout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.exchange import Exchange, Share
from hpctrain.engine.fragments import Piece, pieces


@dataclass(frozen=True)
class _Part:
    """How a flat tensor is divided: Muon's ranges come before AdamW's."""

    boundary: int
    """Where AdamW's begin."""
    exchange: Exchange


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024; Liu et al., arXiv 2502.16982) beside AdamW (arXiv 1711.05101).

    Both decay the weights of a group by its `weight_decay`, decoupled. The state of a flat tensor: `step`,
    `momentum` of Muon's elements, `exp_avg` and `exp_avg_sq` of AdamW's.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], matrices: Iterable[Tensor], config: OptimizerConfig
    ) -> None:
        """`matrices`: those that Muon updates; in each of the `groups` they stand before all others."""
        defaults = {
            "lr": config.learning_rate,
            "betas": (config.beta1, config.beta2),
            "eps": config.epsilon,
            "momentum": config.momentum,
        }
        super().__init__(groups, defaults)
        self.shapes = {matrix: (matrix.shape[0], matrix.shape[1]) for matrix in matrices}
        self.parts: dict[Tensor, _Part] = {}

    def attach(self, deepspeed_optimizer: Any) -> None:
        """Learn what lies where, once DeepSpeed has cut the parameters; a collective call."""
        group = deepspeed_optimizer.dp_process_group
        rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
        by_flat: dict[Tensor, list[Piece]] = defaultdict(list)
        for piece in pieces(deepspeed_optimizer):
            by_flat[piece.flat].append(piece)
        for flat, here in by_flat.items():
            matrices = [piece for piece in here if piece.parameter in self.shapes]
            others = [piece for piece in here if piece.parameter not in self.shapes and piece.elements]
            boundary = max((piece.offset + piece.elements for piece in matrices), default=0)
            assert all(piece.offset >= boundary for piece in others)
            shares = [
                Share(self.shapes[piece.parameter], piece.start, piece.offset, piece.elements)
                for piece in matrices
            ]
            self.parts[flat] = _Part(boundary, Exchange(shares, group, rank, size, flat.device))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the flat tensors of `param_groups` by their gradients; a collective call."""
        assert closure is None
        for group in self.param_groups:
            for flat in group["params"]:
                self._step_matrices(flat, group)
                self._step_rest(flat, group)

    def state_of(self, flat: Tensor) -> dict[str, Tensor]:
        """The state of a flat tensor; made of zeros before its first step."""
        state: dict[str, Tensor] = self.state[flat]
        if not state:
            boundary = self.parts[flat].boundary
            state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
            state["momentum"] = torch.zeros_like(flat[:boundary])
            state["exp_avg"] = torch.zeros_like(flat[boundary:])
            state["exp_avg_sq"] = torch.zeros_like(flat[boundary:])
        return state

    def moments(self, flat: Tensor, span: slice) -> dict[str, Tensor]:
        """The 1-D views, by name, of what is kept of a range that is all Muon's or all AdamW's."""
        state, boundary = self.state_of(flat), self.parts[flat].boundary
        if span.start < boundary:
            return {"momentum": state["momentum"][span]}
        own = slice(span.start - boundary, span.stop - boundary)
        return {kind: state[kind][own] for kind in ("exp_avg", "exp_avg_sq")}

    def _step_matrices(self, flat: Tensor, group: dict[str, Any]) -> None:
        part, momentum = self.parts[flat], self.state_of(flat)["momentum"]
        assert flat.grad is not None
        gradient, weights = flat.grad[: part.boundary], flat[: part.boundary]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"])  # Nesterov's
        part.exchange.orthogonalize(update)
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.sub_(update, alpha=group["lr"])

    def _step_rest(self, flat: Tensor, group: dict[str, Any]) -> None:
        boundary, state = self.parts[flat].boundary, self.state_of(flat)
        assert flat.grad is not None
        if boundary == flat.numel():
            state["step"] += 1
            return
        beta1, beta2 = group["betas"]
        adamw(
            [flat[boundary:]], [flat.grad[boundary:]], [state["exp_avg"]], [state["exp_avg_sq"]], [],
            [state["step"]], fused=True, amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"],
            weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip
