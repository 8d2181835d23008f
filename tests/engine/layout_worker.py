"""One rank of a small training run on synthetic tokens: steps, saves and restores under a given layout.

Started by the tests as `python layout_worker.py '{json}'` in every rank; prints one JSON line from rank 0.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from hpctrain.checkpoint.fragments import STATE_KINDS, optimizer_state, owned_fragments
from hpctrain.checkpoint.restore import FragmentFiles, Whole, examine, restore
from hpctrain.checkpoint.save import RunState, checkpoint_name, save_checkpoint
from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.build import build_engine
from hpctrain.loader.batches import BatchLoader, SampleReader
from hpctrain.loader.fim import FimConfig, FimTokens
from hpctrain.loader.mixture import Component
from hpctrain.loader.order import SampleOrder
from hpctrain.model.attention import choose_attention
from hpctrain.model.config import ModelConfig
from hpctrain.model.transformer import build_layers, layer_costs
from hpctrain.parallel.process import discover_world, process_group
from hpctrain.parallel.topology import ParallelConfig, Topology

VOCABULARY = 97
SEQUENCE = 48
GLOBAL_BATCH = 8
MARKS = FimTokens(document=0, content=1, end=2, prefix=3, suffix=4, middle=5)


class ArrayStream:
    """Synthetic documents of random length, from a fixed seed."""

    def __init__(self, tokens: int) -> None:
        generator = np.random.default_rng(5)
        self.array = generator.integers(6, VOCABULARY, tokens).astype(np.uint16)
        for start in np.cumsum(generator.integers(5, 60, tokens // 40)):
            if start + 2 < tokens:
                self.array[start : start + 3] = (MARKS.end, MARKS.document, MARKS.content)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]


def reader(seed: int = 3) -> SampleReader:
    components = [Component([ArrayStream(6000)], SEQUENCE)]
    order = SampleOrder((len(components[0]),), (1.0,), seed)
    return SampleReader(order, components, FimConfig(rate=0.5), MARKS)


def model_config(tied: bool) -> ModelConfig:
    return ModelConfig(hidden_size=32, layers=3, heads=4, kv_heads=2, mlp_size=64, tied=tied)


def main(options: dict) -> None:
    torch.set_num_threads(1)
    world = discover_world(os.environ)
    parallel = ParallelConfig(zero_stage=options["zero"], pipeline_stages=options["stages"])
    topology = Topology(world.size, world.rank, parallel.pipeline_stages)
    model = model_config(options.get("tied", True))
    micro = options.get("micro", 2)
    optimizer = OptimizerConfig(learning_rate=5e-3, clip_norm=0.5)
    with process_group(world) as device:
        layers = build_layers(model, VOCABULARY, options.get("seed", 1), choose_attention("auto", "cpu", "fp32"))
        engine = build_engine(
            layers, layer_costs(model, VOCABULARY), parallel, topology, optimizer, device=device,
            precision=options.get("precision", "fp32"), micro_batch_size=micro,
            accumulation_steps=GLOBAL_BATCH // (micro * topology.data_parallel_size),
            recompute=options.get("recompute", False),
        )  # fmt: skip
        loader = BatchLoader(reader(), topology, GLOBAL_BATCH, micro)
        first = 0
        equal = True
        if "restore" in options:
            manifest, damage = examine(Path(options["restore"]))
            assert manifest is not None, damage
            whole = Whole(Path(options["restore"]), manifest)
            restore(engine, whole)
            first = whole.state.step
            equal = state_equals(engine, whole)
        results = []
        for data in loader.steps(first * GLOBAL_BATCH, options["steps"]):
            result = engine.train_step(data.micro_batches, 5e-3)
            results.append([result.loss, result.grad_norm])
        evaluated = engine.eval_step(loader.load(0).micro_batches)
        if "save" in options:
            step = first + options["steps"]
            state = RunState(step=step, samples=step * GLOBAL_BATCH, tokens=0)
            save_checkpoint(engine, Path(options["save"]), state, {})
            options["saved"] = str(Path(options["save"]) / checkpoint_name(step))
        flags: list = [None] * world.size
        torch.distributed.all_gather_object(flags, equal)
        if world.rank == 0:
            answer = {"steps": results, "evaluated": evaluated, "equal": all(flags), "saved": options.get("saved")}
            print(json.dumps(answer), flush=True)


def state_equals(engine, whole: Whole) -> bool:
    """Whether every tensor this rank owns, and every live weight, equals the checkpoint bit for bit."""
    with FragmentFiles(whole) as files:
        for fragment in owned_fragments(engine):
            for kind in STATE_KINDS:
                mine = fragment.view(optimizer_state(engine, fragment.flat), kind)
                saved = torch.empty_like(mine)
                files.read_into(saved, fragment.parameter, kind, fragment.start)
                if not torch.equal(mine, saved):
                    return False
    return True


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
