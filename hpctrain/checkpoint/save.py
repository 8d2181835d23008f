"""Write a checkpoint: each rank its own fragments, then one manifest that makes them count."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import save_file

from hpctrain.checkpoint.fragments import STATE_KINDS, Fragment, full_shapes, optimizer_state, owned_fragments
from hpctrain.config import Section
from hpctrain.engine.base import Engine
from hpctrain.errors import CheckpointError
from hpctrain.manifest import commit, seal_file, sync_directory
from hpctrain.parallel.process import raise_together

CHECKPOINT_KIND = "checkpoint"
CHECKPOINT_FORMAT = 1


class CheckpointConfig(Section):
    """When to save and what to keep."""

    every_steps: int = Field(default=500, ge=1)
    """Steps from one save to the next; the last step is always saved."""
    keep: int = Field(default=3, ge=1)
    """Number of newest checkpoints that stay."""
    start_anew: bool = False
    """Begin at step 0 although the run has saved before and nothing whole is left."""


class RunState(Section):
    """Where a run stands; with the fragments, everything that a restart needs."""

    step: int
    """Optimizer steps done."""
    samples: int
    """Samples consumed: the loader's whole state."""
    tokens: int
    """Tokens consumed."""


def checkpoint_name(step: int) -> str:
    """The directory name of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def fragment_key(parameter: str, kind: str, start: int, stop: int) -> str:
    """The tensor name of a fragment in its file: it carries the range, so no other map is needed."""
    return f"{parameter}|{kind}|{start}|{stop}"


def save_checkpoint(engine: Engine, directory: Path, state: RunState, identity: dict[str, str]) -> float:
    """Save under `directory` (the run's checkpoints); returns the seconds it took. A collective call.

    `identity`: fingerprints of what the run must not change; kept as the manifest's inputs. Raises
    CheckpointError on every rank if one rank could not write; what was saved before stays loadable.
    """
    began = time.monotonic()
    final = directory / checkpoint_name(state.step)
    partial = directory / f".{final.name}.partial"
    problem = _prepare(partial, final) if engine.topology.rank == 0 else None
    _raise_together(problem)
    name = f"rank-{engine.topology.rank:05d}.safetensors"
    record, problem = None, None
    try:
        save_file(_host_tensors(engine), partial / name)
        record = seal_file(partial / name)
    except (OSError, SafetensorError) as reason:
        problem = f"{partial / name}: {reason}"
    mine = (
        name,
        record,
        full_shapes(engine),
        sum(fragment.elements for fragment in _saved_fragments(engine)),
    )
    gathered: list[Any] = [None] * engine.topology.world_size
    _raise_together(problem)
    torch.distributed.all_gather_object(gathered, mine)
    problem = None
    if engine.topology.rank == 0:
        problem = _commit(partial, final, gathered, state, identity, engine)
    _raise_together(problem)
    return time.monotonic() - began


def _prepare(partial: Path, final: Path) -> str | None:
    try:
        shutil.rmtree(partial, ignore_errors=True)
        if final.exists():
            shutil.rmtree(final)  # one that a restore has just found damaged
        partial.mkdir(parents=True)
    except OSError as reason:
        return f"{partial}: {reason.strerror}"
    return None


def _host_tensors(engine: Engine) -> dict[str, torch.Tensor]:
    """This rank's fragments as contiguous host tensors by key, with the optimizer's step."""
    tensors = {}
    for fragment in _saved_fragments(engine):
        state = optimizer_state(engine, fragment.flat)
        for kind in STATE_KINDS:
            key = fragment_key(fragment.parameter, kind, fragment.start, fragment.start + fragment.elements)
            tensors[key] = fragment.view(state, kind).cpu().clone()
    return tensors


def _saved_fragments(engine: Engine) -> list[Fragment]:
    return [fragment for fragment in owned_fragments(engine) if not fragment.is_replica]


def _commit(
    partial: Path, final: Path, gathered: list[Any], state: RunState, identity: dict[str, str], engine: Engine
) -> str | None:
    """Check that the fragments cover the model exactly once, write the manifest, publish by a rename."""
    shapes: dict[str, list[int]] = {}
    for _, _, rank_shapes, _ in gathered:
        shapes.update(rank_shapes)
    expected = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
    written = sum(elements for *_, elements in gathered)
    if written != expected:
        return f"{partial}: fragments hold {written} elements, the model has {expected}; this is a defect"
    try:
        commit(
            partial, CHECKPOINT_KIND, CHECKPOINT_FORMAT, inputs=identity,
            counts={**state.model_dump(), "parameters": expected},
            details={
                "shapes": shapes,
                "layout": {
                    "world_size": engine.topology.world_size,
                    "pipeline_stages": engine.topology.pipeline_stages,
                    "zero_stage": int(engine.deepspeed.zero_optimization_stage()),
                },
            },
            files={name: record for name, record, *_ in gathered},
        )  # fmt: skip
        partial.rename(final)
        sync_directory(final.parent)
    except OSError as reason:
        return f"{partial}: {reason.strerror}"
    return None


def _raise_together(problem: str | None) -> None:
    kept = "the checkpoint could not be saved; the one before it is untouched"
    raise_together(CheckpointError(f"{kept}\n{problem}") if problem else None)
