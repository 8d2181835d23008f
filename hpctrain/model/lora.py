"""Low-rank adapters on the layer list: the base frozen, the adapters trained, both merged again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import xxhash
from torch import Tensor, nn

from hpctrain.model.adapter import AdapterConfig
from hpctrain.model.blocks import Block
from hpctrain.model.quiet import quiet_imports
from hpctrain.model.transformer import Layer

Fill = Callable[[str, Tensor], None]
"""Overwrites a tensor with the weight of that name, such as `block_0.mlp.up.weight`."""


def adapt_layers(layers: Sequence[Layer], adapter: AdapterConfig, seed: int, fill: Fill) -> list[Layer]:
    """The same list with adapters in its blocks; `fill` gives the weights of everything else, frozen.

    An adapter begins as nothing. Its first matrix is drawn by the seed and the parameter's name, so every
    layout starts from the same.
    """
    return [
        replace(
            layer, build=partial(_adapted, layer, adapter, seed, fill), is_frozen=not is_block(layer.name)
        )
        for layer in layers
    ]


def is_block(layer: str) -> bool:
    """Whether the layer of this name gets adapters."""
    return layer.startswith("block_")


def _adapted(layer: Layer, adapter: AdapterConfig, seed: int, fill: Fill) -> nn.Module:
    module = layer.build().requires_grad_(False)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fill(f"{layer.shares or layer.name}.{name}", parameter)
    if not isinstance(module, Block):
        return module
    with quiet_imports():
        from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(
        LoraConfig(
            r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout,
            target_modules=list(adapter.targets), bias="none",
        ),
        module,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                _draw(parameter, f"{seed}/{layer.name}.{name}")
    return module


def _draw(parameter: Tensor, key: str) -> None:
    """As PEFT draws them, but by a key: uniform for the first matrix, zero for the second."""
    if ".lora_B." in key:
        parameter.zero_()
        return
    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(key.encode()) >> 1)
    nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)


def adapter_names(weight: str) -> tuple[str, str]:
    """The names of the two matrices that change the weight of this name, where it has an adapter."""
    stem = weight.removesuffix(".weight")
    return f"{stem}.lora_A.default.weight", f"{stem}.lora_B.default.weight"


def adapted_weight(name: str) -> str:
    """The name of the weight that an adapter's matrix changes: `block_0.mlp.up.weight`."""
    return f"{name.partition('.lora_')[0]}.weight"


def merge(weight: Tensor, first: Tensor, second: Tensor, scale: float) -> Tensor:
    """What weight [O,I] becomes with an adapter of first [R,I] and second [O,R]."""
    return weight + scale * (second @ first)
