"""How good `hpctrain plan` is: its memory and step time beside those of real ranks of this machine. Memory
counts every byte of every tensor; times rest on rates that the same ranks measure just before."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.engines import Task, in_ranks, run_task
from bench.held import Peak
from bench.table import Row, row
from hpctrain.model.config import ModelConfig
from hpctrain.plan.cost import Rates, predict_step
from hpctrain.train.memory import Layout, memory_of

FITTED = {"hidden_size": 256, "layers": 4, "heads": 8, "kv_heads": 2, "mlp_size": 512, "tied": False}
HELD_OUT = {"hidden_size": 320, "layers": 5, "heads": 5, "kv_heads": 5, "mlp_size": 864, "tied": False}
HEAVY = {"hidden_size": 256, "layers": 6, "heads": 4, "kv_heads": 1, "mlp_size": 1024, "tied": True}


@dataclass(frozen=True)
class Case:
    """One run on two ranks."""

    layout: Layout
    precision: str = "fp32"
    model: dict[str, Any] = field(default_factory=lambda: FITTED)
    vocab_size: int = 2048
    length: int = 128
    optimizer: str = "adamw"
    levels: tuple[Any, ...] | None = None
    """What each block recomputes, where that is not the layout's."""

    @property
    def shape(self) -> tuple[ModelConfig, int, int, str, Layout]:
        """What the arithmetic takes."""
        model = ModelConfig.model_validate(self.model)
        return model, self.vocab_size, self.length, self.precision, self.layout


SECOND = {"hidden_size": 192, "layers": 7, "heads": 6, "kv_heads": 2, "mlp_size": 640, "tied": False}

