"""Start-up: seconds from a process's start to its first step, by part and ranks; what initialize calls."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from bench.engines import Task, build, in_ranks, run_task
from bench.table import Row, row
from hpctrain.launch.local import run_ranks

VOCABULARY = 2048
LAYOUTS = {"ZeRO 1": (1, 1), "ZeRO 3": (3, 1), "pipeline 2": (1, 2)}
CALLS = ("new_group", "broadcast", "all_reduce", "all_gather", "barrier", "send", "recv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="run config, such as configs/pretrain/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    parser.add_argument("--ranks", default="1,2,4,8", help="numbers of ranks")
    parser.add_argument("--rounds", type=int, default=3, help="every number of ranks once a round, in turn")


def measure(options: argparse.Namespace) -> list[Row]:
    """Start anew and start again with a restore, for each number of ranks; then count DeepSpeed's calls."""
    ranks = [int(each) for each in options.ranks.split(",")]
    samples: dict[tuple[int, str, str], list[float]] = {}
    for _ in range(options.rounds):
        for size in ranks:
            with tempfile.TemporaryDirectory(prefix="hpctrain-bench-") as place:
                for start, steps in (("anew", 2), ("restored", 3)):
                    parts = _start(options, size, Path(place) / "run", steps)
                    for part, seconds in [*parts.items(), ("all", sum(parts.values()))]:
                        samples.setdefault((size, start, part), []).append(seconds)
    rows = [
        row(f"{size} ranks, {start}", part, "seconds", values)
        for (size, start, part), values in sorted(samples.items(), key=lambda item: item[0][:2])
    ]
    return rows + [each for size in ranks for layout in LAYOUTS for each in _calls(size, layout)]


def _start(options: argparse.Namespace, ranks: int, run: Path, steps: int) -> dict[str, float]:
    """Train up to `steps`; the seconds of the start by part."""
    changed = [f"run.dir={run}", f"train.steps={steps}", "schedule.warmup_steps=0", "log.wandb=disabled"]
    command = [sys.executable, "-m", "hpctrain", "train", str(options.config), *options.overrides, *changed]
    if code := run_ranks(command, ranks):
        raise SystemExit(f"{' '.join(command)} on {ranks} ranks: exit code {code}")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    ready = [event["startup_seconds"] for event in events if event["event"] == "ready"][-1]
    assert isinstance(ready, dict)
    return ready


def _calls(ranks: int, layout: str) -> list[Row]:
    """How often deepspeed.initialize speaks to other ranks: exact, whatever the machine."""
    zero, stages = LAYOUTS[layout]
    if ranks % stages:
        return []
    counts = in_ranks("bench.startup", ranks, {"preset": "1m", "zero": zero, "stages": stages})
    return [row(f"initialize, {ranks} ranks", layout, f"calls of {name}", [counts[name]])
            for name in sorted(counts)]  # fmt: skip


def rank_main(task: Task, world: Any, device: Any) -> dict[str, int]:
    """One rank: build an engine and count the collectives on the way."""
    counts = _count_calls()
    build(task, VOCABULARY, world, device)
    return counts


def _count_calls() -> Counter[str]:
    """Count every call of torch.distributed from here on."""
    import torch

    counts: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(torch.distributed, name, counting(name, getattr(torch.distributed, name)))
    return counts


if __name__ == "__main__":
    run_task(rank_main)
