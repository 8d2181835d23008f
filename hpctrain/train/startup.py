"""Where the seconds between the start of a job and its first step go."""

from __future__ import annotations

import re
import time
from pathlib import Path

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


def has_bf16_products(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies in bf16 (by AVX-512, AMX or on Arm); True if it cannot be told."""
    try:
        told = cpuinfo.read_text("utf-8", errors="replace")
    except OSError:
        return True
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", told) is not None