_TIED = {**FITTED, "tied": True}
_HELD_OUT = {"model": HELD_OUT, "vocab_size": 3001, "length": 192}
_SECOND = {"model": SECOND, "vocab_size": 5003, "length": 160}
_HEAVY = {"model": HEAVY, "vocab_size": 512, "length": 256}
_MIXED = ("all", "cheap", "cheap", "keep", "keep", "keep")
CASES = {
    "ZeRO 1, fp32": Case(Layout(2, 1, 1, 2, 2, False)),
    "ZeRO 1, bf16": Case(Layout(2, 1, 1, 2, 2, False), "bf16"),
    "ZeRO 2, fp32": Case(Layout(2, 1, 2, 2, 2, False)),
    "ZeRO 2, bf16": Case(Layout(2, 1, 2, 2, 2, False), "bf16"),
    "ZeRO 3, fp32": Case(Layout(2, 1, 3, 2, 2, False)),
    "ZeRO 3, bf16": Case(Layout(2, 1, 3, 2, 2, False), "bf16"),
    "pipeline, fp32": Case(Layout(1, 2, 1, 2, 4, False), model=_TIED),
    "pipeline, bf16": Case(Layout(1, 2, 1, 2, 4, False), "bf16", _TIED),
    "ZeRO 1, fp32, recompute": Case(Layout(2, 1, 1, 8, 2, True), model=_TIED),
    "ZeRO 1, fp32, cheap": Case(Layout(2, 1, 1, 8, 2, "cheap"), model=_TIED),
    "ZeRO 3, bf16, mixed": Case(Layout(2, 1, 3, 2, 2, False), "bf16", **_HEAVY, levels=_MIXED),
    "pipeline, fp32, mixed": Case(Layout(1, 2, 1, 2, 4, False), **_HEAVY, levels=_MIXED),
    "ZeRO 1, fp32, Muon": Case(Layout(2, 1, 1, 2, 2, False), optimizer="muon"),
    "ZeRO 3, fp32, Muon": Case(Layout(2, 1, 3, 2, 2, False), optimizer="muon"),
    "held out: ZeRO 1, fp32": Case(Layout(2, 1, 1, 3, 2, False), **_HELD_OUT),
    "held out: ZeRO 2, bf16": Case(Layout(2, 1, 2, 3, 2, False), "bf16", **_HELD_OUT),
    "ZeRO 3, fp32, cheap": Case(Layout(2, 1, 3, 3, 2, "cheap"), **_HELD_OUT),
    "held out: pipeline, bf16, recompute": Case(Layout(1, 2, 1, 3, 4, True), "bf16", **_HELD_OUT),
    "held out: ZeRO 3, fp32, recompute": Case(Layout(2, 1, 3, 4, 2, True), **_SECOND),
    "held out: ZeRO 3, bf16": Case(Layout(2, 1, 3, 4, 2, False), "bf16", **_SECOND),
    "held out: ZeRO 1, fp32, cheap, Muon": Case(Layout(2, 1, 1, 4, 2, "cheap"), **_SECOND, optimizer="muon"),
}
"""Shapes to which nothing was fitted; the first one's ZeRO 3 told of weights that stay gathered, so that case
is no longer called held out."""
_TIMED = {"model": {"preset": "3m"}, "vocab_size": 8192, "length": 256}
TIMED = {
    "ZeRO 1": Case(Layout(2, 1, 1, 2, 2, False), **_TIMED),
    "ZeRO 1, cheap": Case(Layout(2, 1, 1, 2, 2, "cheap"), **_TIMED),
    "ZeRO 1, recompute": Case(Layout(2, 1, 1, 2, 2, True), **_TIMED),
    "ZeRO 2": Case(Layout(2, 1, 2, 2, 2, False), **_TIMED),
    "ZeRO 3": Case(Layout(2, 1, 3, 2, 2, False), **_TIMED),
    "pipeline": Case(Layout(1, 2, 1, 2, 4, False), **_TIMED),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", help="cases whose name begins with this")
    parser.add_argument("--what", default="memory,time", help="of these")
    parser.add_argument("--steps", type=int, default=8, help="timed, after two")


def measure(options: argparse.Namespace) -> list[Row]:
    """Memory of every case and rank, then times; ratios are predicted / measured."""
    rows: list[Row] = []
    if "memory" in options.what:
        for name, case in _chosen(CASES, options.only):
            rows += _memory_rows(name, case)
    if "time" in options.what:
        for name, case in _chosen(TIMED, options.only):
            rows += _time_rows(name, case, options.steps)
    return rows


def _chosen(cases: dict[str, Case], wanted: str | None) -> Iterator[tuple[str, Case]]:
    return ((name, case) for name, case in cases.items() if wanted is None or name.startswith(wanted))


def _memory_rows(name: str, case: Case) -> Iterator[Row]:
    """For each stage, the rank that held most."""
    told = in_ranks("bench.plan", 2, {"case": asdict(case), "what": "memory"})
    for predicted in memory_of(*case.shape, device="cpu", optimizer=case.optimizer, levels=case.levels):
        here = told[predicted.stage * case.layout.replicas :][: case.layout.replicas]
        place = f", stage {predicted.stage}" if case.layout.pipeline_stages > 1 else ""
        mine = {
            "held at most, MB": predicted.peak - predicted.buckets,
            "fixed buffers, MB": predicted.buckets,
        }
        for metric, value in mine.items():
            measured = max(each[metric] for each in here)
            yield row(name + place, "measured", metric, [measured / 1e6])
            yield row(name + place, "predicted", metric, [value / 1e6], measured / 1e6 or None)


def _time_rows(name: str, case: Case, steps: int) -> Iterator[Row]:
    """With the rate of a rank's own steps (what `--tflops` asks for), and with that of its products alone."""
    found = in_ranks("bench.plan", 2, {"case": asdict(case), "what": "time", "steps": steps})
    measured = statistics.median(found["seconds"])
    yield row(name, "measured", "s/step", found["seconds"])
    for kind in ("a rank's steps", "products alone"):
        link = found["link"]
        step = predict_step(*case.shape, Rates(found[kind], link, link, 2))
        yield row(name, f"predicted, rate of {kind}", "s/step", [step.seconds], measured)


def rank_main(task: Task, world: Any, device: Any) -> Any:
    """One rank."""
    import torch

    torch.set_num_threads(1)
    case = Case(**{**task["case"], "layout": Layout(**task["case"]["layout"])})
    engine = _engine(case, world, device)
    if task["what"] == "memory":
        told: list[Any] = [None] * world.size
        torch.distributed.all_gather_object(told, _held(case, engine))
        return told
    rates = {
        "a rank's steps": _steps_rate(case),
        "products alone": _products_rate(case),
        "link": _link_rate(),
    }
    seconds = []
    for _ in range(task["steps"] + 2):
        torch.distributed.barrier()
        began = time.perf_counter()
        engine.train_step(_batches(case), 1e-4)
        torch.distributed.barrier()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[2:], **rates}


