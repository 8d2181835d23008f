"""The optimizer over a model's trained parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.muon import Muon
from hpctrain.engine.plain_muon import PlainMuon
from hpctrain.model.blocks import Block


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer to give to DeepSpeed; Muon wants to be attached to what that makes of it.

    Its groups are matrices, with decay, and the rest, without, whatever its kind: where a pipeline's stage
    had fewer groups than another, DeepSpeed would hang.
    """
    if config.kind == "adamw":
        return _make_adamw(model, config)
    return Muon(_groups(model, config), _block_matrices(model), config)


def make_plain_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The same optimizer for whole parameters in one process."""
    if config.kind == "adamw":
        return _make_adamw(model, config)
    return PlainMuon(_groups(model, config), _block_matrices(model), config)


def _make_adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        _groups(model, config),
        lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True,
    )  # fmt: skip


def _groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Matrices with decay, those that are Muon's first, and the rest without; an empty group is left out."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    first = set(_block_matrices(model)) if config.kind == "muon" else set()
    matrices = sorted((p for p in parameters if p.dim() >= 2), key=lambda p: p not in first)
    rest = [p for p in parameters if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _block_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained matrices of the blocks, without embedding and head."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    return [p for block in blocks for p in block.parameters() if p.requires_grad and p.dim() == 2]
