"""Look for data races with ThreadSanitizer, on an OpenMP runtime whose locks and barriers it understands.

gcc's own runtime is not annotated for it, so every barrier would look like none and every loop like a race.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.sandbox.run import Limits, Sandbox
from hpctrain.sandbox.toolchain import build, execute

SANITIZE = ("-fsanitize=thread", "-g", "-O1")
"""Options that every object must be compiled with."""
THREADS = 4
_SHIM = Path(__file__).with_name("openmp_shim.c")
_REPORT_BYTES = 4000


@dataclass(frozen=True)
class Finding:
    """What a run under ThreadSanitizer showed."""

    looked: bool
    """Whether it ran to its end: absence is claimed only where it was looked for."""
    report: str = ""
    """The first race, as ThreadSanitizer tells it."""


def look_for_races(
    sandbox: Sandbox,
    place: Path,
    parts: Sequence[str],
    linker: str,
    arguments: Sequence[str],
    limits: Limits,
) -> Finding:
    """Link objects that were compiled with SANITIZE, and run them with THREADS threads.

    A program that needs more of OpenMP than the runtime has (tasks, devices) does not link: not looked at.
    """
    shutil.copy(_SHIM, place / "shim.c")
    shim = build(sandbox, place, ["shim.c"], "shim.o", "c", "", ["-c", *SANITIZE])
    if shim.status != "ok":
        return Finding(False)
    linked = build(sandbox, place, [*parts, "shim.o"], "sanitized", linker, "", [*SANITIZE, "-pthread"])
    if linked.status != "ok":
        return Finding(False)
    slower = replace(
        limits.times(THREADS),
        seconds=4 * limits.seconds,
        memory_bytes=2 * limits.memory_bytes,
        address_space=False,
    )
    # It maps fixed addresses, which a random layout may have taken.
    prefix = ("setarch", "-R") if shutil.which("setarch") else ()
    options = {"TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    ran = execute(sandbox, place, "sanitized", "", THREADS, arguments, slower, options, prefix)
    if "ThreadSanitizer: data race" in ran.stderr:
        return Finding(True, ran.stderr[:_REPORT_BYTES])
    return Finding(ran.status == "ok")
