"""One rank that trains a tiny model with emulated fp8 products, beside the plain loop on the same batches.

Arguments: where rank 0 writes what it saw, ZeRO stage, pipeline stages, precision.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torchao.float8 import Float8LinearConfig

from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.build import build_engine
from hpctrain.engine.plain import PlainEngine
from hpctrain.loader.batches import Batch, make_batch
from hpctrain.model.attention import sdpa_attention
from hpctrain.model.config import ModelConfig, layer_costs
from hpctrain.model.float8 import float8_layers
from hpctrain.model.transformer import build_layers
from hpctrain.parallel.process import choose_accelerator, process_group
from hpctrain.parallel.topology import ParallelConfig, Topology
from hpctrain.parallel.world import discover_world

MODEL = ModelConfig(hidden_size=32, layers=2, heads=2, kv_heads=1, mlp_size=48, tied=True)
VOCABULARY, STEPS, PIECES = 64, 4, 2


def batches(step: int) -> list[Batch]:
    """The micro-batches of a step, of 2 x 32 tokens, over all ranks."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, VOCABULARY, (2 * PIECES, 2, 33), generator=generator)
    return [make_batch(each.numpy(), 0) for each in tokens]


def main() -> None:
    out, zero, stages, precision = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    layers = float8_layers(
        build_layers(MODEL, VOCABULARY, 1, sdpa_attention), Float8LinearConfig(emulate=True)
    )
    world, optimizer = discover_world(os.environ), OptimizerConfig()
    choose_accelerator()
    with process_group(world) as device:
        replicas = world.size // stages
        engine = build_engine(
            layers, layer_costs(MODEL, VOCABULARY), ParallelConfig(zero_stage=zero, pipeline_stages=stages),
            Topology(world.size, world.rank, stages), optimizer, device=device, precision=precision,
            micro_batch_size=2, accumulation_steps=2 * PIECES // replicas,
        )  # fmt: skip
        mine = engine.topology.data_parallel_rank
        found = [engine.train_step(batches(step)[mine::replicas], 3e-3) for step in range(STEPS)]
        if world.rank == 0:
            plain = PlainEngine(layers, optimizer, device, precision)
            expected = [plain.train_step(batches(step), 3e-3) for step in range(STEPS)]
            names = sorted(engine.named_parameters())
            out.write_text(json.dumps({"found": found, "expected": expected, "names": names}))
        torch.distributed.barrier()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads of gloo and DeepSpeed must not meet a dying interpreter
