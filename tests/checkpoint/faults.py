"""Faults for the ranks of a test job: killed, slowed or starved at the n-th thing they do to a checkpoint."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def install(fault: dict[str, Any], rank: int) -> None:
    """Patch file operations of this process: {"kind", "rank", "step", "at", "log"}.

    kill: at the `at`-th operation on the checkpoint of `step` by `rank`, the whole job gets SIGKILL; a write
    is done by half. slow: each write takes `seconds` more. silent: the rank's record never appears.
    """
    if fault["kind"] == "slow":
        watch(lambda operation, path, half: time.sleep(fault["seconds"]) if operation == "write" else None)
    elif fault["rank"] == rank:
        watch({"kill": Killer, "silent": Silencer}[fault["kind"]](fault))


class Killer:
    """Counts operations from the first on the chosen checkpoint on, and kills at the chosen one."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self.fault, self.count, self.armed = fault, 0, False

    def __call__(self, operation: str, path: str, half: Callable[[], None] | None) -> None:
        if f".step-{self.fault['step']:08d}" in path:
            self.armed = True
        elif ".step-" in path:
            self.armed = False  # the next save has begun
        if not self.armed or "checkpoints" not in path:
            return
        self.count += 1
        with Path(self.fault["log"]).open("a") as log:
            log.write(f"{operation} {path}\n")
        if self.count == self.fault["at"]:
            if half:
                half()
            os.killpg(0, signal.SIGKILL)


class Silencer:
    """Holds the thread that would leave the rank's record: the file never comes, and nothing fails."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self.fault = fault

    def __call__(self, operation: str, path: str, half: Callable[[], None] | None) -> None:
        if operation == "rename" and f"rank-{self.fault['rank']:05d}.json" in path:
            time.sleep(self.fault["seconds"])


def watch(notice: Callable[[str, str, Callable[[], None] | None], Any]) -> None:
    """Call `notice` before every write, flush, rename and deletion that this process does through pathlib."""
    plain_open, plain_fsync, plain_unlink, plain_rmdir = Path.open, os.fsync, os.unlink, os.rmdir
    plain = {name: getattr(Path, name) for name in ("rename", "replace", "mkdir")}

    def traced_open(self: Path, mode: str = "r", *args: Any, **keywords: Any) -> Any:
        stream = plain_open(self, mode, *args, **keywords)
        return Traced(stream, str(self), notice) if "w" in mode else stream

    def traced_fsync(descriptor: int) -> None:
        notice("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink()), None)
        plain_fsync(descriptor)

    def traced_removal(function: Callable[..., None], name: str) -> Callable[..., None]:
        def removal(path: Any, *, dir_fd: int | None = None) -> None:
            folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
            notice(name, str(folder / path), None)
            function(path, dir_fd=dir_fd)

        return removal

    def traced_rename(name: str) -> Callable[..., Any]:
        def rename(self: Path, *arguments: Any, **keywords: Any) -> Any:
            notice("mkdir" if name == "mkdir" else "rename", f"{self} {arguments}", None)
            return plain[name](self, *arguments, **keywords)

        return rename

    Path.open, os.fsync = traced_open, traced_fsync  # type: ignore[method-assign,assignment]
    os.unlink, os.rmdir = traced_removal(plain_unlink, "unlink"), traced_removal(plain_rmdir, "rmdir")
    for name in plain:
        setattr(Path, name, traced_rename(name))


class Traced:
    """A stream that tells of each write first."""

    def __init__(self, stream: Any, path: str, notice: Callable[..., Any]) -> None:
        self.stream, self.path, self.notice = stream, path, notice

    def write(self, data: Any) -> int:
        def half() -> None:
            self.stream.write(data[: len(data) // 2])
            self.stream.flush()

        self.notice("write", self.path, half)
        return self.stream.write(data)

    def __enter__(self) -> Traced:
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
