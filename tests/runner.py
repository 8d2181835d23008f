"""Real runs of the command on a tiny model: what the tests of train/, checkpoint/ and export/ start from."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

STEPS = 6


def environment() -> dict[str, str]:
    """One thread a rank, and no variables of a launcher that the tests themselves may run under."""
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_", "PMI", "RANK", "WORLD_"))
    }
    return {**kept, "OMP_NUM_THREADS": "1"}


@dataclass
class Runner:
    """Writes configs and runs `hpctrain` as a user would."""

    directory: Path
    shards: Path

    def config(self, name: str = "run", **sections: dict[str, Any]) -> Path:
        """A config of a tiny run in `directory/name`; sections replace keys."""
        tree: dict[str, Any] = {
            "run": {"name": name, "dir": str(self.directory / name)},
            "data": {"shards": str(self.shards), "sequence_length": 64, "fim": {"rate": 0.5}},
            "model": {
                "hidden_size": 32,
                "layers": 2,
                "heads": 4,
                "kv_heads": 2,
                "mlp_size": 64,
                "tied": True,
            },
            "optimizer": {"learning_rate": 0.003},
            "schedule": {"warmup_steps": 1},
            "train": {"steps": STEPS, "global_batch_size": 8, "micro_batch_size": 2},
            "checkpoint": {"every_steps": 2, "keep": 10},
            "log": {"wandb": "disabled"},
        }
        for section, keys in sections.items():
            tree[section] = {**tree.get(section, {}), **keys}
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "hpctrain", *map(str, arguments)], env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command and check its exit code."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def train(self, config: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Train on two ranks, or as `arguments` say."""
        ranks = [] if "--ranks" in arguments else ["--ranks", 2]
        return self.run("train", config, *ranks, *arguments, code=code)

    def wait_for_step(self, name: str, step: int, process: subprocess.Popen[str]) -> None:
        """Wait until a run has logged a step."""
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if any(line.get("step", 0) >= step and "loss" in line for line in self.metrics(name)):
                return
            time.sleep(0.02)
        raise AssertionError(f"step {step} did not come: {process.communicate()}")

    def metrics(self, name: str = "run") -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that are whole."""
        path = self.directory / name / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def curve(self, name: str = "run") -> dict[int, tuple[float, float, str]]:
        """Loss, gradient norm and batch digest by step; the last line of a step counts."""
        return {
            line["step"]: (line["loss"], line["grad_norm"], line["batch_digest"])
            for line in self.metrics(name)
            if "loss" in line
        }

    def events(self, name: str = "run") -> list[dict[str, Any]]:
        """The lines of events.jsonl."""
        return [
            json.loads(line) for line in (self.directory / name / "events.jsonl").read_text().splitlines()
        ]

    def checkpoint(self, step: int, name: str = "run") -> Path:
        """Where a step's checkpoint lies."""
        return self.directory / name / "checkpoints" / f"step-{step:08d}"


def end(process: subprocess.Popen[str]) -> None:
    """End a command and everything it started."""
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def rank_processes(parent: int) -> list[int]:
    """The ranks that a local launcher started, by rank."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    )
    return sorted(int(pid) for pid in listed.stdout.split())
