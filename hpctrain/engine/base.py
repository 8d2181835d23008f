"""What a training loop needs of an engine, whichever parallel strategy is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import Field

from hpctrain.config import Section
from hpctrain.parallel.topology import Topology

if TYPE_CHECKING:  # configs are checked on login nodes without torch
    from torch import nn

    from hpctrain.loader.batches import Batch

Precision = Literal["fp32", "bf16", "fp8"]


class OptimizerConfig(Section):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101), alone or beside Muon. Norm weights are not decayed."""

    kind: Literal["adamw", "muon"] = "adamw"
    """adamw, or muon: Muon (Jordan et al. 2024; Liu et al., arXiv 2502.16982) for the matrices of the blocks,
    AdamW for embedding, head, biases and norms."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Peak learning rate; `schedule` shapes it over the run."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Decay of Muon's momentum, which is Nesterov's; AdamW has none."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""


class StepResult(NamedTuple):
    """What one optimizer step tells."""

    loss: float
    """Mean over the global batch, nats per token; the same on every rank."""
    grad_norm: float
    """Global norm before clipping."""


class Engine(Protocol):
    """One rank's part of the model and its optimizer."""

    topology: Topology

    @property
    def deepspeed(self) -> Any:
        """The DeepSpeed engine; only this room and checkpoint/fragments.py look inside."""

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Run this rank's micro-batches of one global batch and update the weights."""

    def eval_step(self, micro_batches: Sequence[Batch]) -> float:
        """Mean loss over all ranks' micro-batches, without an update."""

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """This rank's parameters by names that are the same under every layout."""
