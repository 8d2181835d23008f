"""Run one tiny layout in real ranks and count every byte that its tensors hold; a JSON line for each rank.

python -m torch.distributed.run --nproc-per-node 2 tests/plan/measured_rank.py OUT '{"zero_stage": 1, ...}'
"""

from __future__ import annotations

import gc
import json
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.build import build_engine
from hpctrain.loader.batches import Batch
from hpctrain.model.attention import choose_attention
from hpctrain.model.config import ModelConfig, layer_costs
from hpctrain.model.transformer import build_layers
from hpctrain.parallel.process import process_group
from hpctrain.parallel.topology import ParallelConfig, Topology
from hpctrain.parallel.world import discover_world

BUCKET_BYTES = 10**9
"""DeepSpeed's buckets are at least so large, and nothing else here is."""


class Peak(TorchDispatchMode):
    """Follows the storage of every tensor that an operation makes, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now, self.peak = [0, 0], [0, 0]
        for tensor in living_tensors():
            self.see(tensor.untyped_storage())

    def see(self, storage: torch.UntypedStorage) -> None:
        size, key = storage.nbytes(), storage._cdata
        if not size or key in self.alive:
            return
        kind = int(size >= BUCKET_BYTES)

        def freed(_: object) -> None:
            if self.alive.pop(key, None) is not None:
                self.now[kind] -= size

        self.alive[key] = weakref.ref(storage, freed)
        self.now[kind] += size
        self.peak[kind] = max(self.peak[kind], self.now[kind])

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                self.see(leaf.untyped_storage())
        return result


class Saved:
    """Counts what autograd saves for the backward, each storage once."""

    def __init__(self) -> None:
        self.skip = {tensor.untyped_storage().data_ptr() for tensor in living_tensors()}
        self.users: dict[int, int] = {}
        self.now = self.peak = 0

    def pack(self, tensor: torch.Tensor) -> _Kept:
        return _Kept(tensor, self)

    def change(self, tensor: torch.Tensor, by: int) -> None:
        key, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
        if key in self.skip:
            return
        before, after = self.users.get(key, 0), self.users.get(key, 0) + by
        self.users[key] = after
        self.now += size * (bool(after) - bool(before))
        self.peak = max(self.peak, self.now)


class _Kept:
    def __init__(self, tensor: torch.Tensor, counter: Saved) -> None:
        self.tensor, self.counter = tensor, counter
        counter.change(tensor, 1)

    def __del__(self) -> None:
        self.counter.change(self.tensor, -1)


def living_tensors() -> Iterator[torch.Tensor]:
    for found in gc.get_objects():
        if type(found) in (torch.Tensor, torch.nn.Parameter) and found.device.type == "cpu":
            yield found
            if found.is_leaf and found.grad is not None:
                yield found.grad


def main() -> None:
    out, spec = Path(sys.argv[1]), json.loads(sys.argv[2])
    world = discover_world(os.environ)
    with process_group(world) as device:
        model, vocabulary = ModelConfig.model_validate(spec["model"]), spec["vocab_size"]
        micro, length, pieces = spec["micro_batch_size"], spec["sequence_length"], spec["accumulation_steps"]
        engine = build_engine(
            build_layers(model, vocabulary, 1, choose_attention("auto", "cpu", spec["precision"])),
            layer_costs(model, vocabulary),
            ParallelConfig(zero_stage=spec["zero_stage"], pipeline_stages=spec["pipeline_stages"]),
            Topology(world.size, world.rank, spec["pipeline_stages"]),
            OptimizerConfig(), device=device, precision=spec["precision"], micro_batch_size=micro,
            accumulation_steps=pieces, recompute=spec["recompute"],
        )  # fmt: skip

        def batches() -> list[Batch]:
            ids = torch.randint(0, vocabulary, (micro, length), dtype=torch.int32)
            edges = torch.arange(0, micro * length + 1, length, dtype=torch.int32)
            return [Batch(ids.clone(), ids.clone(), edges.clone()) for _ in range(pieces)]

        engine.train_step(batches(), 1e-3)  # makes the optimizer's moments
        gc.collect()
        with Peak() as bytes_held:
            engine.train_step(batches(), 1e-3)
        saved = Saved()
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda kept: kept.tensor):
            engine.train_step(batches(), 1e-3)
        peak, buckets = bytes_held.peak
        told = {"rank": world.rank, "peak": peak, "buckets": buckets, "activations": saved.peak}
        (out / f"rank-{world.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
    # Some threads of gloo and DeepSpeed outlive their groups; one that runs while Python takes the
    # interpreter down aborts the process, now and then, after all is told.
    os._exit(0)
