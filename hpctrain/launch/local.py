"""Start N ranks on this machine (`--ranks N`), pass signals on to them, and end all when one fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from hpctrain.errors import StoppedEarly
from hpctrain.progress import say

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
_POLL_SECONDS = 0.1
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": str(256 << 20),
}
"""glibc gives large blocks back at every step unless told to keep them: see docs/performance.md."""


def run_ranks(command: Sequence[str], ranks: int, grace_seconds: float = 10.0) -> int:
    """Run `command` as ranks 0..N-1 of one world on this machine; returns the exit code of the run.

    Signals for the run are passed on to every rank. If one rank dies, the others are ended: those that have
    not left `grace_seconds` after SIGTERM are killed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        for rank in range(ranks):
            environment = _rank_environment(rank, ranks, port)
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return _wait(processes)
    finally:
        _end(processes, grace_seconds)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _rank_environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Torchrun's variables, one thread share of the cores for each rank, and a memory-keeping allocator."""
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    defaults = {"OMP_NUM_THREADS": str(threads), **KEEP_MEMORY}
    placed = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    return {**defaults, **os.environ, **placed}


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait until all ranks ended well or one did not; the first failure decides the exit code."""
    while True:
        codes = [process.poll() for process in processes]
        for rank, code in enumerate(codes):
            if code not in (None, 0, StoppedEarly.exit_code):
                say(f"rank {rank} {_describe(code)}; ending the other ranks")
                return code if code and code > 0 else 1
        if all(code is not None for code in codes):
            return max(code or 0 for code in codes)
        time.sleep(_POLL_SECONDS)


def _describe(code: int | None) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"failed with code {code}"


def _end(processes: Sequence[subprocess.Popen[bytes]], grace_seconds: float) -> None:
    """End what still runs: politely first, so that nothing is half done, then for good."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
