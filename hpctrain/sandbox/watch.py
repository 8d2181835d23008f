"""Watch a started command from outside: its output, time, memory, processes and files."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_LOOK_SECONDS = 0.02
_FILES_SECONDS = 0.25
_CHUNK = 1 << 16


@dataclass
class Watched:
    """A process that was started in a session of its own, with its output in pipes."""

    process: subprocess.Popen[bytes]
    directory: Path


@dataclass
class Ended:
    """What was seen."""

    returncode: int = 0
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    seconds: float = 0.0
    stopped_by: str = ""
    """The limit that was met; empty where the command ended by itself."""


def watch(
    started: Watched, seconds: float, memory_bytes: int, processes: int, output_bytes: int, file_bytes: int
) -> Ended:
    """Wait for the end, or bring it about at the first limit that is met."""
    process, ended, begin = started.process, Ended(), time.monotonic()
    look, look_at_files = begin, begin + _FILES_SECONDS
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as pipes:
        for pipe, sink in ((process.stdout, ended.stdout), (process.stderr, ended.stderr)):
            os.set_blocking(pipe.fileno(), False)
            pipes.register(pipe, selectors.EVENT_READ, sink)
        try:
            while not ended.stopped_by and (pipes.get_map() or process.poll() is None):
                ended.stopped_by = _read(pipes, output_bytes)
                now = time.monotonic()
                if now - begin > seconds:
                    ended.stopped_by = ended.stopped_by or f"ran longer than {seconds:g} s"
                elif now >= look:
                    look = now + _LOOK_SECONDS
                    ended.stopped_by = ended.stopped_by or _excess(process.pid, memory_bytes, processes)
                if now >= look_at_files:
                    begun = time.monotonic()
                    ended.stopped_by = ended.stopped_by or _written(started.directory, file_bytes)
                    # A directory of many files must not take all the time there is.
                    look_at_files = time.monotonic() + max(_FILES_SECONDS, 10 * (time.monotonic() - begun))
        finally:
            _end(process)
    ended.stopped_by = ended.stopped_by or _written(started.directory, file_bytes)
    for pipe in (process.stdout, process.stderr):
        pipe.close()
    ended.returncode, ended.seconds = process.returncode, time.monotonic() - begin
    return ended


def _read(pipes: selectors.BaseSelector, output_bytes: int) -> str:
    """Take what the pipes hold, for a moment at most; say so if it is too much."""
    if not pipes.get_map():
        time.sleep(_LOOK_SECONDS / 4)
    for key, _ in pipes.select(_LOOK_SECONDS):
        pipe, sink = key.fileobj, key.data
        assert not isinstance(pipe, int)
        if not (chunk := os.read(pipe.fileno(), _CHUNK)):
            pipes.unregister(pipe)
        sink += chunk
        if len(sink) > output_bytes:
            del sink[output_bytes:]
            return f"printed more than {output_bytes >> 10} KiB"
    return ""


def _excess(pid: int, memory_bytes: int, processes: int) -> str:
    memory = threads = 0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return ""
    for member in family:
        try:
            memory += member.memory_info().rss
            threads += member.num_threads()
        except psutil.Error:  # it has ended
            continue
    if memory > memory_bytes:
        return f"took more than {memory_bytes >> 20} MiB of memory"
    return f"had more than {processes} processes and threads" if threads > processes + _OWN else ""


_OWN = 3  # bwrap, the first process in the sandbox, and what sets the limits


def _written(directory: Path, file_bytes: int) -> str:
    total = entries = 0
    stack = [os.fspath(directory)]
    while stack:
        try:
            with os.scandir(stack.pop()) as folder:
                for entry in folder:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if total > file_bytes or entries > _ENTRIES:
                        many = (
                            f"{_ENTRIES} files" if entries > _ENTRIES else f"{file_bytes >> 20} MiB of files"
                        )
                        return f"wrote more than {many}"
        except OSError:  # gone, or closed to us: counted at the next look
            continue
    return ""


_ENTRIES = 10_000


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left. In a sandbox the first process takes the rest with it; without one, we must."""
    left: list[psutil.Process] = []
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            left = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
