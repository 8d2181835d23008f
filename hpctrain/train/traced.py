"""What the time of traced steps went into, from the events of a trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True)
class Division:
    """Shares of the traced time, evaluations and saves that fell into it included."""

    seconds: float
    waiting: float
    """For data."""
    communicating: float
    """While a collective or a transfer between ranks was under way, waiting for other ranks included."""
    exposed: float | None
    """The part of that in which the GPU did nothing else; None on CPUs, where this cannot be told."""
    idle: float | None
    """While the GPU did nothing; None on CPUs."""

    def lines(self) -> list[str]:
        """The same in words."""
        found = [f"{self.seconds:.3f} s traced: {self.waiting:.1%} waiting for data"]
        exposed = "" if self.exposed is None else f", {self.exposed:.1%} with nothing else on the GPU"
        found.append(f"{self.communicating:.1%} with communication under way{exposed}")
        if self.idle is not None:
            found.append(f"{self.idle:.1%} with nothing on the GPU")
        return found


def divide(events: Iterable[Any], wait_name: str, on_device: bool) -> Division:
    """Divide the time that the events of a trace (torch's FunctionEvents) cover by what was done in it."""
    steps: list[Interval] = []
    waits: list[Interval] = []
    communication: list[Interval] = []
    computation: list[Interval] = []
    for event in events:
        interval = (event.time_range.start, event.time_range.end)
        is_kernel = on_device and event.device_type.name != "CPU" and not event.is_user_annotation
        if is_kernel:
            is_exchange = event.name.startswith("nccl")  # RCCL's kernels too
            (communication if is_exchange else computation).append(interval)
        elif event.device_type.name == "CPU":
            if event.name.startswith("ProfilerStep"):
                steps.append(interval)
            elif event.name == wait_name:
                waits.append(interval)
            elif not on_device and event.name.startswith("gloo:"):
                communication.append(interval)
    begin, end = min(start for start, _ in steps), max(stop for _, stop in steps)
    total = end - begin

    def share(intervals: Sequence[Interval]) -> float:
        clipped = ((max(start, begin), min(stop, end)) for start, stop in intervals)
        return covered(each for each in clipped if each[0] < each[1]) / total

    busy = share([*communication, *computation])
    return Division(
        seconds=total / 1e6,
        waiting=share(waits),
        communicating=share(communication),
        exposed=busy - share(computation) if on_device else None,
        idle=1 - busy if on_device else None,
    )


def covered(intervals: Iterable[Interval]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        if stop > reached:
            total += stop - max(start, reached)
            reached = stop
    return total
