"""The layer list cut into pipeline stages, with ZeRO-1 inside each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from deepspeed.pipe import LayerSpec, PipelineModule, TiedLayerSpec
from torch import Tensor, nn

from hpctrain.engine.base import StepResult
from hpctrain.loader.batches import Batch
from hpctrain.model.blocks import Block
from hpctrain.model.transformer import Layer, Loss
from hpctrain.parallel.topology import Topology, split_model


class LayerPipeline(PipelineModule):  # type: ignore[misc]
    """DeepSpeed's pipeline over our layer list, cut by our own arithmetic; builds nothing twice."""

    def __init__(
        self, layers: Sequence[Layer], costs: Sequence[int], stages: int, recompute: bool, loss: Loss
    ) -> None:
        self.costs = costs
        self.trains_head = not layers[-1].is_frozen
        super().__init__(
            [_spec(layer, layers) for layer in layers],
            num_stages=stages,
            loss_fn=loss,
            activation_checkpoint_interval=1 if recompute else 0,
            checkpointable_layers=[Block.__name__],
        )

    def _partition_layers(self, method: str = "") -> None:
        self.parts = split_model(self.costs, self.num_stages, head_apart=self.trains_head)
        self._set_bounds(start=self.parts[self.stage_id], stop=self.parts[self.stage_id + 1])


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
