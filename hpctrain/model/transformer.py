"""The model as one ordered list of layers; every engine runs this list and no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from hpctrain.model.attention import Attention
from hpctrain.model.blocks import Block, Embedding, FinalNorm, Head
from hpctrain.model.config import ModelConfig
from hpctrain.model.loss import Output, next_token_loss


@dataclass(frozen=True)
class Layer:
    """One entry of the layer list. Its parameters are named `name.…` under every layout."""

    name: str
    build: Callable[[], nn.Module]
    """Makes the module with its initial weights."""
    shares: str | None = None
    """Name of an earlier layer whose module is used again here, instead of building one."""
    forward: Callable[[nn.Module, Any], Any] | None = None
    """How to run the module, where not by calling it."""
    is_frozen: bool = False
    """Whether none of its parameters is trained."""


def build_layers(config: ModelConfig, vocab_size: int, seed: int, attention: Attention) -> list[Layer]:
    """The decoder: embedding, blocks, final norm, head.

    Initial weights depend on the seed and the parameter's name only, so every layout starts from the same.
    """

    def layer(name: str, module: Callable[[], nn.Module]) -> Layer:
        return Layer(name, partial(_initialized, module, name, config, seed))

    embedding = layer("embedding", partial(Embedding, config, vocab_size))
    blocks = [layer(f"block_{i}", partial(Block, config, attention)) for i in range(config.layers)]
    norm = layer("norm", partial(FinalNorm, config.hidden_size, config.norm_epsilon))
    if config.tied:
        head = Layer("head", embedding.build, shares="embedding", forward=tied_head)
    else:
        head = layer("head", partial(Head, config, vocab_size))
    return [embedding, *blocks, norm, head]


def parameter_shapes(layers: Sequence[Layer]) -> dict[str, torch.Size]:
    """Name and shape of every parameter of a layer list, in order; nothing is allocated."""
    with torch.device("meta"):
        return {
            f"{layer.name}.{name}": parameter.shape
            for layer in layers
            if layer.shares is None
            for name, parameter in layer.build().named_parameters()
        }


def tied_head(embedding: nn.Module, activations: Any) -> Output:
    """Run the embedding as the output head."""
    assert isinstance(embedding, Embedding)
    return embedding.output(activations)


def _initialized(build: Callable[[], nn.Module], name: str, config: ModelConfig, seed: int) -> nn.Module:
    """Build a layer and draw its weights: normal for matrices, residual outputs narrower, norms at one."""
    module = build()
    for parameter_name, parameter in module.named_parameters():
        if parameter.dim() < 2:
            continue
        is_residual_output = parameter_name in ("attention.output.weight", "mlp.down.weight")
        narrowing = (2 * config.layers) ** -0.5 if is_residual_output else 1.0
        key = xxhash.xxh3_64_intdigest(f"{seed}/{name}.{parameter_name}".encode()) >> 1
        generator = torch.Generator().manual_seed(key)
        with torch.no_grad():
            parameter.normal_(0.0, config.initial_deviation * narrowing, generator=generator)
    return module


Loss = Callable[[Output, Tensor], Tensor]
"""(what the head gives, targets [B,S]) -> a scalar, as `next_token_loss`."""


class Transformer(nn.Module):
    """The layer list run in sequence: (tokens [B,S], boundaries [M]) -> logits [B,S,vocabulary].

    Given targets [B,S] too, it returns their loss instead: the head's weight may be gone afterwards, where
    ZeRO-3 has gathered it for the forward.
    """

    def __init__(self, layers: Sequence[Layer], loss: Loss = next_token_loss) -> None:
        super().__init__()
        self.layers, self.loss = list(layers), loss
        for layer in layers:
            if layer.shares is None:
                self.add_module(layer.name, layer.build())

    def forward(self, tokens: Tensor, boundaries: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits, or the loss."""
        state: Any = (tokens, boundaries)
        for layer in self.layers:
            module = self.get_submodule(layer.shares or layer.name)
            state = module(state) if layer.forward is None else layer.forward(module, state)
        assert isinstance(state, Output)
        return state.logits() if targets is None else self.loss(state, targets)
