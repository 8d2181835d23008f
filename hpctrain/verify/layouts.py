"""The certificate: every layout that fits trains the same model, and reads every other's checkpoint.

Each layout trains a few steps of the config's data from the same start as the plain PyTorch loop. What is
compared: loss and gradient norm of each step, and every final weight. Then every layout restores the
checkpoint of every layout, and each tensor it holds must be equal bit for bit.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hpctrain.checkpoint.format import RunState
from hpctrain.checkpoint.fragments import fragment_tensors, step_count
from hpctrain.checkpoint.restore import FragmentFiles, Whole, examine, restore
from hpctrain.checkpoint.save import save_checkpoint
from hpctrain.engine.base import Engine, StepResult
from hpctrain.engine.fragments import owned_fragments
from hpctrain.engine.plain import PlainEngine
from hpctrain.errors import CheckpointError
from hpctrain.manifest import Manifest
from hpctrain.model.config import ModelConfig
from hpctrain.parallel.process import ALONE, Gang, process_group
from hpctrain.parallel.topology import ParallelConfig, Topology, accumulation_steps, layout_problems
from hpctrain.parallel.world import World
from hpctrain.progress import say
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.beginning import find_base
from hpctrain.train.config import RunConfig, settle
from hpctrain.train.data import counted_share, open_data
from hpctrain.train.run import build, run_layers
from hpctrain.train.schedule import learning_rate_at

TOLERANCES = {"fp32": 1e-5, "bf16": 5e-3, "fp8": 5e-3}
"""Largest relative difference of loss, gradient norm and weights from the plain loop's, by precision."""
_SMALL_LAYERS, _SMALL_SEQUENCE = 6, 128
_REFERENCE_NAME = "plain.safetensors"


@dataclass(frozen=True)
class Layout:
    """A way to spread a run over ranks."""

    ranks: int
    zero_stage: int
    pipeline_stages: int

    def __str__(self) -> str:
        if self.pipeline_stages == 1:
            return f"zero{self.zero_stage}-ranks{self.ranks}"
        return f"pipeline{self.pipeline_stages}-data{self.ranks // self.pipeline_stages}"

    @property
    def parallel(self) -> ParallelConfig:
        """The config section of this layout."""
        return ParallelConfig(zero_stage=self.zero_stage, pipeline_stages=self.pipeline_stages)


