"""The network as training uses it: an all-reduce of every size, from latency to bandwidth."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from hpctrain.doctor.finding import Finding, amount, brief, count
from hpctrain.doctor.limits import rdma_devices
from hpctrain.doctor.subject import Subject
from hpctrain.parallel.process import process_group

if TYPE_CHECKING:
    import torch

_SIZES_BYTES = (8, 8_000, 128_000, 1_000_000, 8_000_000, 64_000_000, 512_000_000)
_LARGEST_ON_CPU_BYTES = 64_000_000
_SLICE_SECONDS = 0.5
_MOST_ROUNDS = 50
_SHARE = 0.15
_POOR_BYTES_PER_SECOND = 1e8  # a Gigabit Ethernet gives 1.2e8
_POOR_LATENCY_SECONDS = 0.01


def all_reduce(subject: Subject) -> Iterator[Finding]:
    """Join the ranks in a process group and measure; only if all of them came this far."""
    if not subject.met:
        text, remedy = "not tried, for the ranks did not meet", "see the line on the meeting"
        yield Finding("network", text, "skipped", remedy)
        return
    answers = subject.exchange.gather("network", True)
    if not subject.exchange.tell("go", len(answers) == subject.world.size):
        if subject.world.rank == 0:
            text, remedy = "not tried, for not all ranks came this far", "see the other lines"
            yield Finding("network", text, "wrong", remedy)
        return
    with ExitStack() as stack:
        log = _nccl_log(subject, stack)
        device = stack.enter_context(process_group(subject.world, subject.exchange.meeting))
        findings = list(_measure(subject, device))
        if subject.world.rank == 0:
            yield _transport(subject, device, log)
            yield from findings


def _nccl_log(subject: Subject, stack: ExitStack) -> Path | None:
    """Have NCCL say what it uses, unless the user has asked it for something else."""
    if "NCCL_DEBUG" in subject.environment or subject.world.rank != 0:
        return None
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpctrain-doctor-"))) / "nccl"
    os.environ.update(NCCL_DEBUG="INFO", NCCL_DEBUG_SUBSYS="INIT,NET", NCCL_DEBUG_FILE=str(path))
    return path


def _transport(subject: Subject, device: torch.device, log: Path | None) -> Finding:
    """Which library and interface carry the data."""
    nodes = f"{count(subject.world.size, 'rank')} on {count(len(subject.hosts), 'node')}"
    if subject.world.size == 1:
        text = f"{device.type}: one rank, nothing to measure"
        return Finding("network", text, "skipped", "--ranks N, or a launcher: the ranks then reduce")
    if device.type == "cpu":
        name = os.environ.get("GLOO_SOCKET_IFNAME", "an interface of its own choice")
        return Finding("network", f"gloo over {name}{_link_speed(name)}, {nodes}")
    used = re.search(r"Using network (\S+)", log.read_text(errors="replace") if log and log.exists() else "")
    name = used[1] if used else "a network that its log does not tell"
    devices = rdma_devices()
    text = f"NCCL with {name}, {nodes}"
    if len(subject.hosts) > 1 and name == "Socket" and devices:
        remedy = "load the site's NCCL plugin (aws-ofi-nccl on Slingshot); is the device up (ibstat)?"
        return Finding("network", f"{text}, although there is {', '.join(devices)}", "warning", remedy)
    return Finding("network", text)


def _link_speed(interface: str) -> str:
    import psutil

    state = psutil.net_if_stats().get(interface)
    return f" ({state.speed / 1000:g} Gbit/s)" if state and state.speed else ""


def _measure(subject: Subject, device: torch.device) -> Iterator[Finding]:
    """A line for each size, as long as there is time. All ranks decide alike, by the slowest."""
    size, left = subject.world.size, _SHARE * subject.request.seconds
    if size == 1:
        return
    for size_bytes in _SIZES_BYTES:
        if device.type == "cpu" and size_bytes > _LARGEST_ON_CPU_BYTES:
            return
        once = _agree(device, _first(subject, size_bytes, device))
        if once < 0:
            remedy = "the network or a device corrupts data: leave nodes out by halves to find it"
            yield Finding(f"all-reduce {amount(size_bytes)}", "the sum is wrong", "wrong", remedy)
            return
        rounds = int(max(1, min(_MOST_ROUNDS, _SLICE_SECONDS / once)))
        seconds = _agree(device, _timed(_reducer(size_bytes, device), device, rounds))
        yield _line(subject, size_bytes, seconds)
        left -= once * 2 + rounds * seconds
        if left < 3 * seconds * 8:  # the next size is up to eight times as large, and runs thrice
            return


def _line(subject: Subject, size_bytes: int, seconds: float) -> Finding:
    ranks = subject.world.size
    bandwidth = 2 * (ranks - 1) / ranks * size_bytes / seconds
    check, text = f"all-reduce {amount(size_bytes)}", brief(seconds)
    if size_bytes >= 1e6:
        text = f"{text}, bus bandwidth {amount(bandwidth)}/s = 2(n-1)/n x size / time"
    slow = size_bytes == _SIZES_BYTES[0] and seconds > _POOR_LATENCY_SECONDS
    thin = size_bytes == _LARGEST_ON_CPU_BYTES and bandwidth < _POOR_BYTES_PER_SECOND
    if slow or thin:
        remedy = "is it the fast interface? NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME; are cores shared?"
        return Finding(check, text, "warning", remedy)
    return Finding(check, text)


def _first(subject: Subject, size_bytes: int, device: torch.device) -> float:
    """Seconds of a first reduction, or -1 if its sum is wrong."""
    import torch

    values = torch.full((size_bytes // 4,), float(subject.world.rank + 1), device=device)
    seconds = _timed(lambda: torch.distributed.all_reduce(values), device, 1)
    expected = subject.world.size * (subject.world.size + 1) / 2
    return seconds if bool((values == expected).all()) else -1.0


def _reducer(size_bytes: int, device: torch.device) -> Callable[[], object]:
    import torch

    values = torch.zeros(size_bytes // 4, device=device)
    return lambda: torch.distributed.all_reduce(values)


def _timed(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Seconds of one round, the mean."""
    import torch

    start = time.monotonic()
    for _ in range(rounds):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.monotonic() - start) / rounds


def _agree(device: torch.device, seconds: float) -> float:
    """The longest time of any rank; -1 if any rank says so."""
    import torch

    both = torch.tensor([seconds, float(seconds < 0)], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(both, op=torch.distributed.ReduceOp.MAX)
    return -1.0 if both[1] > 0 else float(both[0])
