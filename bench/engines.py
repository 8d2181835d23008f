"""Real engines in fresh ranks of this machine, for the measurements that need them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hpctrain.launch.local import run_ranks

Task = dict[str, Any]


def in_ranks(module: str, ranks: int, task: Task) -> Any:
    """Run `python -m module TASK` in fresh ranks, to end in `run_task`; what rank 0 found."""
    with tempfile.TemporaryDirectory(prefix="hpctrain-bench-") as place:
        answer = Path(place) / "answer.json"
        command = [sys.executable, "-m", module, json.dumps({**task, "answer": str(answer)})]
        if code := run_ranks(command, ranks):
            raise SystemExit(f"python -m {module} on {ranks} ranks: exit code {code}")
        return json.loads(answer.read_text())


def run_task(work: Callable[[Task, Any, Any], Any]) -> NoReturn:
    """One rank of `in_ranks`: join the others, and call `work` with the task, the world and the device."""
    import logging

    from hpctrain.parallel.process import choose_accelerator, process_group
    from hpctrain.parallel.world import discover_world

    task, world = json.loads(sys.argv[1]), discover_world(os.environ)
    choose_accelerator()
    logging.disable(logging.WARNING)
    with process_group(world) as device:
        found = work(task, world, device)
        if world.rank == 0:
            Path(task["answer"]).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # as the command does: torch's threads must not meet a dying interpreter


def build(task: Task, vocabulary: int, world: Any, device: Any, micro: int = 1, accumulation: int = 1) -> Any:
    """This rank's engine of the task's `preset` under its `zero` stage and pipeline `stages`, in fp32."""
    from hpctrain.engine.base import OptimizerConfig
    from hpctrain.engine.build import build_engine
    from hpctrain.model.attention import choose_attention
    from hpctrain.model.config import ModelConfig, layer_costs
    from hpctrain.model.transformer import build_layers
    from hpctrain.parallel.topology import ParallelConfig, Topology

    model = ModelConfig(preset=task["preset"])
    return build_engine(
        build_layers(model, vocabulary, 1, choose_attention("auto", device.type, "fp32")),
        layer_costs(model, vocabulary),
        ParallelConfig(zero_stage=task["zero"], pipeline_stages=task["stages"]),
        Topology(world.size, world.rank, task["stages"]), OptimizerConfig(), device=device,
        precision="fp32", micro_batch_size=micro, accumulation_steps=accumulation,
    )  # fmt: skip


def random_batch(sequences: int, length: int, vocabulary: int, seed: int) -> Any:
    """A micro-batch of random tokens, each sequence one document."""
    import numpy as np

    from hpctrain.loader.batches import make_batch

    tokens = np.random.default_rng(seed).integers(1, vocabulary, (sequences, length + 1))
    return make_batch(tokens, document_mark=0)
