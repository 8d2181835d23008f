"""The proof that a restart loses nothing: a run killed at random moments, against the run that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hpctrain.checkpoint.restore import full_weights, newest_whole
from hpctrain.config import dump_yaml
from hpctrain.errors import HpctrainError
from hpctrain.progress import progress, say
from hpctrain.train.config import RunConfig
from hpctrain.train.metrics import read_metrics

_POLL_SECONDS = 0.01
TOLERANCE = 1e-5
"""Largest relative difference of a loss where the restart used another number of ranks."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison found."""

    steps: int
    kills: list[int]
    """The last step that was logged before each kill."""
    exact: bool
    """Whether bit equality was asked for: the same ranks throughout."""
    difference: str | None
    """The first step or tensor that differs; None if nothing does."""
    largest_loss_difference: float
    """Relative, over all steps."""

    @property
    def equal(self) -> bool:
        """Whether the resumed run is the straight one, bit for bit or to the tolerance."""
        return self.difference is None

    @property
    def text(self) -> str:
        """The verdict in a sentence."""
        kills = ", ".join(map(str, self.kills))
        if self.difference:
            return f"killed after steps {kills}: {self.difference}"
        how = "bit for bit, final weights too" if self.exact else f"to {self.largest_loss_difference:.1e}"
        return f"killed after steps {kills}, resumed: all {self.steps} steps equal the straight run's {how}"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"equal": self.equal}


def prove_resume(
    config: RunConfig, scratch: Path, ranks: int, other_ranks: int, kills: int, seed: int
) -> Verdict:
    """Run the config straight, and again with SIGKILLs; compare losses, data and final weights.

    After a kill the run goes on with `other_ranks` ranks, then with `ranks`, in turn.
    """
    straight = _prepare(config, scratch, "straight")
    killed = _prepare(config, scratch, "killed")
    say(f"straight run: {config.train.steps} steps on {ranks} ranks")
    if code := _start(straight, ranks).wait():
        raise HpctrainError(f"the straight run failed with code {code}; see {scratch / 'straight' / 'logs'}")
    moments = random.Random(seed)
    at = []
    with progress("kills", kills, "kills") as bar:
        for number in range(kills):
            size = ranks if number % 2 == 0 else other_ranks
            at.append(
                _kill_somewhere(killed, scratch / "killed", size, config.train.steps, kills - number, moments)
            )
            bar.advance(1, f"killed after step {at[-1]}")
    last = ranks if kills % 2 == 0 else other_ranks
    if code := _start(killed, last).wait():
        raise HpctrainError(f"the resumed run failed with code {code}; see {scratch / 'killed' / 'logs'}")
    return _compare(scratch, config.train.steps, at, exact=ranks == other_ranks)


def _prepare(config: RunConfig, scratch: Path, name: str) -> Path:
    """A config of the same run in a directory of its own."""
    section = config.run.model_copy(update={"name": f"{config.run.name}-{name}", "dir": scratch / name})
    quiet = config.log.model_copy(update={"wandb": "disabled"})
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / f"{name}.yaml"
    path.write_text(dump_yaml(config.model_copy(update={"run": section, "log": quiet})), encoding="utf-8")
    return path


def _start(config: Path, ranks: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hpctrain", "train", str(config), "--ranks", str(ranks)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


def _kill_somewhere(
    config: Path, run: Path, ranks: int, steps: int, kills_left: int, moments: random.Random
) -> int:
    """Let the run go on for a random number of steps and a random moment more, then SIGKILL all of it."""
    begun = _last_step(run)
    target = begun + moments.randint(1, max(1, (steps - begun) // (kills_left + 1)))
    process = _start(config, ranks)
    while process.poll() is None and _last_step(run) < target:
        time.sleep(_POLL_SECONDS)
    time.sleep(moments.random() * 0.5)
    for pid in [process.pid, *_children(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    return _last_step(run)


def _children(parent: int) -> list[int]:
    """The ranks that a local launcher started (they lead sessions of their own)."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(parent).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _last_step(run: Path) -> int:
    if not (run / "metrics.jsonl").is_file():
        return 0
    metrics = read_metrics(run)
    return int(metrics[-1]["step"]) if metrics else 0


def _compare(scratch: Path, steps: int, kills: list[int], exact: bool) -> Verdict:
    curves = [
        {m["step"]: m for m in read_metrics(scratch / name) if m["step"]} for name in ("straight", "killed")
    ]
    largest, difference = 0.0, None
    for step in range(1, steps + 1):
        straight, killed = (curve.get(step) for curve in curves)
        problem = _step_difference(straight, killed, exact)
        if straight and killed:
            largest = max(largest, abs(killed["loss"] / straight["loss"] - 1))
        difference = difference or (f"step {step}: {problem}" if problem else None)
    if exact:
        difference = difference or _weight_difference(scratch)
    return Verdict(steps, kills, exact, difference, largest)


def _step_difference(
    straight: dict[str, Any] | None, killed: dict[str, Any] | None, exact: bool
) -> str | None:
    if straight is None or killed is None:
        return "missing"
    if straight["batch_digest"] != killed["batch_digest"]:
        return f"other data: {straight['batch_digest']} and {killed['batch_digest']}"
    apart = abs(killed["loss"] / straight["loss"] - 1)
    if killed["loss"] != straight["loss"] if exact else apart > TOLERANCE:
        return f"loss {straight['loss']} and {killed['loss']}"
    return None


def _weight_difference(scratch: Path) -> str | None:
    """The first tensor of the final checkpoints that is not bit-equal, if any."""
    wholes = [
        newest_whole(scratch / name / "checkpoints", may_start_anew=False) for name in ("straight", "killed")
    ]
    if wholes[0] is None or wholes[1] is None:
        return "a final checkpoint is missing"
    for (name, mine), (_, theirs) in zip(full_weights(wholes[0]), full_weights(wholes[1]), strict=True):
        if not torch.equal(mine, theirs):
            return f"final weights differ: {name}"
    return None
