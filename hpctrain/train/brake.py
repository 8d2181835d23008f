"""What asks a run to save or to stop: a signal, a file in the run directory, the wall of the allocation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpctrain.errors import NoProgress, StoppedByHand
from hpctrain.train.signals import StopRequest

STOP_FILE = "stop"
SAVE_FILE = "save"
RESTART_LIMIT = 3
_LOOK_SECONDS = 1.0
_LEAVE_SECONDS = 15.0
_SAVE_MARGIN = 1.5


@dataclass
class Brake:
    """Asked between steps. Files and the wall are rank 0's business, signals that of every rank."""

    directory: Path
    signals: StopRequest
    leads: bool
    """Whether this is rank 0."""
    deadline: float | None = None
    """When the scheduler ends the job, in seconds since the epoch."""
    save_seconds: float = 0.0
    """The longest that a save of this run has taken lately."""
    step_seconds: float = 0.0
    """The longest that a step, with what belongs to it, has taken lately."""
    reason: str = ""
    """What asked to stop, if this rank knows it."""
    by_hand: bool = False
    """Whether RUN/stop asked to stop."""
    save_asked: bool = False
    """Whether RUN/save asks for a save."""
    _looked: float = field(default=0.0, repr=False)

    def pressed(self, step_seconds: float) -> bool:
        """Whether this rank asks to stop now; `step_seconds` have passed since it was asked before."""
        self.step_seconds = max(step_seconds, 0.9 * self.step_seconds)
        if self.signals.signal is not None:
            self.reason = f"asked to by {self.signals.signal.name}"
        if self.leads:
            self._look_at_files()
            if self.deadline is not None and time.time() + self.lead_seconds() > self.deadline:
                left = self.deadline - time.time()
                self.reason = (
                    self.reason or f"{left:.0f} s are left, a save may take {self.save_seconds:.1f} s"
                )
        return bool(self.reason)

    def lead_seconds(self) -> float:
        """How long before the wall the run must stop: for the save, two steps, and leaving."""
        return _SAVE_MARGIN * self.save_seconds + 2 * self.step_seconds + _LEAVE_SECONDS

    def _look_at_files(self) -> None:
        """Look for the files, but not at every short step: a stat on a shared file system is not free."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        self.save_asked = (self.directory / SAVE_FILE).exists()
        if (self.directory / STOP_FILE).exists():
            self.by_hand, self.reason = True, f"asked to by {self.directory / STOP_FILE}"

    def saved(self, seconds: float) -> None:
        """Take in how long a save has taken, and that the one asked for has been made."""
        self.save_seconds = max(seconds, 0.5 * self.save_seconds)

    def answer_save(self) -> None:
        """A save that RUN/save asked for has begun: remove the file."""
        if self.leads and self.save_asked:
            (self.directory / SAVE_FILE).unlink(missing_ok=True)
        self.save_asked = False


def longest_save_seconds(events: Sequence[dict[str, Any]]) -> float:
    """The longest of a run's last saves, by its events; 0 if it has not saved."""
    seconds = [event["seconds"] for event in events if event["event"] == "save" and "seconds" in event]
    return max(seconds[-3:], default=0.0)


def refuse_stopped(directory: Path) -> None:
    """Raise StoppedByHand if a run that has been stopped by its file is started again."""
    if (directory / STOP_FILE).exists():
        raise StoppedByHand(f"{directory / STOP_FILE} is there; remove it to go on")


def refuse_standstill(events: Sequence[dict[str, Any]], series: str, step: int) -> None:
    """Raise NoProgress if a job and its successors have begun at `step` too often already."""
    starts = [event for event in events if event["event"] == "start"]
    vain = 0
    for start in reversed(starts):
        if not series or start.get("series") != series or start["step"] != step:
            break
        vain += 1
    if vain > RESTART_LIMIT:
        raise NoProgress(
            f"{vain} starts in a row at step {step} without progress to the next checkpoint: not run again. "
            "See events.jsonl and logs/ in the run directory for what ended them; a new job may try anew"
        )
