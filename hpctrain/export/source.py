"""What an export is made from: a run's newest whole checkpoint, read one weight at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpctrain.checkpoint.restore import Whole, newest_whole
from hpctrain.checkpoint.weights import Weights
from hpctrain.config import load_config
from hpctrain.errors import CheckpointError, DataError
from hpctrain.model.attention import choose_attention
from hpctrain.model.transformer import Layer, build_layers, parameter_shapes
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.config import RunConfig
from hpctrain.train.rundir import CHECKPOINTS_NAME, CONFIG_NAME
from hpctrain.train.weights import open_weights

Stored = Callable[[str, Tensor], Tensor]
"""(our name, fp32 weight) -> the fp32 values that an exported file holds."""


@dataclass(frozen=True)
class Source:
    """A trained model that is not in memory."""

    run: Path
    config: RunConfig
    tokenizer: Tokenizer
    whole: Whole
    weights: Weights
    """Of a LoRA run with the adapters merged into the base."""
    layers: list[Layer]
    shapes: Mapping[str, torch.Size]
    """Each weight's name and shape, in the order of the model."""

    @property
    def context(self) -> int:
        """Positions that the model was trained for."""
        return self.config.data.sequence_length

    @property
    def parameters(self) -> int:
        """Number of parameters, the tied embedding counted once."""
        return sum(shape.numel() for shape in self.shapes.values())

    def logits(self, tokens: list[int], stored: Stored) -> Tensor:
        """Logits [S,vocabulary] of one sequence in fp32, in the memory of one layer."""
        state: Any = (torch.tensor([tokens]), torch.tensor([0, len(tokens)], dtype=torch.int32))
        with torch.no_grad():
            for layer in self.layers:
                module = self._load(layer, stored)
                state = layer.forward(module, state) if layer.forward is not None else module(state)
        logits: Tensor = state.logits()[0]
        return logits

    def _load(self, layer: Layer, stored: Stored) -> nn.Module:
        with torch.device("meta"):
            module = layer.build()
        weights = {}
        for name, _ in module.named_parameters():
            full = f"{layer.shares or layer.name}.{name}"
            weights[name] = stored(full, self.weights.read(full))
        module.load_state_dict(weights, strict=False, assign=True)
        return module.eval()


@contextmanager
def open_source(run: Path) -> Iterator[Source]:
    """Open a run's newest whole checkpoint; its files are closed at the end.

    Raises DataError if the directory is not a run's, CheckpointError if no checkpoint is whole, the base of
    its adapters is gone, or the checkpoint is of another model than the run's config says.
    """
    if not (run / CONFIG_NAME).is_file():
        raise DataError(f"{run}: not a run directory (no {CONFIG_NAME})")
    config = load_config(run / CONFIG_NAME, [], RunConfig)
    tokenizer = Tokenizer.load(run / TOKENIZER_DIRECTORY)
    whole = newest_whole(run / CHECKPOINTS_NAME, may_start_anew=False)
    if whole is None:
        raise CheckpointError(f"{run}: has no checkpoint yet")
    attention = choose_attention("auto", "cpu", "fp32")
    layers = build_layers(config.model, tokenizer.vocab_size, config.run.seed, attention)
    shapes = parameter_shapes(layers)
    with open_weights(run, whole) as weights:
        differing = {
            name for name in {*shapes, *weights.shapes} if shapes.get(name) != weights.shapes.get(name)
        }
        if differing:
            raise CheckpointError(
                f"{whole.directory}: does not fit the model of {CONFIG_NAME}: {', '.join(sorted(differing))}"
            )
        yield Source(run, config, tokenizer, whole, weights, layers, shapes)
