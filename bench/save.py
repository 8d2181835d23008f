"""Checkpoints: how long a save stops training, against DeepSpeed's own; size, restore, checksums."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.engines import Task, build, in_ranks, random_batch, run_task
from bench.table import Row, row

STATE_BYTES = 12  # a parameter: fp32 weight and two moments
SEQUENCE, VOCABULARY = 64, 32768
Samples = dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="125m", help="model.preset; 125m has 100.7M parameters here")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="every variant once a round, in turn")
    parser.add_argument("--scratch", type=Path, help="directory on the file system to measure")


def measure(options: argparse.Namespace) -> list[Row]:
    """Save, then restore under the same and another layout, each in fresh ranks."""
    with tempfile.TemporaryDirectory(prefix="hpctrain-bench-", dir=options.scratch) as place:
        task = {"preset": options.preset, "rounds": options.rounds, "place": place}
        saved = _run(options, {**task, "what": "save", "zero": 1, "stages": 1})
        same = _run(options, {**task, "what": "restore", "zero": 1, "stages": 1, "peer": True})
        other = _run(options, {**task, "what": "restore", "zero": 1, "stages": options.ranks})
        third = _run(options, {**task, "what": "restore", "zero": 3, "stages": 1})
    return [*_save_rows(saved), *_restore_rows(same, other, third)]


def _save_rows(saved: dict[str, Any]) -> list[Row]:
    samples: Samples = saved["samples"]
    base = statistics.median(samples["background.blocked"])
    rows = [
        row("save", name, "blocked seconds", samples[f"{name}.blocked"], base)
        for name in ("background", "synchronous", "deepspeed", "deepspeed+fsync")
    ]
    rows.append(row("save", "background", "seconds until committed", samples["background.whole"]))
    quiet = statistics.median(samples["step.quiet"])
    rows.append(row("step", "no save", "seconds", samples["step.quiet"], quiet))
    rows.append(row("step", "during a background save", "seconds", samples["step.during"], quiet))
    whole = STATE_BYTES * saved["parameters"] / saved["ranks"]
    for name in ("hpctrain", "deepspeed"):
        size = saved["bytes"][name] / saved["ranks"]
        rows.append(row("size", name, "MB a rank (ratio to 12 bytes a parameter)", [size / 1e6], whole / 1e6))
    return rows


def _restore_rows(*layouts: dict[str, Any]) -> list[Row]:
    rows, base = [], statistics.median(layouts[0]["samples"]["restore"])
    for one in layouts:
        rows.append(row("restore", one["layout"], "seconds", one["samples"]["restore"], base))
        refresh = one["samples"]["refresh"]
        rows.append(row("restore", one["layout"], "of these, live weights refreshed", refresh, base))
    rows.append(row("restore", "deepspeed, same layout", "seconds", layouts[0]["samples"]["deepspeed"], base))
    for variant, name in (("verified before a restore", "verify"), ("computed in a save", "hash")):
        rows.append(row("checksums", variant, "seconds", layouts[0]["samples"][name], base))
    return rows


def _run(options: argparse.Namespace, task: Task) -> dict[str, Any]:
    found: dict[str, Any] = in_ranks("bench.save", options.ranks, task)
    return found


class Bench:
    """One rank's engine on random tokens, and a stopwatch whose times are the slowest rank's."""

    def __init__(self, task: Task, world: Any, device: Any) -> None:
        from hpctrain.model.config import ModelConfig

        self.parameters = ModelConfig(preset=task["preset"]).parameter_count(VOCABULARY)
        self.engine = build(task, VOCABULARY, world, device)
        self.topology = self.engine.topology
        self.batch = random_batch(1, SEQUENCE, VOCABULARY, seed=1)
        self.samples: Samples = defaultdict(list)

    def step(self) -> None:
        """Train one step."""
        self.engine.train_step([self.batch], 1e-4)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Time a block between barriers: from when all ranks are ready until the last has done it."""
        import torch

        torch.distributed.barrier()
        began = time.perf_counter()
        yield
        seconds = torch.tensor(time.perf_counter() - began, dtype=torch.float64)
        torch.distributed.all_reduce(seconds, torch.distributed.ReduceOp.MAX)
        self.samples[name].append(float(seconds))


