"""What a check says: one record a fact, with a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "wrong", "skipped"]
"""`skipped`: it could not be looked at, and `remedy` says what is needed for that."""

Scope = Literal["rank", "uniform", "world"]
"""`rank`: it is so for the rank that says it; `uniform`: and must be the same for all; `world`: one rank
speaks for all."""


@dataclass(frozen=True)
class Finding:
    """One line of what a rank has found."""

    check: str
    """What was looked at, in a word or two."""
    found: str
    verdict: Verdict = "ok"
    remedy: str = ""
    """What to do about it; empty only where all is well."""
    scope: Scope = "rank"


def amount(size: float) -> str:
    """A number of bytes in decimal units: `64.0 MB`."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def brief(seconds: float) -> str:
    """A short time in the unit that fits: `12 us`, `3.4 ms`, `2.1 s`."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds * 1e6:.0f} us"


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 rank`, `4 ranks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def reason_of(error: BaseException) -> str:
    """The first line of an error, or its kind where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
