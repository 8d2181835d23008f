"""Where the seconds between the start of a job and its first step go."""

from __future__ import annotations

import time

import psutil


class StartClock:
    """Seconds by part of the start, each from the end of the one before."""

    def __init__(self, job_start: float | None = None) -> None:
        began = psutil.Process().create_time()
        self.parts: dict[str, float] = {}
        if job_start is not None:
            self.parts["job_start"] = round(max(0.0, began - job_start), 3)
        self._last = began

    def mark(self, part: str) -> None:
        """The part has ended just now."""
        now = time.time()
        self.parts[part] = round(now - self._last, 3)
        self._last = now
