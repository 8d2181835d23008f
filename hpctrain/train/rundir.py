"""The run directory: its files, one writer at a time, and each rank's log."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpctrain.errors import ConfigError
from hpctrain.parallel.world import World
from hpctrain.train.metrics import EVENTS_NAME, METRICS_NAME, JsonLines, now

CONFIG_NAME = "run.yaml"
ORIGIN_NAME = "import.json"  # of what was imported, and never trained here
CHECKPOINTS_NAME = "checkpoints"
_LOCK_NAME = "run.lock"


@contextmanager
def hold(directory: Path, world: World) -> Iterator[None]:
    """Be the only job that writes to a run directory; the lock goes with the process, however it ends.

    Raises ConfigError that names the holder.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / _LOCK_NAME).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            if reason.errno not in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(
                    f"run.dir: {directory}: its file system grants no lock ({reason.strerror}); put the run "
                    "where fcntl locks work (on Lustre: mounted with -o flock)"
                ) from None
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise ConfigError(
                f"run.dir: {directory} is being written by another job, {holder}; "
                "wait for it to end, or use another run.dir"
            ) from None
        stream.truncate(0)
        me = {"host": socket.gethostname(), "pid": os.getpid(), "job": world.job_id, "since": now()}
        stream.write(json.dumps(me))
        stream.flush()
        yield


def is_held(directory: Path) -> bool:
    """Whether a process holds the lock of a run directory: asked (Linux's F_GETLK), never taken."""
    layout = "hhqqi4x"  # struct flock: type, whence, start, length, process id
    try:
        with (directory / _LOCK_NAME).open("rb") as stream:
            question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(stream, fcntl.F_GETLK, question)
    except OSError:
        return False
    return bool(struct.unpack(layout, answer)[0] != fcntl.F_UNLCK)


def log_path(directory: Path, rank: int) -> Path:
    """Where a rank's log lies."""
    return directory / "logs" / f"rank-{rank:05d}.log"


@contextmanager
def rank_log(directory: Path, rank: int) -> Iterator[logging.Logger]:
    """Send this rank's log, DeepSpeed's and torch's included, to RUN/logs/rank-00000.log."""
    path = log_path(directory, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=False)
    handler.setFormatter(logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("hpctrain")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    listened = [logger, logging.getLogger("DeepSpeed"), logging.getLogger("py.warnings")]
    for each in listened:
        each.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield logger
    finally:
        logging.captureWarnings(False)
        for each in listened:
            each.removeHandler(handler)
        handler.close()


class Journal:
    """Rank 0's metrics and events; on other ranks it writes nothing."""

    def __init__(self, directory: Path, world: World) -> None:
        self.directory, self.world, self.step = directory, world, 0
        writes = world.rank == 0
        self.metrics = JsonLines(directory / METRICS_NAME) if writes else None
        self.events = JsonLines(directory / EVENTS_NAME) if writes else None

    def metric(self, record: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        self.step = record["step"]
        if self.metrics:
            self.metrics.append(record)

    def event(self, kind: str, step: int, **details: Any) -> None:
        """One line of events.jsonl: start, ready, restore, save, fault or stop."""
        if self.events:
            place = {"world_size": self.world.size, "job_id": self.world.job_id}
            self.events.append({"time": now(), "event": kind, "step": step, **place, **details})

    def close(self) -> None:
        """Close both files."""
        for lines in (self.metrics, self.events):
            if lines:
                lines.close()
