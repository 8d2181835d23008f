"""One voice for humans: progress with time to go on stderr, bars in a terminal and lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LINE_INTERVAL_SECONDS = 10.0


def say(message: str) -> None:
    """Print one line of log to stderr."""
    print(message, file=sys.stderr, flush=True)


def tell_batch_script(word: str) -> None:
    """Leave a line for launch/job.sh, which decides by it whether to run again: `ready`, or an exit code."""
    if path := os.environ.get("HPCTRAIN_NOTES"):
        try:
            with Path(path).open("a", encoding="utf-8") as notes:
                notes.write(f"{word}\n")
        except OSError as reason:
            say(f"{path}: {reason.strerror}: launch/job.sh will not know of {word!r}")


def duration(seconds: float) -> str:
    """Seconds as `42s`, `3m05s` or `2h07m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """A task that advances towards a total and can carry a short status text."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.status = ""

    def advance(self, amount: float = 1, status: str | None = None) -> None:
        """Count `amount` more units done."""
        self.done += amount
        if status is not None:
            self.status = status
        self._show()

    def _show(self) -> None:
        """Draw; the silent base draws nothing."""


class _Lines(Progress):
    """For pipes and batch logs: a line every ten seconds."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        super().__init__(label, total, unit)
        self.start = self.last = time.monotonic()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.last < _LINE_INTERVAL_SECONDS:
            return
        self.last = now
        say(f"{self.label}: {_share(self.done, self.total)} of {self.total:,.0f} {self.unit}, "
            f"{duration(_remaining(self, now - self.start))} to go  {self.status}".rstrip())  # fmt: skip


def _share(done: float, total: float) -> str:
    return f"{100 * done / total:.0f}%" if total else "0%"


def _remaining(progress: Progress, elapsed: float) -> float:
    return elapsed * (progress.total - progress.done) / progress.done if progress.done else 0.0


class _Bar(Progress):
    """For terminals: a rich bar that the caller's context manager owns."""

    def __init__(self, label: str, total: float, unit: str) -> None:
        super().__init__(label, total, unit)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.rich = RichProgress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=Console(stderr=True),
        )
        self.task = self.rich.add_task(label, total=total, status="")

    def _show(self) -> None:
        self.rich.update(self.task, completed=self.done, status=self.status)


@contextmanager
def progress(label: str, total: float, unit: str, visible: bool = True) -> Iterator[Progress]:
    """Report progress through a block: a bar on a terminal, lines in a log, nothing if not `visible`."""
    if not visible:
        yield Progress(label, total, unit)
    elif sys.stderr.isatty():
        bar = _Bar(label, total, unit)
        with bar.rich:
            yield bar
    else:
        start = time.monotonic()
        lines = _Lines(label, total, unit)
        yield lines
        if (elapsed := time.monotonic() - start) > 2:
            say(f"{label}: {lines.done:,.0f} {unit} in {duration(elapsed)}  {lines.status}".rstrip())
