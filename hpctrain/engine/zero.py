"""The layer list in sequence on every rank, optimizer, gradients and weights sharded by ZeRO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hpctrain.engine.base import StepResult
from hpctrain.loader.batches import Batch
from hpctrain.model.transformer import Transformer
from hpctrain.parallel.topology import Topology


class ZeroEngine:
    """ZeRO 1, 2 and 3 (Rajbhandari et al., arXiv 1910.02054) through DeepSpeed."""

    def __init__(self, deepspeed_engine: Any, topology: Topology, device: torch.device) -> None:
        self.deepspeed, self.topology, self.device = deepspeed_engine, topology, device

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """One optimizer step over this rank's micro-batches; see `Engine`."""
        engine = self.deepspeed
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        total = torch.zeros((), device=self.device)
        for batch in micro_batches:
            loss = self._loss(batch)
            engine.backward(loss)
            engine.step()
            total += loss.detach()
        mean = self._mean_over_ranks(total / len(micro_batches))
        return StepResult(mean, float(engine.get_global_grad_norm()))

    def eval_step(self, micro_batches: Sequence[Batch]) -> float:
        """Mean loss without an update; see `Engine`."""
        self.deepspeed.eval()
        with torch.no_grad():
            total = sum((self._loss(batch) for batch in micro_batches), torch.zeros((), device=self.device))
        self.deepspeed.train()
        return self._mean_over_ranks(total / len(micro_batches))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by layer name; see `Engine`."""
        model = self.deepspeed.module
        assert isinstance(model, Transformer)
        return dict(model.named_parameters())

    def _loss(self, batch: Batch) -> torch.Tensor:
        tokens, targets, boundaries = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        loss: torch.Tensor = self.deepspeed(tokens, boundaries, targets)
        return loss

    def _mean_over_ranks(self, value: torch.Tensor) -> float:
        value = value.double()  # summed in fp64, so that the order of ranks cannot show
        torch.distributed.all_reduce(value)
        return float(value) / self.topology.world_size
