"""Rows of measurements, the machine they were taken on, and how they are printed."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLUMNS = ("case", "variant", "metric", "median", "spread", "ratio")


def row(case: str, variant: str, metric: str, values: Sequence[float], base: float | None = None) -> Row:
    """One row. spread: largest minus smallest value. ratio: to `base`, which is another variant's median."""
    median = statistics.median(values)
    return {
        "case": case, "variant": variant, "metric": metric, "median": round(median, 5),
        "spread": round(max(values) - min(values), 5), "ratio": round(median / base, 3) if base else None,
    }  # fmt: skip


def machine() -> dict[str, Any]:
    """What the figures depend on; no host name, no path."""
    import torch

    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "cpu": model[1] if model else platform.processor(), "cores": os.cpu_count(),
        "memory_gb": round(gigabytes, 1), "kernel": platform.release(), "torch": torch.__version__,
    }  # fmt: skip


def print_table(rows: Sequence[Row]) -> None:
    """Print rows as Markdown, after a line on the machine."""
    print(", ".join(f"{name} {value}" for name, value in machine().items()) + "\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for each in rows:
        print("| " + " | ".join("" if each[name] is None else f"{each[name]}" for name in COLUMNS) + " |")
