"""Muon and AdamW over whole parameters in one process: the truth that engine/muon.py is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.orthogonal import orthogonalize, update_scale, working_dtype


class PlainMuon(torch.optim.Optimizer):
    """Muon for `matrices`, and torch's AdamW for what else is in the groups."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], matrices: Iterable[Tensor], config: OptimizerConfig
    ) -> None:
        super().__init__(groups, {"lr": config.learning_rate})
        self.matrices, self.momentum = set(matrices), config.momentum
        rest = [
            {**group, "params": [each for each in group["params"] if each not in self.matrices]}
            for group in groups
        ]
        self.adamw = torch.optim.AdamW(
            rest, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter by its gradient."""
        assert closure is None
        for group, rest in zip(self.param_groups, self.adamw.param_groups, strict=True):
            rest["lr"] = group["lr"]
            for weight in group["params"]:
                if weight in self.matrices:
                    self._step_matrix(weight, group["lr"], group["weight_decay"])
        self.adamw.step()

    def _step_matrix(self, weight: Tensor, learning_rate: float, decay: float) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"] = self.momentum * state["momentum"] + (1 - self.momentum) * gradient
        update = self.momentum * state["momentum"] + (1 - self.momentum) * gradient
        direction = orthogonalize(update.to(working_dtype(weight.device))).to(weight.dtype)
        weight -= learning_rate * (decay * weight + update_scale(weight.shape) * direction)