def save(bench: Bench, task: Task) -> dict[str, Any]:
    """Each variant once a round, in turn, after a training step; what was written before is deleted."""
    from hpctrain.checkpoint.config import CheckpointConfig
    from hpctrain.checkpoint.format import RunState
    from hpctrain.checkpoint.save import Saver

    ours, peer = Path(task["place"]) / "ours", Path(task["place"]) / "deepspeed"
    bench.step()
    committed: list[float] = []
    config, identity = CheckpointConfig(keep=1), dict[str, str]()
    with Saver(bench.engine, ours, config, identity, lambda saved: committed.append(saved.seconds)) as saver:
        for number in range(task["rounds"] + 1):
            if number == 1:
                bench.samples.clear()  # the first round warms buffers and caches
            _background(bench, saver, RunState(step=2 * number, samples=0, tokens=0))
            with bench.time("synchronous.blocked"):
                saver.begin(RunState(step=2 * number + 1, samples=0, tokens=0))
                saver.wait()
            for name in ("deepspeed", "deepspeed+fsync"):
                _peer_save(bench, peer, name)
    bench.samples["background.whole"] = committed[2::2]  # every second is a synchronous one
    return {"bytes": {"hpctrain": _size(ours), "deepspeed": _size(peer)}}


def _background(bench: Bench, saver: Any, state: Any) -> None:
    with bench.time("step.quiet"):
        bench.step()
    with bench.time("background.blocked"):
        saver.begin(state)
    with bench.time("step.during"):
        bench.step()
    saver.wait()


def _peer_save(bench: Bench, directory: Path, name: str) -> None:
    if bench.topology.rank == 0:
        shutil.rmtree(directory, ignore_errors=True)
    bench.step()
    with bench.time(f"{name}.blocked"):
        bench.engine.deepspeed.save_checkpoint(str(directory), tag="peer")
        if name.endswith("fsync"):
            _flush_mine(directory, bench.topology.rank, bench.topology.world_size)


def _flush_mine(directory: Path, rank: int, size: int) -> None:
    for path in sorted(directory.rglob("*.pt"))[rank::size]:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def restore(bench: Bench, task: Task) -> dict[str, Any]:
    """Verify and restore what `save` left, from the page cache, into the layout of these ranks."""
    import xxhash

    from hpctrain.checkpoint.fragments import publish_master_weights
    from hpctrain.checkpoint.restore import newest_whole
    from hpctrain.checkpoint.restore import restore as load
    from hpctrain.parallel.process import Gang

    gang = Gang(bench.topology.rank, bench.topology.world_size)
    share = memoryview(bytes(STATE_BYTES * bench.parameters // gang.size))
    for _ in range(task["rounds"]):
        with bench.time("verify"):
            whole = newest_whole(Path(task["place"]) / "ours", False, gang)
        assert whole is not None
        with bench.time("restore"):
            load(bench.engine, whole)
        with bench.time("refresh"):  # once more, alone: the last part of a restore
            publish_master_weights(bench.engine, whole.state.step, whole.state.samples)
        if task.get("peer"):
            with bench.time("deepspeed"):
                bench.engine.deepspeed.load_checkpoint(str(Path(task["place"]) / "deepspeed"), tag="peer")
        with bench.time("hash"):
            xxhash.xxh3_128(share)
    stages = task["stages"]
    return {"layout": f"pipeline {stages}" if stages > 1 else f"ZeRO {task['zero']}"}


def rank_main(task: Task, world: Any, device: Any) -> dict[str, Any]:
    """One rank of one task."""
    tasks: dict[str, Callable[[Bench, Task], dict[str, Any]]] = {"save": save, "restore": restore}
    bench = Bench(task, world, device)
    told = tasks[task["what"]](bench, task)
    return told | {"samples": bench.samples, "parameters": bench.parameters, "ranks": world.size}


if __name__ == "__main__":
    run_task(rank_main)
