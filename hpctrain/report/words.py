"""How the report writes numbers, sizes, times and text that came out of files."""

from __future__ import annotations

from datetime import datetime, timezone

NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""

_POWERS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(number: float | None) -> str:
    """A number of things, exact up to five digits: `8,120`, `39.9M`, `1.2B`; a dash for None."""
    if number is None or abs(number) < 1e5:
        return NOTHING if number is None else f"{number:,.0f}"
    return _scaled(number, _POWERS, "")


def size(number_of_bytes: float | None) -> str:
    """A size in decimal units: `45.6 MB`; a dash for None."""
    units = tuple(
        (factor, f" {prefix}B") for factor, prefix in zip((1e12, 1e9, 1e6, 1e3), "TGMk", strict=True)
    )
    return NOTHING if number_of_bytes is None else _scaled(number_of_bytes, units, " B")


def decimal(number: float | None, digits: int = 3) -> str:
    """A measured number to a fixed number of decimals; a dash for None."""
    return NOTHING if number is None else f"{number:,.{digits}f}"


def change(before: float | None, after: float | None) -> str:
    """The relative change from one number to another in percent, with its sign; a dash if one is None."""
    if not before or after is None:
        return NOTHING
    return f"{100 * (after - before) / before:+.1f}%".replace("-", "\N{MINUS SIGN}")


def moment(seconds: object) -> str:
    """Seconds since the epoch as a date and a time in UTC; a dash for what is no number."""
    if not isinstance(seconds, (int, float)):
        return NOTHING
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def plural(number: int, noun: str) -> str:
    """A number with its noun: `1 rank`, `4 ranks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def plain(text: object) -> str:
    """Text from a file without control characters, so that it cannot steer a terminal."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in str(text))


def _scaled(number: float, units: tuple[tuple[float, str], ...], smallest: str) -> str:
    for factor, unit in units:
        if abs(number) >= factor:
            scaled = number / factor
            return f"{scaled:,.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{number:,.0f}{smallest}"
