"""Scaling: tokens/s of real engines on 1 to N ranks of this machine, each of so many threads, against one
rank: strong (the global batch stays) and weak (the batch of a rank stays). Ranks that share one machine's
memory and cores say little of a cluster: `hpctrain plan` is for what lies beyond one machine."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from bench.engines import Task, build, in_ranks, random_batch, run_task
from bench.table import Row, row

VOCABULARY = 8192
LAYOUTS = {"ZeRO 1": (1, 1), "ZeRO 2": (2, 1), "ZeRO 3": (3, 1), "pipeline 2": (1, 2)}
"""ZeRO stage, pipeline stages."""
BASE = "ZeRO 1"
PROFILED_STEPS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks; one is always measured")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="of these")
    parser.add_argument("--preset", default="3m", help="model.preset")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--sequences", type=int, default=8, help="of a step; weak: times the ranks")
    parser.add_argument("--micro-batch", type=int, default=2, help="sequences of a micro-batch")
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--steps", type=int, default=6, help="timed in each round, after two")
    parser.add_argument("--rounds", type=int, default=2, help="every case once a round, in turn")


def measure(options: argparse.Namespace) -> list[Row]:
    """Every layout, number of ranks and kind of scaling, in turn; then the rows, beside one rank's."""
    cases = _cases(options)
    samples: dict[tuple[str, str, int], list[float]] = {case: [] for case in cases}
    shares: dict[tuple[str, str, int], list[float]] = {case: [] for case in cases}
    for _ in range(options.rounds):
        for (kind, layout, ranks), task in cases.items():
            found = in_ranks("bench.scaling", ranks, task)
            samples[kind, layout, ranks] += [task["tokens"] / seconds for seconds in found["seconds"]]
            shares[kind, layout, ranks].append(100 * found["communicating"])
    base = statistics.median(samples["one rank", BASE, 1])
    rows = []
    for (kind, layout, ranks), rates in samples.items():
        case = f"{kind}, {ranks} x {options.threads} threads"
        rows.append(row(case, layout, f"tokens/s (ratio: a rank's, to {BASE} on one)", rates, ranks * base))
        percent = shares[kind, layout, ranks]
        rows.append(row(case, layout, "% of the time with communication under way", percent))
    return rows


def _cases(options: argparse.Namespace) -> dict[tuple[str, str, int], Task]:
    """By kind of scaling, layout and ranks; on one rank both kinds are the same."""
    layouts = [name.strip() for name in options.layouts.split(",")]
    if unknown := sorted(set(layouts) - set(LAYOUTS)):
        raise SystemExit(f"--layouts: no {', '.join(unknown)}; there are {', '.join(LAYOUTS)}")
    numbers = sorted({1, *map(int, options.ranks.split(","))})
    cases: dict[tuple[str, str, int], Task] = {}
    for ranks in numbers:
        for layout in dict.fromkeys([BASE, *layouts] if ranks == 1 else layouts):
            zero, stages = LAYOUTS[layout]
            if ranks % stages:
                continue
            for kind in ("one rank",) if ranks == 1 else ("strong", "weak"):
                sequences = options.sequences * (ranks if kind == "weak" else 1)
                replicas = ranks // stages
                if sequences % (replicas * options.micro_batch):
                    raise SystemExit(
                        f"--sequences: {sequences} in a step cannot be dealt to {replicas} replicas in "
                        f"micro-batches of {options.micro_batch}"
                    )
                cases[kind, layout, ranks] = {
                    "preset": options.preset, "zero": zero, "stages": stages, "length": options.length,
                    "micro": options.micro_batch, "threads": options.threads, "steps": options.steps,
                    "accumulation": sequences // (replicas * options.micro_batch),
                    "tokens": sequences * options.length,
                }  # fmt: skip
    return cases


def rank_main(task: Task, world: Any, device: Any) -> dict[str, Any]:
    """One rank: time steps from when all are ready until the last is done; then profile a few more."""
    import torch

    torch.set_num_threads(task["threads"])
    engine = build(task, VOCABULARY, world, device, task["micro"], task["accumulation"])
    batches = [
        random_batch(task["micro"], task["length"], VOCABULARY, seed=number)
        for number in range(task["accumulation"])
    ]
    seconds = []
    for number in range(task["steps"] + 2):
        torch.distributed.barrier()
        began = time.perf_counter()
        engine.train_step(batches, 1e-4)
        torch.distributed.barrier()
        if number >= 2:  # the first two warm buffers and caches
            seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "communicating": _communicating(engine, batches, device)}


def _communicating(engine: Any, batches: list[Any], device: Any) -> float:
    """The share of the time of some steps in which communication was under way on this rank."""
    from torch.profiler import ProfilerActivity, profile, schedule

    from hpctrain.train.traced import divide

    on_device = device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    plan = schedule(wait=0, warmup=1, active=PROFILED_STEPS, repeat=1)
    shares: list[float] = []

    def keep(trace: Any) -> None:
        shares.append(divide(trace.events(), "", on_device).communicating)

    with profile(activities=kinds, schedule=plan, on_trace_ready=keep, acc_events=True) as trace:
        for _ in range(1 + PROFILED_STEPS):
            engine.train_step(batches, 1e-4)
            trace.step()
    return shares[0]


if __name__ == "__main__":
    run_task(rank_main)
