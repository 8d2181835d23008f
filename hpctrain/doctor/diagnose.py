"""The whole examination: read it as a table of contents."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

from hpctrain.doctor import devices, limits, network, plan, shared, storage, together, versions
from hpctrain.doctor.examine import Check, examine
from hpctrain.doctor.finding import Finding
from hpctrain.doctor.fold import Line, Report, fold
from hpctrain.doctor.subject import Request, Subject, alone
from hpctrain.parallel.world import rank_of

_DISK_HANGS = "the file system does not answer: look at it from this node"
_NETWORK_HANGS = (
    "ranks met but cannot exchange data: a firewall, or the wrong interface (NCCL_SOCKET_IFNAME, "
    "GLOO_SOCKET_IFNAME); NCCL_DEBUG=INFO says more"
)
_IMPORT_HANGS = "Python's files do not come: look at their file system, or copy the environment to the nodes"
_MEETING = Check("meeting", together.meeting, "world", together.MEETING_SHARE)
# In this order on every rank: the checks that speak with other ranks wait for each other.
_CHECKS = (
    Check("versions", versions.installed, "uniform"),
    Check("MPI", versions.mpi, "uniform"),
    Check("HDF5", versions.hdf5, "uniform"),
    Check("limits", limits.granted),
    Check("local room", limits.local_room),
    Check("cores", together.cores),
    Check("clocks", together.clocks, "world"),
    Check("start-up", versions.start_up, "world", 2 / 3, _IMPORT_HANGS),
    Check("torch", versions.torch_build, "uniform"),
    Check("GPU", devices.accelerator, "uniform"),
    Check("GPU memory", devices.memory),
    Check("GPU health", devices.health),
    Check("product", devices.product),
    Check("config", plan.read_config, "uniform"),
    Check("layout", plan.layout, "world"),
    Check("shards", plan.shards, "uniform"),
    Check("memory", plan.memory),
    Check("staging", plan.staging),
    Check("run", plan.run_state, "world"),
    Check("run directory", storage.prepare, "world", if_hung=_DISK_HANGS),
    Check("room", storage.room, "world", if_hung=_DISK_HANGS),
    Check("shared", shared.seen, "world", if_hung=_DISK_HANGS),
    Check("locks", shared.locks, "world", if_hung=_DISK_HANGS),
    Check("HDF5 files", shared.hdf5, "world", if_hung=_DISK_HANGS),
    Check("speed", storage.speed, "world", if_hung=_DISK_HANGS),
    Check("left behind", storage.clear, "world", if_hung=_DISK_HANGS),
    Check("network", network.all_reduce, "world", if_hung=_NETWORK_HANGS),
)
_LAST_SECONDS = 3.0


@dataclass(frozen=True)
class Diagnosis:
    """What is known in the end."""

    lines: list[Line]
    ranks: int
    hosts: list[str]
    seconds: float

    @property
    def wrong(self) -> list[Line]:
        """The lines that must be put right."""
        return [line for line in self.lines if line.verdict == "wrong"]


def diagnose(request: Request) -> Diagnosis | None:
    """Make all checks, on every rank. Returns all findings on rank 0, None on ranks that told it theirs.

    A rank that met nobody, or whose rank 0 is gone, gets its own findings.
    """
    start = time.monotonic()
    end = start + request.seconds
    with ExitStack() as stack:
        subject = alone(request, stack)
        findings, ended = examine(_MEETING, subject, _MEETING.share * request.seconds)
        if not ended:  # whatever it still does, it does to a subject of its own
            subject = alone(request, stack)
        for check in _CHECKS:
            findings += _look(check, subject, end)
        reports = _collect(subject, findings, end)
        if reports is None:
            return None
        if not subject.met:
            reports = [replace(report, rank=rank_of(request.environment)) for report in reports]
        hosts = subject.hosts or [subject.host]
        lines = fold(reports, subject.world.size)
        return Diagnosis(lines, subject.world.size, hosts, time.monotonic() - start)


def _look(check: Check, subject: Subject, end: float) -> list[Finding]:
    left = end - time.monotonic()
    if left <= 0:
        text = f"not examined: the {subject.request.seconds:.0f} s were used up"
        return [Finding(check.name, text, "wrong", "see which line took so long; more time: --seconds")]
    findings, _ = examine(check, subject, min(left, check.share * subject.request.seconds))
    return findings


def _collect(subject: Subject, findings: list[Finding], end: float) -> list[Report] | None:
    """All ranks' reports on rank 0; on another rank None, or its own if rank 0 does not take it."""
    own = Report(subject.world.rank, subject.host, findings)
    told = [asdict(finding) for finding in findings]
    left = max(_LAST_SECONDS, end - time.monotonic())
    try:
        answers = subject.exchange.gather("findings", told, left, silent_seconds=_LAST_SECONDS)
        subject.exchange.tell("thanks", seconds=left + _LAST_SECONDS)
    except OSError as reason:
        lost = Finding("meeting", f"rank 0 took no findings: {reason}", "wrong", "see what ended rank 0")
        return [replace(own, findings=[*findings, lost])]
    if subject.world.rank != 0:
        return None
    own = replace(own, findings=[*findings, *together.silence(subject)])
    peers = subject.exchange.meeting.peers
    others = [
        Report(rank, peers[rank].host, [Finding(**each) for each in answer])
        for rank, answer in answers.items()
        if rank != 0
    ]
    return [own, *others]