def small_shape(config: RunConfig) -> RunConfig:
    """The same run with a model of the same proportions that trains in seconds.

    A run that begins with the weights of another is left as it is.
    """
    if config.run.start_from is not None:
        return config
    model = config.model
    group, head_size = model.heads // model.kv_heads, min(model.head_size, 32)
    heads = group * max(1, min(model.kv_heads, 4 // group))
    sizes: dict[str, Any] = {
        "preset": None,
        "layers": min(model.layers, _SMALL_LAYERS),
        "heads": heads,
        "kv_heads": heads // group,
        "hidden_size": heads * head_size,
        "mlp_size": heads * head_size * 3,
    }
    length = min(config.data.sequence_length, _SMALL_SEQUENCE)
    return config.model_copy(
        update={
            "model": ModelConfig.model_validate(model.model_dump() | sizes),
            "data": config.data.model_copy(update={"sequence_length": length}),
        }
    )


def fitting_layouts(config: RunConfig, ranks: int) -> list[Layout]:
    """The layouts of exactly this many ranks that the config's batch sizes and layers allow."""
    candidates = [Layout(ranks, stage, 1) for stage in (1, 2, 3)]
    candidates += [Layout(ranks, 1, stages) for stages in (2, 4, 8, 16) if ranks % stages == 0]
    train = config.train
    stages = config.model.layers + (config.adapter is None)  # with an adapter each needs a block
    return [
        layout
        for layout in candidates
        if layout.pipeline_stages <= stages
        and not layout_problems(layout.parallel, ranks, config.model.layers)
        and accumulation_steps(
            train.global_batch_size, train.micro_batch_size, ranks // layout.pipeline_stages
        )
    ]


def certify_world(config: RunConfig, world: World, scratch: Path, steps: int, phases: list[str]) -> None:
    """Run the phases of the certificate ("train", "restore") for every layout of this world; collective.

    Checkpoints and rows stay in `scratch`; `certificate` reads them.
    """
    with process_group(world) as device:
        for phase in phases:
            rows = (
                train_layouts(config, world, device, scratch, steps)
                if phase == "train"
                else restore_layouts(config, world, device, scratch)
            )
            if world.rank == 0:
                (scratch / f"{phase}-{world.size}.json").write_text(json.dumps(rows))


def certificate(scratch: Path, precision: str) -> list[dict[str, Any]]:
    """A row a layout: the differences, how many checkpoints it restored bit for bit, and the verdict."""
    trained = [row for path in sorted(scratch.glob("train-*.json")) for row in json.loads(path.read_text())]
    restored = [row for path in scratch.glob("restore-*.json") for row in json.loads(path.read_text())]
    rows = []
    for row in trained:
        pairs = [pair["equal"] for pair in restored if pair["to"] == row["layout"]]
        agrees = max(row["loss"], row["grad_norm"], row["weights"]) <= TOLERANCES[precision] and all(pairs)
        formatted = {key: value if key == "layout" else f"{value:.1e}" for key, value in row.items()}
        rows.append(
            formatted
            | {"restores": f"{sum(pairs)} of {len(pairs)}", "verdict": "agrees" if agrees else "DIFFERS"}
        )
    return rows


def train_layouts(
    config: RunConfig, world: World, device: torch.device, scratch: Path, steps: int
) -> list[dict[str, Any]]:
    """Train under every layout of this world, save each, and compare with the plain loop; a row each."""
    shards = read_shards_manifest(config.data.shards)
    config = settle(config, shards)
    curve = _plain_curve(config, shards, scratch, steps, device, world)
    rows = []
    for layout in fitting_layouts(config, world.size):
        engine, topology = _engine(config, shards, layout, world, device)
        data = open_data(config, shards, topology, verify=False)
        results = [
            engine.train_step(step.micro_batches, _rate(config, number))
            for number, step in enumerate(data.loader.steps(0, steps), 1)
        ]
        state = RunState(step=steps, samples=steps * config.train.global_batch_size, tokens=0)
        save_checkpoint(engine, scratch / str(layout), state, {})
        pairs = list(zip(results, curve, strict=True))
        row = {
            "layout": str(layout),
            "loss": max(abs(mine.loss / plain.loss - 1) for mine, plain in pairs),
            "grad_norm": max(abs(mine.grad_norm / plain.grad_norm - 1) for mine, plain in pairs),
            "weights": _weight_difference(engine, scratch, device),
        }
        rows.append(row)
        if world.rank == 0:
            say(f"{layout}: loss within {row['loss']:.1e} of the plain loop's")
        del engine
        gc.collect()
    return rows


def restore_layouts(
    config: RunConfig, world: World, device: torch.device, scratch: Path
) -> list[dict[str, Any]]:
    """Restore every saved layout into every layout of this world, begun from another seed; a row a pair."""
    shards = read_shards_manifest(config.data.shards)
    config = settle(config, shards)
    other_seed = config.model_copy(
        update={"run": config.run.model_copy(update={"seed": config.run.seed + 1})}
    )
    rows = []
    for layout in fitting_layouts(config, world.size):
        engine, _ = _engine(other_seed, shards, layout, world, device)
        here = []
        for whole in _saved(scratch):
            restore(engine, whole)
            equal = _on_all_ranks(_equals(engine, whole), device)
            here.append({"from": whole.directory.parent.name, "to": str(layout), "equal": equal})
        rows += here
        if world.rank == 0:
            good = sum(bool(row["equal"]) for row in here)
            say(f"{layout}: restored {good} of {len(here)} checkpoints bit for bit")
        del engine
        gc.collect()
    return rows


def _engine(
    config: RunConfig, shards: Manifest, layout: Layout, world: World, device: torch.device
) -> tuple[Engine, Topology]:
    topology = Topology(world.size, world.rank, layout.pipeline_stages)
    placed = config.model_copy(update={"parallel": layout.parallel})
    base = find_base(config, shards, Gang(world.rank, world.size))
    return build(placed, shards, topology, device, base), topology


def _rate(config: RunConfig, step: int) -> float:
    return learning_rate_at(step, config.train.steps, config.optimizer.learning_rate, config.schedule)


def _plain_curve(
    config: RunConfig, shards: Manifest, scratch: Path, steps: int, device: torch.device, world: World
) -> list[StepResult]:
    """What the plain loop's steps tell, run by rank 0, which leaves its final weights in `scratch`."""
    told: list[list[StepResult]] = [[]]
    if world.rank == 0:
        share = counted_share(config.data, shards)
        base = find_base(config, shards, ALONE)
        with run_layers(config, shards.details["vocab_size"], device, base) as layers:
            plain = PlainEngine(layers, config.optimizer, device, config.train.precision, share)
        data = open_data(config, shards, Topology(1, 0, 1), verify=False)
        told[0] = [
            plain.train_step(step.micro_batches, _rate(config, number))
            for number, step in enumerate(data.loader.steps(0, steps), 1)
        ]
        scratch.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.cpu() for name, weight in plain.weights().items()}, scratch / _REFERENCE_NAME)
    torch.distributed.broadcast_object_list(told)
    return told[0]


def _weight_difference(engine: Engine, scratch: Path, device: torch.device) -> float:
    """Length of the difference of all master weights from the plain loop's, relative to their length."""
    plain = load_file(scratch / _REFERENCE_NAME)
    squares = torch.zeros(2, device=device, dtype=torch.float64)
    for fragment in owned_fragments(engine):
        if fragment.is_replica:
            continue
        theirs = plain[fragment.parameter].flatten()[fragment.start : fragment.start + fragment.elements]
        mine = fragment_tensors(engine, fragment)["weight"].double()
        squares += torch.stack([(mine - theirs.to(mine)).square().sum(), mine.square().sum()])
    torch.distributed.all_reduce(squares)
    return float((squares[0] / squares[1]).sqrt())


def _saved(scratch: Path) -> Iterator[Whole]:
    for directory in sorted(path for path in scratch.glob("*/step-*") if path.is_dir()):
        manifest, damage = examine(directory)
        if manifest is None or damage:
            raise CheckpointError("\n".join(damage))
        yield Whole(directory, manifest)


def _equals(engine: Engine, whole: Whole) -> bool:
    """Whether every tensor this rank holds equals the checkpoint's bit for bit."""
    with FragmentFiles(whole) as files:
        for fragment in owned_fragments(engine):
            if int(step_count(engine, fragment)) != whole.state.step:
                return False
            for kind, tensor in fragment_tensors(engine, fragment).items():
                mine = tensor.cpu()
                saved = torch.empty_like(mine)
                files.read_into(saved, fragment.parameter, kind, fragment.start)
                if not torch.equal(mine, saved):
                    return False
    return True


def _on_all_ranks(verdict: bool, device: torch.device) -> bool:
    value = torch.tensor(int(verdict), device=device)
    torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MIN)
    return bool(value)
