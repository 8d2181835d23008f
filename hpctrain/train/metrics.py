"""metrics.jsonl and events.jsonl: one JSON object a line, appended as the run goes, read by everyone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from hpctrain.config import Section
from hpctrain.errors import DataError
from hpctrain.progress import say

METRICS_NAME = "metrics.jsonl"
EVENTS_NAME = "events.jsonl"


class LogConfig(Section):
    """What is logged, and where to."""

    every_steps: int = Field(default=10, ge=1)
    """Steps between two lines in RUN/logs; metrics.jsonl has every step."""
    wandb: Literal["offline", "online", "disabled"] = "offline"
    """Weights & Biases: offline keeps its files in the run directory for `wandb sync`."""
    project: str = "hpctrain"
    """Weights & Biases project."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """Peak of one device in TFLOP/s, for MFU; none: that of its name in bf16, where it is known."""


class JsonLines:
    """Appends records to a file, each a line that is whole on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _end_broken_line(path)
        self.stream = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()  # the watch writes from its own thread

    def append(self, record: dict[str, Any]) -> None:
        """Write one line."""
        with self._lock:
            self.stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def _end_broken_line(path: Path) -> None:
    """A run that was killed in mid-line left a part of one: end it, so that the next stands alone."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as stream:
            stream.seek(-1, 2)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole records of a JSON-lines file; lines broken by a kill are passed over."""
    if not path.is_file():
        raise DataError(f"{path}: not found; is this the directory of a run?")
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """One record a step, in order: the last line of each step, since a restart supersedes what it repeats."""
    by_step = {record["step"]: record for record in read_lines(run / METRICS_NAME) if "step" in record}
    return [by_step[step] for step in sorted(by_step)]


def read_events(run: Path) -> list[dict[str, Any]]:
    """What happened to the run, in order."""
    return read_lines(run / EVENTS_NAME)


class MetricSink(Protocol):
    """Where the numbers of a step go."""

    def log(self, record: dict[str, Any]) -> None:
        """Take the numbers of one step."""

    def close(self) -> None:
        """No more will come."""


class WandbSink:
    """Weights & Biases. It must not stop a run: its first failure is told, then it gets no more."""

    def __init__(self, config: LogConfig, run_name: str, directory: Path, settings: dict[str, Any]) -> None:
        self.run: Any = None
        self._guard(lambda: self._open(config, run_name, directory, settings))

    def log(self, record: dict[str, Any]) -> None:
        """Log the numbers of one step, nested ones by language flattened."""
        flat: dict[str, Any] = {}
        for name, value in record.items():
            if isinstance(value, dict):
                flat.update({f"{name}/{key}": number for key, number in value.items()})
            elif isinstance(value, (int, float)):
                flat[name] = value
        if self.run is not None:
            self._guard(lambda: self.run.log(flat, step=record["step"]))

    def close(self) -> None:
        """Finish the W&B run."""
        if self.run is not None:
            self._guard(lambda: self.run.finish())

    def _open(self, config: LogConfig, run_name: str, directory: Path, settings: dict[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=config.project, name=run_name, id=run_name, resume="allow", mode=config.wandb,
            dir=str(directory), config=settings, settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as reason:  # noqa: BLE001 - whatever it is, training goes on without it
            self.run = None
            say(f"warning: Weights & Biases failed and gets no more of this run: {reason!r}")


def now() -> float:
    """Seconds since the epoch, to the millisecond."""
    return round(time.time(), 3)
