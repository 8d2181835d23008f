"""Run directories as the training loop writes them, without training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpctrain.manifest import commit, write_stage
from hpctrain.shards.layout import SHARDS_FORMAT, SHARDS_KIND
from hpctrain.train.metrics import EVENTS_NAME, METRICS_NAME, JsonLines

BATCH_TOKENS = 16 * 1024
FINAL_BITS = {"c": 1.02, "cpp": 1.11, "cuda": 1.31, "fortran-fixed": 1.22, "fortran-free": 0.93, "hip": 1.38}


@dataclass
class FakeRun:
    """A run directory that is written with the writers of the real one."""

    directory: Path
    steps: int = 400
    evaluate_every: int = 40
    name: str = "hpc-40m"
    shards: Path = Path("no-such-shards")
    clock: float = 1_780_000_000.0
    ranks: int = 2
    layout: dict[str, int] = field(default_factory=lambda: {"zero_stage": 1, "pipeline_stages": 1})

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        config = {
            "run": {"name": self.name, "dir": str(self.directory), "seed": 1},
            "data": {"shards": str(self.shards), "sequence_length": 1024, "mixture": {}},
            "model": {"preset": "40m", "hidden_size": 512, "layers": 10},
            "parallel": self.layout,
            "optimizer": {"learning_rate": 6e-4, "clip_norm": 1.0},
            "schedule": {"warmup_steps": self.steps // 10},
            "train": {
                "steps": self.steps,
                "global_batch_size": 16,
                "evaluate_every_steps": self.evaluate_every,
            },
        }
        (self.directory / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    def event(self, kind: str, step: int, **details: Any) -> None:
        lines = JsonLines(self.directory / EVENTS_NAME)
        place = {"world_size": self.ranks, "job_id": "4711"}
        lines.append({"time": self.clock, "event": kind, "step": step, **place, **details})
        lines.close()

    def start(self) -> None:
        versions = {"hpctrain": "0.1.0", "torch": "2.9.0", "deepspeed": "0.19.8"}
        self.event("start", 0, parameters=39_912_448, device="cpu", precision="bf16", layout=self.layout,
                   versions=versions)  # fmt: skip

    def save(self, step: int) -> None:
        directory = self.directory / "checkpoints" / f"step-{step:08d}"
        directory.mkdir(parents=True, exist_ok=True)
        commit(directory, "checkpoint", 1, {}, {"step": step}, {})
        self.event("save", step, seconds=0.41, retired=[])

    def restore(self, step: int) -> None:
        self.event("restore", step, checkpoint=f"step-{step:08d}", saved_by=self.layout)

    def train(self, first: int, last: int, save_every: int = 50) -> None:
        """Steps first to last: step 0 is the evaluation before the first."""
        lines = JsonLines(self.directory / METRICS_NAME)
        for step in range(first, last + 1):
            lines.append({"step": 0} | self.evaluation(0) if step == 0 else self.metric(step))
            self.clock += 1.3
            if step % save_every == 0 or step == self.steps:
                self.save(step)
        lines.close()

    def metric(self, step: int) -> dict[str, Any]:
        draw = random.Random(step)  # a repeated step repeats its numbers
        warmup = self.steps // 10
        decay = 0.55 + 0.45 * math.cos(math.pi * max(0, step - warmup) / self.steps)
        rate = 6500.0 * self.ranks * draw.uniform(0.93, 1.03) * (0.6 if draw.random() < 0.02 else 1)
        record: dict[str, Any] = {
            "step": step,
            "loss": self.curve(step, 2.05, 9.3) + draw.gauss(0, 0.06),
            "learning_rate": 6e-4 * min(step / warmup, decay),
            "grad_norm": math.exp(draw.gauss(0, 0.18)) * (0.55 + 5 * math.exp(-step / 25)),
            "tokens": step * BATCH_TOKENS,
            "tokens_per_second": round(rate, 1),
            "step_seconds": round(BATCH_TOKENS / rate, 5),
            "batch_digest": f"{step:016x}",
        }
        if self.evaluate_every and (step % self.evaluate_every == 0 or step == self.steps):
            record |= self.evaluation(step)
        return record

    def evaluation(self, step: int) -> dict[str, Any]:
        if not self.evaluate_every:
            return {}
        bits = {name: self.curve(step, final, final + 2.4) for name, final in FINAL_BITS.items()}
        return {
            "loss_by_language": {name: value * 2.1 for name, value in bits.items()},
            "bits_per_byte_by_language": bits,
        }

    def curve(self, step: int, final: float, initial: float) -> float:
        return final + (initial - final) * (0.55 * math.exp(-step / 14) + 0.45 * math.exp(-step / 110))


NewRun = Callable[..., FakeRun]


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """Makes a young run: a directory and its config."""

    def make(name: str = "run", **options: Any) -> FakeRun:
        return FakeRun(tmp_path / name, **options)

    return make


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """The directory of a shards stage that counts documents, but holds none."""
    return make_shards(tmp_path / "shards")


def make_shards(directory: Path) -> Path:
    files = dict(zip(FINAL_BITS, (21_412, 30_877, 2_140, 9_312, 7_105, 611), strict=True))
    with write_stage(directory, SHARDS_KIND, SHARDS_FORMAT) as stage:
        for name, scale in (("documents", 1), ("bytes", 8_900), ("tokens", 2_700)):
            stage.counts[name] = {
                "train": {language: number * scale for language, number in files.items()},
                "validation": {language: number // 100 * scale for language, number in files.items()},
            }
        stage.counts["licences"] = {
            "Apache-2.0": 191_000_000,
            "BSD-3-Clause": 312_000_000,
            "MIT": 133_000_000,
        }
    return directory


@pytest.fixture
def restarted(new_run: NewRun, shards: Path) -> FakeRun:
    return make_restarted(new_run(shards=shards))


def make_restarted(run: FakeRun) -> FakeRun:
    """A finished run that was killed in mid-line at step 217 and went on from step 200 on other ranks."""
    run.start()
    run.train(0, 217)
    with (run.directory / METRICS_NAME).open("a", encoding="utf-8") as stream:
        stream.write('{"step": 218, "loss": 2.')
    run.clock += 600
    run.ranks, run.layout = 4, {"zero_stage": 2, "pipeline_stages": 1}
    run.start()
    run.restore(200)
    run.train(201, run.steps)
    run.event("stop", run.steps, reason="finished")
    return run
