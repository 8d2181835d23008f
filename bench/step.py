"""The training step: tokens per second of ours and the peers', same shape, weights and tokens, in turn."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any, TextIO

from bench.table import Row, row
from hpctrain.launch.local import KEEP_MEMORY
from hpctrain.model.config import ModelConfig, presets
from hpctrain.train.throughput import peak_tflops

VARIANTS = (
    "products", "hpctrain", "hpctrain+compile", "plain", "transformers",
    "transformers+deepspeed", "litgpt",
)  # fmt: skip
CEILING, BASE = VARIANTS[0], "transformers"
ALLOCATOR = "+allocator"
LAUNCHED = ("hpctrain", "hpctrain+compile", CEILING)
"""What runs in the environment that our launcher makes; the others as a user starts them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="40m", choices=presets(), help="model.preset")
    parser.add_argument("--vocabulary", type=int, default=20480, help="with 20480, 40m has 40.0M parameters")
    parser.add_argument("--sequence", type=int, default=1024)
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--documents", type=int, default=1, help="documents in a sequence")
    parser.add_argument("--rounds", type=int, default=5, help="every variant once a round, in turn")
    parser.add_argument("--steps", type=int, default=2, help="steps of a variant in a round")
    default = [name for name in VARIANTS if name != "hpctrain+compile"]  # which takes a minute to compile
    parser.add_argument(
        "--variants",
        default=",".join(default),
        help=f"of {', '.join(VARIANTS)}; {ALLOCATOR} behind a peer's name gives it our launcher's settings",
    )


def measure(options: argparse.Namespace) -> list[Row]:
    """Start every variant in a process of its own, and let them make steps in turn."""
    names = options.variants.split(",")
    task = {
        key: getattr(options, key) for key in ("preset", "vocabulary", "sequence", "micro_batch", "documents")
    }
    workers = [_Worker(name, task, name in LAUNCHED or name.endswith(ALLOCATOR)) for name in names]
    try:
        told = {worker.name: worker.run(1) for worker in workers}  # the first step builds and compiles
        running = [worker for worker in workers if "left out" not in told[worker.name]]
        for worker in running:
            worker.run(1)
        answers: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in running}
        for _ in range(options.rounds):
            for worker in running:
                answers[worker.name].append(worker.run(options.steps))
    finally:
        for worker in workers:
            worker.process.kill()
    for name, first in told.items():
        if "left out" in first:
            print(f"{name}: left out: {first['left out']}", file=sys.stderr)
    return _rows(options, told, answers)


def _rows(
    options: argparse.Namespace, told: dict[str, Any], answers: dict[str, list[dict[str, Any]]]
) -> list[Row]:
    case = f"{options.preset}, {options.sequence} x {options.micro_batch}, {options.documents} documents"
    tokens = options.sequence * options.micro_batch
    rates = {name: [tokens / s for each in parts for s in each["seconds"]] for name, parts in answers.items()}
    base = statistics.median(rates[BASE]) if BASE in rates else None
    rows = [row(case, name, f"tokens/s (ratio to {BASE})", values, base) for name, values in rates.items()]
    if CEILING in rates:
        top = statistics.median(rates[CEILING])
        rows += [row(case, name, "tokens/s (ratio to the weight products)", values, top)
                 for name, values in rates.items() if name != CEILING]  # fmt: skip
    first = next((told[name]["loss"] for name in answers if name != CEILING), 0.0)
    for name, parts in answers.items():
        rows.append(row(case, name, "most memory held, GB", [parts[-1]["memory"] / 1e9]))
        if name == CEILING:
            continue
        rows.append(
            row(case, name, "first loss, less that of the first variant", [told[name]["loss"] - first])
        )
        rows.append(row(case, name, "seconds of the first step", told[name]["seconds"]))
        rows.append(
            row(
                case,
                name,
                "graphs compiled after the first step",
                [parts[-1]["graphs"] - told[name]["graphs"]],
            )
        )
    return rows + _utilisation(options, case, rates, told)


def _utilisation(
    options: argparse.Namespace, case: str, rates: dict[str, list[float]], told: dict[str, Any]
) -> list[Row]:
    """MFU where the device's peak is known: 6P + 12LDS, and with half of the attention's products."""
    model = ModelConfig(preset=options.preset)
    full = model.flops_per_token(options.vocabulary, options.sequence)
    half = full - 6 * model.layers * model.query_size * options.sequence
    rows = []
    for name, values in rates.items():
        peak = peak_tflops(told[name]["device"])
        if peak is None or name == CEILING:
            continue
        for what, flops in (("MFU", full), ("MFU, causal half", half)):
            rows.append(row(case, name, what, [rate * flops / peak / 1e12 for rate in values]))
    return rows


class _Worker:
    """A variant in a process of its own, which makes steps when told."""

    def __init__(self, name: str, task: dict[str, Any], keeps_memory: bool) -> None:
        self.name = name
        environment = {key: value for key, value in os.environ.items() if key not in KEEP_MEMORY}
        environment |= KEEP_MEMORY if keeps_memory else {}
        told = json.dumps({**task, "variant": name.removesuffix(ALLOCATOR)})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.step", told],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def run(self, steps: int) -> dict[str, Any]:
        """Make so many steps; their seconds, the last loss, and more, or why it cannot."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def worker_main(task: dict[str, Any], answers: TextIO) -> None:
    """One variant: build it, then make as many steps as each line says."""
    import logging

    from hpctrain.parallel.process import choose_accelerator, process_group
    from hpctrain.parallel.world import discover_world

    choose_accelerator()
    logging.disable(logging.WARNING)
    with process_group(discover_world({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})) as device:
        from bench.step_peers import BUILDERS, Setting

        try:
            step = BUILDERS[task["variant"]](Setting(task, device))
        except ImportError as missing:
            sys.stdin.readline()  # only an answer may end this: who asks is still writing
            print(json.dumps({"left out": str(missing)}), file=answers, flush=True)
            return
        for line in sys.stdin:
            print(json.dumps(_steps(step, int(line), device)), file=answers, flush=True)


def _steps(step: Any, count: int, device: Any) -> dict[str, Any]:
    import resource
    import time

    import torch
    from torch._dynamo.utils import counters

    seconds, loss = [], 0.0
    for _ in range(count):
        began = time.perf_counter()
        loss = step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    held = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    held = held or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    graphs = counters["stats"]["unique_graphs"]
    return {"seconds": seconds, "loss": loss, "memory": held, "device": name, "graphs": graphs}


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    worker_main(json.loads(sys.argv[1]), own)
    os._exit(0)
