"""Save a checkpoint: copy what each rank owns, let a thread write it, agree on how it went between steps.

Training stops for the copy only. The threads share nothing but files (publish.py); the ranks speak to each
other only here, in the training thread, when a save begins and when it is waited for.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpctrain.checkpoint.config import CheckpointConfig
from hpctrain.checkpoint.format import RunState, checkpoint_name
from hpctrain.checkpoint.fragments import full_shapes
from hpctrain.checkpoint.publish import FAILED, Attempt, SaveCancelledError, publish, write_share
from hpctrain.checkpoint.retention import remove_partials, retire
from hpctrain.checkpoint.snapshot import HostBuffer, Snapshot
from hpctrain.engine.base import Engine
from hpctrain.errors import CheckpointError, ConfigError
from hpctrain.parallel.process import Gang, raise_together

_POLL_SECONDS = 0.02
_LAST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Saved:
    """A checkpoint that has been committed, as rank 0 tells of it."""

    step: int
    seconds: float
    """From the start of the save to the end of retention."""
    bytes: int
    """Size of all files that the manifest lists."""
    retired: list[str]
    """Names of the checkpoints that were deleted for it."""
    blocked_seconds: float = 0.0
    """How long training stood still for it."""


@dataclass
class _Pending:
    """A save whose files are being written."""

    attempt: Attempt
    outcome: Future[Saved | None]
    blocked_seconds: float


class Saver:
    """Saves the checkpoints of a run, one at a time; as a context it waits for the last one at the end.

    `tell` hears of each committed checkpoint, on rank 0, in the thread that calls these methods.
    """

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        config: CheckpointConfig,
        identity: Mapping[str, str],
        tell: Callable[[Saved], None],
    ) -> None:
        self.engine, self.directory, self.config = engine, directory, config
        self.identity, self.tell = dict(identity), tell
        self.gang = Gang(engine.topology.rank, engine.topology.world_size)
        self.buffer = HostBuffer(config.staging_dir)
        self.threads = ThreadPoolExecutor(1, "checkpoint")
        self.pending: _Pending | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """After an error, other ranks may be gone: give this rank's thread a bounded time, alone."""
        if self.pending is not None:
            pending = self.pending
            self.settle(_LAST_WAIT_SECONDS if isinstance(error, Exception) else 0.0)
            self.poll()
            pending.attempt.cancelled.set()
        self.threads.shutdown(wait=False)

    def settle(self, seconds: float) -> None:
        """Give this rank's thread some seconds to finish what it is writing. Not a collective call."""
        pending, deadline = self.pending, time.monotonic() + seconds
        while pending is not None and not pending.outcome.done() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def begin(self, state: RunState, facts: Mapping[str, float] | None = None) -> None:
        """Copy this rank's state and start to write it; waits for the save before. A collective call.

        `facts`: numbers that the manifest shall carry besides. Raises CheckpointError on every rank.
        """
        self.wait()
        began = time.monotonic()
        attempt = self._prepare(state.step, began)
        snapshot = self._take_snapshot()
        shapes, counts = full_shapes(self.engine), {**state.model_dump(), **(facts or {})}
        outcome = self.threads.submit(self._write, attempt, snapshot, shapes, counts)
        self.pending = _Pending(attempt, outcome, time.monotonic() - began)

    def _take_snapshot(self) -> Snapshot:
        """Copy this rank's state; all ranks learn if one has no place for it."""
        problem, snapshot = None, None
        try:
            snapshot = self.buffer.take(self.engine)
        except OSError as reason:
            problem = ConfigError(f"checkpoint.staging_dir: {_describe(reason, self.directory)}")
        raise_together(problem)
        assert snapshot is not None
        return snapshot

    def poll(self) -> bool:
        """Tell of a save that has been committed; returns whether this rank's part of it has failed."""
        if self.pending is None or not self.pending.outcome.done():
            return False
        if self.pending.outcome.exception() is not None:
            return True
        saved = self.pending.outcome.result()
        if saved is not None:
            self.tell(replace(saved, blocked_seconds=self.pending.blocked_seconds))
        self.pending = None
        return False

    def wait(self) -> None:
        """Wait until no rank is writing any more. A collective call. Raises CheckpointError on every rank."""
        began, pending = time.monotonic(), self.pending
        while True:
            states = self.gang.concatenate([self._state()])
            if pending is not None and "failed" in states:
                pending.attempt.cancelled.set()
            if "writing" not in states:
                break
            time.sleep(_POLL_SECONDS)
        if pending is not None:
            pending.blocked_seconds += time.monotonic() - began
        error = self._error() if self.poll() else None
        if "failed" in states:
            self._abandon()
            raise_together(error)

    def _state(self) -> str:
        if self.pending is None:
            return "idle"
        if not self.pending.outcome.done():
            return "writing"
        return "failed" if self.pending.outcome.exception() is not None else "written"

    def _error(self) -> CheckpointError | None:
        """What went wrong in this rank's thread, unless that only followed from another rank's failure."""
        assert self.pending is not None
        reason = self.pending.outcome.exception()
        if isinstance(reason, CheckpointError):
            return None if isinstance(reason, SaveCancelledError) else reason
        logging.getLogger("hpctrain").error("a save failed", exc_info=reason)
        return CheckpointError(f"{FAILED}\n{reason!r}")

    def _abandon(self) -> None:
        """Every rank's thread has ended: what they wrote only takes room."""
        if self.pending is not None and self.gang.rank == 0:
            shutil.rmtree(self.pending.attempt.partial, ignore_errors=True)
        self.pending = None

    def _prepare(self, step: int, began: float) -> Attempt:
        """Rank 0 makes a directory with a name that no attempt had before, and the ranks agree on it."""
        names, error = [], None
        if self.gang.rank == 0:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                remove_partials(self.directory)
                names = [f".{checkpoint_name(step)}.partial-{uuid.uuid4().hex[:8]}"]
                (self.directory / names[0]).mkdir()
            except OSError as reason:
                error = CheckpointError(f"{FAILED}\n{_describe(reason, self.directory)}")
        raise_together(error)
        [name] = self.gang.concatenate(names)
        final = self.directory / checkpoint_name(step)
        return Attempt(self.directory / name, final, self.gang.size, threading.Event(), began)

    def _write(
        self, attempt: Attempt, snapshot: Snapshot, shapes: dict[str, list[int]], counts: dict[str, Any]
    ) -> Saved | None:
        """What the thread does: this rank's share, and on rank 0 all that makes it count."""
        try:
            write_share(attempt, self.gang.rank, snapshot, shapes)
            if self.gang.rank != 0:
                return None
            manifest = publish(
                attempt, self.config.patience_seconds, self.identity, counts, _layout(self.engine)
            )
        except OSError as reason:
            raise CheckpointError(f"{FAILED}\n{_describe(reason, attempt.partial)}") from reason
        try:
            retired = retire(self.directory, counts["step"], self.config)
        except OSError as reason:
            problem = _describe(reason, self.directory)
            raise CheckpointError(f"{attempt.final}: saved, but an old one stays: {problem}") from reason
        size = sum(record.bytes for record in manifest.files.values())
        return Saved(counts["step"], time.monotonic() - attempt.began, size, retired)


def save_checkpoint(engine: Engine, directory: Path, state: RunState, identity: dict[str, str]) -> None:
    """Save under `directory` and wait until it is committed; nothing is retired. A collective call.

    `identity`: fingerprints of what the run must not change; kept as the manifest's inputs. Raises
    CheckpointError on every rank if one rank could not write; what was saved before stays loadable.
    """
    everything = CheckpointConfig(keep=1_000_000_000)
    with Saver(engine, directory, everything, identity, tell=lambda saved: None) as saver:
        saver.begin(state)
        saver.wait()


def _layout(engine: Engine) -> dict[str, int]:
    return {
        "world_size": engine.topology.world_size,
        "pipeline_stages": engine.topology.pipeline_stages,
        "zero_stage": int(engine.deepspeed.zero_optimization_stage()),
    }


def _describe(reason: OSError, place: Path) -> str:
    return f"{reason.filename or place}: {reason.strerror or reason}"
