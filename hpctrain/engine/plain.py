"""The training step in plain PyTorch, in one process: the truth the engines are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpctrain.engine.base import OptimizerConfig, Precision, StepResult
from hpctrain.engine.optimizer import make_plain_optimizer
from hpctrain.loader.batches import Batch
from hpctrain.model.loss import plain_next_token_loss
from hpctrain.model.transformer import Layer, Transformer


class PlainEngine:
    """No sharding, no pipeline, no DeepSpeed: one model, fp32 master weights, one optimizer."""

    def __init__(
        self,
        layers: Sequence[Layer],
        optimizer: OptimizerConfig,
        device: torch.device,
        precision: Precision,
        counted_share: float = 1.0,
    ) -> None:
        self.master = Transformer(layers).to(device)
        self.live = self.master if precision == "fp32" else Transformer(layers).to(device, torch.bfloat16)
        self.optimizer = make_plain_optimizer(self.master, optimizer)
        self.clip_norm, self.device, self.counted_share = optimizer.clip_norm, device, counted_share

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """One step over a whole global batch; gradients are summed in fp32, then clipped."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        sums = [torch.zeros_like(weight) for weight in _trained(self.master)]
        loss = 0.0
        for batch in micro_batches:
            loss += self._backward(batch) / len(micro_batches)
            for total, weight in zip(sums, _trained(self.live), strict=True):
                assert weight.grad is not None
                total += weight.grad.float() / len(micro_batches)
                weight.grad = None
        # In fp64: torch's own fp32 norm on CPUs is off by half a percent for a million elements.
        norm = float(torch.stack([total.double().square().sum() for total in sums]).sum().sqrt())
        for weight, total in zip(_trained(self.master), sums, strict=True):
            weight.grad = total * min(1.0, self.clip_norm / (norm + 1e-6))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._refresh_live()
        return StepResult(loss, norm)

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by layout-free name."""
        return {name: weight.detach() for name, weight in self.master.named_parameters()}

    def _backward(self, batch: Batch) -> float:
        tokens, targets, boundaries = (tensor.to(self.device) for tensor in batch)
        loss = plain_next_token_loss(self.live(tokens, boundaries), targets, self.counted_share)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _refresh_live(self) -> None:
        if self.live is not self.master:
            with torch.no_grad():
                for live, master in zip(self.live.parameters(), self.master.parameters(), strict=True):
                    live.copy_(master)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
