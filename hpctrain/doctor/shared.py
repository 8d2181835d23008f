"""One directory for all nodes: seen by all, locked for all, HDF5 files usable by all."""

from __future__ import annotations

import errno
import fcntl
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from hpctrain.doctor.finding import Finding, brief, count, reason_of
from hpctrain.doctor.storage import clear
from hpctrain.doctor.subject import Subject

_LOOK_SECONDS = 0.05
_NUMBERS = 1000
_LONGEST_REASON = 160
_GRANTED, _REFUSED = "granted", "refused"
_HDF5_REMEDY = "use a file system with flock; or HDF5_USE_FILE_LOCKING=FALSE, and one writer at a time"


def seen(subject: Subject) -> Iterator[Finding]:
    """Rank 0 writes a file; every other rank must find it, with the same content."""
    if subject.scratch is None:
        return
    if len(subject.hosts) == 1:
        if subject.world.rank == 0:
            remedy = "under srun on several nodes it is tried"
            yield Finding("shared", "one node: whether others see it is not known", "skipped", remedy)
        return
    path, token = subject.scratch / "marker", secrets.token_hex(8)
    if subject.world.rank == 0:
        path.write_text(token, encoding="utf-8")
    token = subject.exchange.tell("marker", token)
    waits = subject.exchange.gather("seen", _wait_for(path, token, subject.request.patience_seconds / 2))
    missing = [rank for rank, wait in waits.items() if wait is None]
    if subject.world.rank == 0:
        yield _seen_verdict(subject, missing, [wait for wait in waits.values() if wait is not None])
    if subject.exchange.tell("missing", missing):
        yield from clear(subject)
        subject.scratch = None  # what follows would only say the same in other words


def _seen_verdict(subject: Subject, missing: list[int], waits: list[float]) -> Finding:
    if not missing:
        nodes = count(len(subject.hosts), "node")
        return Finding("shared", f"a new file is seen on all {nodes} within {brief(max(waits))}")
    hosts = ", ".join(dict.fromkeys(subject.neighbours[rank].host for rank in missing))
    text = (
        f"what {subject.host} writes to {subject.run_directory} is not seen on {hosts}; locks were not tried"
    )
    return Finding("shared", text, "wrong", "use a run.dir on a file system that all nodes mount")


def _wait_for(path: Path, token: str, seconds: float) -> float | None:
    """Seconds until the file was there with that content; None if it did not come."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        with suppress(OSError):  # not there yet
            if path.read_text(encoding="utf-8") == token:
                return time.monotonic() - start
        time.sleep(_LOOK_SECONDS)
    return None


def locks(subject: Subject) -> Iterator[Finding]:
    """Rank 0 holds an fcntl lock, as a run does; every other rank must be refused."""
    if subject.scratch is None:
        return
    path = subject.scratch / "lock"
    if subject.world.rank != 0:
        subject.exchange.tell("locked")
        subject.exchange.gather("lock", _try(path))
        return
    with path.open("a+b") as file:
        own = _take(file)
        subject.exchange.tell("locked")
        answers = subject.exchange.gather("lock", own)
    yield _lock_verdict(subject, own, {rank: said for rank, said in answers.items() if rank})


def _lock_verdict(subject: Subject, own: str, others: dict[int, str]) -> Finding:
    remedy = "put the run where fcntl locks hold between nodes (Lustre: mounted with flock, not localflock)"
    if own != _GRANTED:
        return Finding("locks", f"refused to the first who asks: {own}", "wrong", remedy)
    bad = {rank: said for rank, said in others.items() if said != _REFUSED}
    if bad:
        rank, said = next(iter(bad.items()))
        host = subject.neighbours[rank].host
        text = f"held by {subject.host}, and yet for rank {rank} on {host}: {said}"
        return Finding("locks", f"{text}; two jobs could write one run", "wrong", remedy)
    if not others:
        return Finding("locks", "granted; nobody else was there to be refused")
    where = "on other nodes too" if len(subject.hosts) > 1 else "on this node"
    return Finding("locks", f"held by one rank, refused to {count(len(others), 'other')}, {where}")


def _try(path: Path) -> str:
    try:
        with path.open("r+b") as file:
            return _take(file)
    except OSError as reason:
        return f"cannot be opened: {reason_of(reason)}"


def _take(file: BinaryIO) -> str:
    """`granted`, `refused` because another has it, or the file system's reason."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as reason:
        return _REFUSED if reason.errno in (errno.EACCES, errno.EAGAIN) else reason_of(reason)
    return _GRANTED


def hdf5(subject: Subject) -> Iterator[Finding]:
    """Rank 0 writes an HDF5 file; while it is open others are refused, and afterwards all read it."""
    import h5py

    if subject.scratch is None:
        return
    path, exchange = subject.scratch / "file.h5", subject.exchange
    if subject.world.rank != 0:
        if not exchange.tell("hdf5 problem"):
            exchange.gather("hdf5 during", _read(path))
            exchange.tell("hdf5 closed")
            exchange.gather("hdf5 after", _read(path))
        return
    try:
        file = h5py.File(path, "w")
        file["numbers"] = range(_NUMBERS)
        file.flush()
    except OSError as reason:
        exchange.tell("hdf5 problem", reason_of(reason))
        yield Finding("HDF5 files", f"cannot be written: {_short(reason)}", "wrong", _HDF5_REMEDY)
        return
    exchange.tell("hdf5 problem")
    during = exchange.gather("hdf5 during", _REFUSED)
    file.close()
    exchange.tell("hdf5 closed")
    yield _hdf5_verdict(subject, during, exchange.gather("hdf5 after", _read(path)))


def _hdf5_verdict(subject: Subject, during: dict[int, str], after: dict[int, str]) -> Finding:
    if bad := [rank for rank, said in after.items() if said]:
        text = f"rank {bad[0]} on {subject.neighbours[bad[0]].host}: {after[bad[0]]}"
        return Finding("HDF5 files", text, "wrong", _HDF5_REMEDY)
    if let_in := [rank for rank, said in during.items() if said != _REFUSED]:
        host = subject.neighbours[let_in[0]].host
        text = f"written and read, but opened on {host} while {subject.host} was writing"
        return Finding(
            "HDF5 files", text, "warning", "HDF5's locks are off or do not hold: write each file once"
        )
    if len(after) == 1:
        return Finding("HDF5 files", "written and read; nobody else was there to be refused")
    return Finding("HDF5 files", "written by one rank, the others refused meanwhile; then read by all")


def _read(path: Path) -> str:
    """Read the file; an empty text if it is whole, else what is wrong."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "" if list(file["numbers"][:]) == list(range(_NUMBERS)) else "read, but with other content"
    except BlockingIOError:
        return _REFUSED
    except (OSError, KeyError) as reason:
        return f"cannot be read: {_short(reason)}"


def _short(reason: BaseException) -> str:
    text = (str(reason).splitlines() or [""])[0]
    return text if len(text) < _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
