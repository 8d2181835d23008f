"""The profiler switch: a trace of a few steps of some ranks, and what their time went into."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from hpctrain.config import Section
from hpctrain.progress import say

if TYPE_CHECKING:  # configs are checked on login nodes without torch
    import torch

PROFILE_NAME = "profile"
WAIT = "hpctrain: wait for data"
_OPERATORS_SHOWN = 40
_ALLOCATIONS_KEPT = 200_000


class ProfileConfig(Section):
    """Steps to be traced by torch.profiler into RUN/profile; off unless `first_step` is given."""

    first_step: int | None = Field(default=None, ge=1)
    """The first step to trace; none: no profile. The step before it warms the profiler up."""
    steps: int = Field(default=3, ge=1, le=100)
    """How many steps to trace; a trace takes tens of megabytes a step."""
    ranks: tuple[int, ...] = Field(default=(0,), min_length=1)
    """The ranks that write one each."""
    memory: bool = False
    """Trace allocations too; on GPUs, write a snapshot of the allocator for pytorch.org/memory_viz."""

    @field_validator("ranks")
    @classmethod
    def _not_negative(cls, ranks: tuple[int, ...]) -> tuple[int, ...]:
        if min(ranks) < 0:
            raise ValueError(f"{min(ranks)} is no rank; ranks count from 0")
        return ranks

    @property
    def last_step(self) -> int | None:
        """The last step to trace; None if there is no profile."""
        return None if self.first_step is None else self.first_step + self.steps - 1

    def problems(self, steps: int, world_size: int) -> list[str]:
        """What a run of so many steps and ranks cannot trace."""
        found = []
        if self.last_step is not None and self.last_step > steps:
            found.append(
                f"train.profile: the last step to trace is {self.last_step}, but train.steps is {steps}"
            )
        if self.first_step is not None and max(self.ranks) >= world_size:
            found.append(
                f"train.profile.ranks: there is no rank {max(self.ranks)}; "
                f"the ranks are 0 to {world_size - 1}"
            )
        return found


class Profiler:
    """Told of each step before and after it. This one, of a rank that traces nothing, does nothing."""

    def before(self, step: int) -> None:
        """A step is about to begin, before its data are waited for."""

    def after(self, step: int) -> None:
        """A step has ended."""

    def span(self, name: str) -> AbstractContextManager[Any]:
        """Marks a block of code in the trace."""
        return nullcontext()

    def close(self) -> None:
        """No more steps: what was traced so far is written."""


def open_profiler(config: ProfileConfig, run: Path, rank: int, device: torch.device, done: int) -> Profiler:
    """The profiler of one rank in a run that has done so many steps; says where nothing is left to trace."""
    if config.first_step is None or config.last_step is None or rank not in config.ranks:
        return Profiler()
    if done >= config.last_step:
        if rank == min(config.ranks):
            say(f"train.profile: step {config.last_step} is done already, nothing is traced")
        return Profiler()
    return _Tracer(config, max(config.first_step, done + 1), config.last_step, run, rank, device)


class _Tracer(Profiler):
    """Traces steps `first` to `last` and writes what it found; a failure to write is told, not raised."""

    def __init__(
        self, config: ProfileConfig, first: int, last: int, run: Path, rank: int, device: torch.device
    ) -> None:
        self.config, self.first, self.last = config, first, last
        self.directory, self.rank, self.device = run / PROFILE_NAME, rank, device
        self.traced_to = 0
        self.is_done = False
        self.trace: Any = None

    def before(self, step: int) -> None:
        if self.is_done:
            return
        if self.trace is None and step >= self.first - 1:
            self._begin(warm_up=step < self.first)
        if step == self.first and self.config.memory and self.device.type == "cuda":
            import torch

            torch.cuda.memory._record_memory_history(max_entries=_ALLOCATIONS_KEPT, stacks="python")

    def after(self, step: int) -> None:
        if self.trace is None:
            return
        if step >= self.first:
            self.traced_to = step
        self.trace.step()  # after the last, this writes
        if step >= self.last:
            self.close()

    def span(self, name: str) -> AbstractContextManager[Any]:
        if self.trace is None:
            return nullcontext()
        import torch

        block: AbstractContextManager[Any] = torch.profiler.record_function(name)
        return block

    def close(self) -> None:
        trace, self.trace, self.is_done = self.trace, None, True
        if trace is not None:
            trace.stop()

    def _begin(self, warm_up: bool) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        kinds = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        self.trace = profile(
            activities=kinds, record_shapes=True, profile_memory=self.config.memory, acc_events=True,
            schedule=schedule(
                wait=0, warmup=int(warm_up), active=self.last - self.first + 1, repeat=1
            ),
            on_trace_ready=self._write,
        )  # fmt: skip
        self.trace.start()

    def _write(self, trace: Any) -> None:
        """Write the trace, the table and the snapshot under the steps that they cover."""
        if self.traced_to < self.first:
            return
        name = f"rank-{self.rank}-step-{self.first}-{self.traced_to}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _publish(self.directory / f"{name}.json.gz", trace.export_chrome_trace)
            text = self._text(trace)
            _publish(self.directory / f"{name}.txt", lambda path: Path(path).write_text(text, "utf-8"))
            if self.config.memory and self.device.type == "cuda":
                import torch

                _publish(self.directory / f"{name}.memory.pickle", torch.cuda.memory._dump_snapshot)
                torch.cuda.memory._record_memory_history(enabled=None)
        except (OSError, RuntimeError) as reason:
            say(f"warning: train.profile: rank {self.rank} could not write its profile: {reason}")
            return
        say(f"profile of rank {self.rank}, steps {self.first} to {self.traced_to}: "
            f"{self.directory / name}.json.gz")  # fmt: skip

    def _text(self, trace: Any) -> str:
        """What the traced time went into, and the costliest operators."""
        from hpctrain.train.traced import divide

        on_device = self.device.type == "cuda"
        lines = [f"rank {self.rank} on {self.device}, steps {self.first} to {self.traced_to}"]
        lines += divide(trace.events(), WAIT, on_device).lines()
        table = trace.key_averages().table(
            sort_by="self_device_time_total" if on_device else "self_cpu_time_total",
            row_limit=_OPERATORS_SHOWN, max_name_column_width=60,
        )  # fmt: skip
        return "\n".join([*lines, "", table])


def _publish(path: Path, write: Callable[[str], object]) -> None:
    """Write a file aside, then rename it, so that it appears whole or not at all."""
    aside = path.with_name(f".{os.getpid()}.{path.name}")  # its ending tells torch to compress
    try:
        write(str(aside))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