def _engine(case: Case, world: Any, device: Any) -> Any:
    from hpctrain.engine.base import OptimizerConfig
    from hpctrain.engine.build import build_engine
    from hpctrain.model.config import layer_costs
    from hpctrain.parallel.topology import ParallelConfig, Topology

    model, vocab_size, _, precision, layout = case.shape
    return build_engine(
        _layers(case), layer_costs(model, vocab_size),
        ParallelConfig(zero_stage=layout.zero_stage, pipeline_stages=layout.pipeline_stages),
        Topology(world.size, world.rank, layout.pipeline_stages), OptimizerConfig(kind=case.optimizer),
        device=device, precision=precision, micro_batch_size=layout.micro_batch_size,
        accumulation_steps=layout.accumulation_steps,
    )  # fmt: skip


def _layers(case: Case) -> Any:
    from hpctrain.model.attention import choose_attention
    from hpctrain.model.recompute import recompute_layers
    from hpctrain.model.transformer import build_layers
    from hpctrain.train.activations import level_of

    model, vocab_size, _, precision, layout = case.shape
    layers = build_layers(model, vocab_size, 1, choose_attention("auto", "cpu", precision))
    return recompute_layers(layers, case.levels or [level_of(layout.recompute)] * model.layers)


def _batches(case: Case) -> list[Any]:
    """Random micro-batches of a step, each sequence one document."""
    import torch

    from hpctrain.loader.batches import Batch

    micro = case.layout.micro_batch_size
    ids = torch.randint(0, case.vocab_size, (micro, case.length), dtype=torch.int32)
    edges = torch.arange(0, micro * case.length + 1, case.length, dtype=torch.int32)
    return [Batch(ids.clone(), ids.clone(), edges.clone()) for _ in range(case.layout.accumulation_steps)]


def _held(case: Case, engine: Any) -> dict[str, int]:
    """Most bytes at once over a step, DeepSpeed's buffers apart."""
    engine.train_step(_batches(case), 1e-3)  # makes the optimizer's moments
    gc.collect()
    with Peak() as held:
        engine.train_step(_batches(case), 1e-3)
    peak, buckets = held.peak
    return {"held at most, MB": peak, "fixed buffers, MB": buckets}


def _steps_rate(case: Case) -> float:
    """Operations a second that one rank sustains in steps of its own, all ranks at once; no communication."""
    import torch

    from hpctrain.engine.base import OptimizerConfig
    from hpctrain.engine.plain import PlainEngine

    plain = replace(case, layout=replace(case.layout, recompute=False), levels=None)
    engine = PlainEngine(_layers(plain), OptimizerConfig(), torch.device("cpu"), "fp32")
    batches = _batches(case)
    seconds = _median_seconds(lambda: engine.train_step(batches, 1e-4))
    model, vocab_size, length, _, layout = case.shape
    tokens = layout.micro_batch_size * layout.accumulation_steps * length
    return model.flops_per_token(vocab_size, length) * tokens / seconds


def _products_rate(case: Case) -> float:
    """Operations a second in the largest product of a block, all ranks at once."""
    import torch

    model, _, length, _, layout = case.shape
    tokens = layout.micro_batch_size * length
    left, right = torch.randn(tokens, model.hidden_size), torch.randn(model.hidden_size, model.mlp_size)
    seconds = _median_seconds(lambda: [left @ right for _ in range(20)])
    return 20 * 2 * tokens * model.hidden_size * model.mlp_size / seconds


def _link_rate() -> float:
    """Bytes a second that a rank sends while all sum 16 MB."""
    import torch

    data, ranks = torch.zeros(4 << 20), torch.distributed.get_world_size()
    seconds = _median_seconds(lambda: torch.distributed.all_reduce(data))
    return 2 * (ranks - 1) / ranks * 4 * data.numel() / seconds


def _median_seconds(work: Any, times: int = 5) -> float:
    import torch

    seconds = []
    for _ in range(times + 1):
        torch.distributed.barrier()
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    run_task(rank_main)
