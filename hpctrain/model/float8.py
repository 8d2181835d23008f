"""fp8 on the layer list: the linear products of the blocks, forward and backward, through torchao.

Weights, activations and gradients are cast before each product, with one scale for a whole tensor by its
largest value at that moment (Micikevicius et al., arXiv 2209.05433). Everything else is as in bf16.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from hpctrain.errors import ConfigError
from hpctrain.model.lora import is_block
from hpctrain.model.quiet import quiet_imports
from hpctrain.model.transformer import Layer

FLOAT8_MULTIPLE = 16
"""What every dimension of an fp8 product must be a multiple of."""
_LEAST_CAPABILITY = (8, 9)  # Ada; Hopper is 9.0
_AMD_CHIPS = ("gfx94", "gfx95")  # MI300 and MI350; an MI250 calls itself 9.0 too, but has no fp8


def float8_layers(layers: Sequence[Layer], settings: Any = None) -> list[Layer]:
    """The same list with the products of its blocks in fp8, where their dimensions allow it.

    Names, shapes and initial weights of all parameters stay. `settings`: a torchao `Float8LinearConfig`,
    its default if none is given. The matrices of adapters are left as they are.
    """
    return [
        replace(layer, build=partial(_in_float8, layer, settings)) if is_block(layer.name) else layer
        for layer in layers
    ]


def _in_float8(layer: Layer, settings: Any) -> nn.Module:
    with quiet_imports():
        from torchao.float8 import convert_to_float8_training
    module: nn.Module = convert_to_float8_training(
        layer.build(), config=settings, module_filter_fn=_is_suited
    )
    return module


def _is_suited(module: nn.Module, name: str) -> bool:
    """Whether a linear product of this name can run in fp8, and should."""
    if not isinstance(module, nn.Linear) or "lora_" in name:
        return False
    return module.in_features % FLOAT8_MULTIPLE == 0 == module.out_features % FLOAT8_MULTIPLE


def products_in_bf16(layers: Sequence[Layer]) -> list[str]:
    """The linear products of the blocks that `float8_layers` leaves in bf16; nothing is allocated."""
    return [name for name, suited in _products(layers).items() if not suited]


def _products(layers: Sequence[Layer]) -> dict[str, bool]:
    """The linear products of the blocks by name, and whether they are suited in all blocks."""
    found: dict[str, bool] = {}
    with torch.device("meta"):
        blocks = [layer.build() for layer in layers if is_block(layer.name)]
    for name, module in (each for block in blocks for each in block.named_modules()):
        if isinstance(module, nn.Linear):
            found[name] = found.get(name, True) and _is_suited(module, name)
    return found


def check_float8(layers: Sequence[Layer], device: torch.device) -> None:
    """Raises ConfigError where this machine, its packages or the model's sizes leave nothing to do in fp8."""
    problems = [*_device_problems(device)]
    if importlib.util.find_spec("torchao") is None:
        problems.append("train.precision: fp8 needs torchao: pip install 'torchao>=0.16'")
    if not any(_products(layers).values()):
        problems.append(
            f"train.precision: fp8 takes sizes that are multiples of {FLOAT8_MULTIPLE}, and no product of "
            "this model has such; choose bf16, or other sizes of model.hidden_size, model.mlp_size and heads"
        )
    if problems:
        raise ConfigError(problems)


def _device_problems(device: torch.device) -> Iterator[str]:
    needs = "train.precision: fp8 needs a GPU of compute capability 8.9 or newer, or an MI300 or newer"
    if device.type != "cuda":
        yield f"{needs}; {platform.node()} trains on a CPU here, in fp32 or bf16"
        return
    chip, capability = torch.cuda.get_device_properties(device), torch.cuda.get_device_capability(device)
    if torch.version.hip is not None:
        has_it, what = chip.gcnArchName.startswith(_AMD_CHIPS), chip.gcnArchName
    else:
        has_it, what = capability >= _LEAST_CAPABILITY, "{}.{}".format(*capability)
    if not has_it:
        rest = "fp32 or bf16" if capability >= (8, 0) else "fp32"
        yield f"{needs}; {platform.node()} has {chip.name} ({what}), which trains in {rest}"
