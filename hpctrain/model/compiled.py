"""torch.compile for the blocks of a model: one graph before the attention and one after it, for all blocks.

The compiler fuses what lies between the products (norms, rotation, SwiGLU, residuals) into its own kernels,
forward and backward; Triton's on GPUs, C++ on CPUs. Attention has its own kernels and stays outside.
"""

from __future__ import annotations

import shutil

import torch
from torch import nn

from hpctrain.errors import ConfigError
from hpctrain.model.blocks import Block, FeedForward, RMSNorm, SelfAttention
from hpctrain.progress import say


def choose_compile(asked: bool | None, device: torch.device, is_first_rank: bool) -> bool:
    """Whether blocks are compiled: as asked; where nothing is, on GPUs, if there is what it needs.

    Raises ConfigError if it is asked for and cannot be had.
    """
    if asked is False or (asked is None and device.type != "cuda"):
        return False
    missing = missing_compiler(device)
    if missing is None:
        return True
    if asked:
        raise ConfigError(f"train.compile: {missing}; install it or leave train.compile out")
    if is_first_rank:
        say(f"warning: blocks are not compiled, training is slower: {missing}")
    return False


def missing_compiler(device: torch.device) -> str | None:
    """What torch.compile lacks for a device, or None."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "torch.compile needs Triton for this GPU, which is not installed or does not know it"
        if not any(map(shutil.which, ("cc", "gcc", "clang"))):
            return "Triton needs a C compiler (cc, gcc or clang), none is on PATH"
        return None
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch.compile needs a C++ compiler on CPUs, and finds none"
    return None


_WHOLE = ((Block, "before"), (Block, "after"))
_BETWEEN = ((RMSNorm, "normalize"), (SelfAttention, "rotate_both"), (FeedForward, "activate"))


def compile_blocks(model: nn.Module, gathers_weights: bool = False) -> None:
    """Compile the parts of each block at their first call; every shape must stay as it is then.

    Blocks of one shape share their graphs, and parameters keep their names. `gathers_weights`: ZeRO 3 brings
    each weight when its layer is called, which no graph may span; then only what lies between products is.
    """
    for block in model.modules():
        if not isinstance(block, Block):
            continue
        for module in block.modules():
            for kind, part in _BETWEEN if gathers_weights else _WHOLE:
                if isinstance(module, kind):
                    whole = torch.compile(getattr(module, part), fullgraph=True, dynamic=False)
                    setattr(module, part, whole)
