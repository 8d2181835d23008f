"""The layer list cut into pipeline stages, with ZeRO-1 inside each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from torch import Tensor, nn

from hpctrain.engine.base import StepResult
from hpctrain.loader.batches import Batch
from hpctrain.model.loss import Output
from hpctrain.model.transformer import Layer, Loss
from hpctrain.parallel.topology import Topology, split_model


class LayerPipeline(PipelineModule):  # type: ignore[misc]
    """DeepSpeed's pipeline over our layer list, cut by our own arithmetic; builds nothing twice."""

    def __init__(self, layers: Sequence[Layer], costs: Sequence[int], stages: int, loss: Loss) -> None:
        self.costs = costs
        self.trains_head = not layers[-1].is_frozen
        super().__init__(
            [_spec(layer, layers) for layer in layers],
            num_stages=stages,
            loss_fn=loss,
        )
        here = layers[self.parts[self.stage_id] : self.parts[self.stage_id + 1]]
        for place, layer in enumerate(here):  # DeepSpeed itself heeds a forward of shared layers only
            if layer.forward is not None and not (layer.shares or layer.is_frozen):
                self.forward_funcs[place] = partial(layer.forward, self.forward_funcs[place])

    def _partition_layers(self, method: str = "") -> None:
        self.parts = split_model(self.costs, self.num_stages, head_apart=self.trains_head)
        self._set_bounds(start=self.parts[self.stage_id], stop=self.parts[self.stage_id + 1])

    def forward(self, inputs: Any) -> Any:
        """One stage, for DeepSpeed."""
        state = super().forward(inputs)
        return Output(*_Together.apply(*state)) if isinstance(state, Output) else state  # type: ignore[no-untyped-call]


class _Together(torch.autograd.Function):
    """Lets no gradient pass before DeepSpeed was told of the backward, by a hook on what a stage gives.

    In bf16 it then zeroes gradients: the head's, which goes straight to its weight, would come before.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return hidden.view_as(hidden), weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients


def _spec(layer: Layer, layers: Sequence[Layer]) -> LayerSpec:
    if layer.is_frozen:  # copies that never change need not be kept equal, and have no gradients to sum
        return _Spec(partial(_Frozen, layer))
    shared = {other.shares for other in layers if other.shares}
    if layer.shares or layer.name in shared:
        return _TiedSpec(layer.shares or layer.name, layer.build, layer.forward)
    return _Spec(layer.build)


class _Spec(LayerSpec):  # type: ignore[misc]
    """A layer that DeepSpeed builds on its stage only."""

    def __init__(self, builder: Callable[[], nn.Module]) -> None:
        super().__init__(nn.Module)
        self.builder = builder

    def build(self, log: bool = False) -> nn.Module:
        return self.builder()


class _Frozen(nn.Module):
    """A layer that is not trained, in a module of its own on each stage that runs it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.inner, self.run = layer.build(), layer.forward

    def forward(self, state: Any) -> Any:
        return self.run(self.inner, state) if self.run is not None else self.inner(state)


class _TiedSpec(TiedLayerSpec):  # type: ignore[misc]
    """A layer whose weight lives on several stages, kept equal by DeepSpeed."""

    def __init__(
        self, key: str, builder: Callable[[], nn.Module], forward: Callable[..., Any] | None
    ) -> None:
        super().__init__(key, nn.Module, forward_fn=forward)
        self.builder = builder

    def build(self, log: bool = False) -> nn.Module:
        return self.builder()


class PipelineEngine:
    """DeepSpeed's 1F1B schedule (Narayanan et al., arXiv 1806.03377) over the layer list."""

    def __init__(self, deepspeed_engine: Any, topology: Topology, layers: Sequence[Layer]) -> None:
        self.deepspeed, self.topology = deepspeed_engine, topology
        self.layer_names = [layer.name for layer in layers]

    def train_step(self, micro_batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """One optimizer step over this pipeline's micro-batches; see `Engine`."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self.deepspeed.train_batch(_feed(micro_batches))
        return StepResult(float(loss), float(self.deepspeed.get_global_grad_norm()))

    def eval_step(self, micro_batches: Sequence[Batch]) -> float:
        """Mean loss without an update; see `Engine`."""
        loss = self.deepspeed.eval_batch(_feed(micro_batches), num_micro_batches=len(micro_batches))
        self.deepspeed.train()
        return float(loss)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """This stage's parameters by layer name; see `Engine`."""
        return {
            self._layout_free(name): parameter for name, parameter in self.deepspeed.module.named_parameters()
        }

    def _layout_free(self, name: str) -> str:
        """`3.mlp.up.weight` -> `block_2.mlp.up.weight`, and `tied_modules.` is dropped."""
        first, rest = name.split(".", 1)
        return rest if first == "tied_modules" else f"{self.layer_names[int(first)]}.{rest}"


def _feed(micro_batches: Sequence[Batch]) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Micro-batches in the shape that DeepSpeed's pipeline takes: (inputs, labels)."""
    return (((batch.tokens, batch.boundaries), batch.targets) for batch in micro_batches)
