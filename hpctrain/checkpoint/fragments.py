"""What an optimizer keeps of the fragments that a rank owns, as 1-D tensors with a name each.

A fragment's tensors are the same for every ZeRO stage, world size and pipeline, so any layout can read any
other's checkpoint. DeepSpeed's internals are read here and in engine/fragments.py (version pinned in
pyproject.toml).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpctrain.engine.base import Engine
from hpctrain.engine.fragments import Fragment, is_zero3
from hpctrain.engine.muon import Muon

_MOMENTS = ("exp_avg", "exp_avg_sq")


def fragment_tensors(engine: Engine, fragment: Fragment) -> dict[str, Tensor]:
    """The 1-D views of a fragment, by kind: `weight` (fp32 master), and the moments that its optimizer keeps.

    They are `exp_avg` and `exp_avg_sq` of what AdamW updates, `momentum` of what Muon does.
    """
    optimizer = engine.deepspeed.optimizer.optimizer
    state, weight = optimizer_state(engine, fragment.flat), fragment.flat.detach()[fragment.span]
    if isinstance(optimizer, Muon):
        return {"weight": weight, **optimizer.moments(fragment.flat, fragment.span)}
    return {"weight": weight, **{kind: state[kind][fragment.span] for kind in _MOMENTS}}


def step_count(engine: Engine, fragment: Fragment) -> Tensor:
    """The number of updates that the fragment's flat tensor has had, a scalar to read or to fill."""
    return optimizer_state(engine, fragment.flat)["step"]


def optimizer_state(engine: Engine, flat: Tensor) -> dict[str, Tensor]:
    """What the optimizer keeps of a flat tensor; made of zeros before the first step."""
    optimizer = engine.deepspeed.optimizer.optimizer
    if isinstance(optimizer, Muon):
        return optimizer.state_of(flat)
    state: dict[str, Tensor] = optimizer.state[flat]
    if "exp_avg" not in state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(flat), torch.zeros_like(flat)
    return state


def publish_master_weights(engine: Engine, step: int, samples: int) -> None:
    """After fragments were overwritten: refresh the live weights and DeepSpeed's counters; collective."""
    deepspeed_engine, optimizer = engine.deepspeed, engine.deepspeed.optimizer
    if is_zero3(optimizer):
        for group in range(len(optimizer.fp32_partitioned_groups_flat)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
        optimizer.invalidate_secondary_tensor()
    else:
        optimizer.update_lp_params()
        optimizer._hp_optimizer_states_linked = False
    deepspeed_engine.global_steps = step
    deepspeed_engine.global_samples = samples
    deepspeed_engine.micro_steps = step * deepspeed_engine.gradient_accumulation_steps()


def full_shapes(engine: Engine) -> dict[str, list[int]]:
    """The whole shape of each of this rank's trained parameters, also where ZeRO-3 has partitioned it."""
    return {
        name: list(getattr(parameter, "ds_shape", parameter.shape))
        for name, parameter in engine.named_parameters().items()
        if parameter.requires_grad
    }
