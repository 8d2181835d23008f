"""The run directory's file system: can it be written, is there room, how quick is it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hpctrain.doctor.finding import Finding, amount, brief, reason_of
from hpctrain.doctor.subject import Subject
from hpctrain.errors import ConfigError

_FEWEST_INODES = 10_000
_LEAST_FREE_BYTES = 1 << 30
_FIRST_BLOCK_BYTES, _LARGEST_BLOCK_BYTES = 1 << 20, 32 << 20
_MOST_BYTES = 256 << 20
_WRITE_SECONDS = _READ_SECONDS = 2.0
_SLOW_SAVE_SECONDS = 300.0  # so long before the end of a job slurm/*.sh ask to be warned
_SAVE_MARGIN, _SAVE_SPARE_SECONDS = 1.5, 15.0  # as the loop reckons before the job's end


def prepare(subject: Subject) -> Iterator[Finding]:
    """Make a directory for the checks' files where the run will live; rank 0 does, and tells the others."""
    where, told = subject.run_directory, None
    if subject.world.rank == 0:
        if where is None:
            remedy = "name a CONFIG or --run-dir: locks, speed and room are checked there"
            yield Finding("run directory", "not named", "skipped", remedy)
        else:
            base = existing(where)
            try:
                told = tempfile.mkdtemp(prefix=".hpctrain-doctor-", dir=base)
            except OSError as reason:
                text = f"{base} cannot be written: {reason_of(reason)}"
                remedy = "use a run.dir on a file system of yours that compute nodes may write, with room"
                yield Finding("run directory", text, "wrong", remedy)
            else:
                yield _place(where, base)
    scratch = subject.exchange.tell("scratch", told)
    subject.scratch = Path(scratch) if scratch else None


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on, such as lustre, nfs4 or tmpfs."""
    import psutil

    inside = [
        (len(each.mountpoint), each.fstype)
        for each in psutil.disk_partitions(all=True)
        if path.resolve().is_relative_to(each.mountpoint)
    ]
    return max(inside)[1] if inside else "unknown"


def _place(where: Path, base: Path) -> Finding:
    kind = file_system(base)
    text = f"{where} ({kind})" if base == where.absolute() else f"{where}, to be made in {base} ({kind})"
    if kind in ("tmpfs", "ramfs"):
        remedy = "it lives in this node's memory and goes with it: use a shared file system"
        return Finding("run directory", text, "warning", remedy)
    return Finding("run directory", text)


def room(subject: Subject) -> Iterator[Finding]:
    """Free space and inodes, against what the config's checkpoints need."""
    if subject.scratch is None or subject.world.rank != 0:
        return
    base = subject.scratch.parent
    free, total = shutil.disk_usage(base).free, shutil.disk_usage(base).total
    text = f"{amount(free)} of {amount(total)} free; a quota is not seen"
    yield _space(subject, base, free, text)
    counts = os.statvfs(base)
    if counts.f_files == 0:
        yield Finding("inodes", "not counted by this file system")
    elif counts.f_favail >= _FEWEST_INODES:
        yield Finding("inodes", f"over {_FEWEST_INODES:,} free")
    else:
        remedy = "delete files there: each checkpoint has a file a rank, logs too"
        yield Finding("inodes", f"{counts.f_favail:,} free", "wrong", remedy)


def _space(subject: Subject, base: Path, free: int, text: str) -> Finding:
    if subject.config is None or subject.parameters is None:
        if free >= _LEAST_FREE_BYTES:
            return Finding("room", text)
        remedy = "free some; with a CONFIG and its shards what is needed can be said"
        return Finding("room", text, "warning", remedy)
    from hpctrain.checkpoint.retention import check_room

    directory = subject.run_directory if subject.run_directory == base else base
    try:
        config = subject.config
        warning = check_room(directory, subject.parameters, config.checkpoint, config.train.steps)
    except ConfigError as reason:
        problem, _, remedy = str(reason).rpartition("; ")
        return Finding("room", problem, "wrong", remedy)
    if warning:
        remedy = "free some, or lower checkpoint.keep and keep_every"
        return Finding("room", warning.removeprefix("warning: "), "warning", remedy)
    return Finding("room", f"{text}; the config's checkpoints fit")


def speed(subject: Subject) -> Iterator[Finding]:
    """Write and fsync from all ranks at once, then read what is no longer in memory; files are removed."""
    if subject.scratch is None:
        return
    subject.exchange.gather("ready to write", None)
    subject.exchange.tell("write")
    path = subject.scratch / f"speed-{subject.world.rank}"
    mine: dict[str, float | str] = {}
    try:
        most = min(_MOST_BYTES, shutil.disk_usage(subject.scratch).free // (4 * subject.world.size))
        mine = {"write": _write(path, most), "read": _read(path)}
    except OSError as reason:
        mine = {"problem": reason_of(reason)}
    finally:
        path.unlink(missing_ok=True)
    answers = subject.exchange.gather("speed", mine)
    if subject.world.rank != 0:
        return
    hosts = subject.exchange.meeting.peers
    for rank, answer in answers.items():
        if "problem" in answer:
            host = hosts[rank].host if rank else subject.host
            text = f"rank {rank} on {host}: {answer['problem']}"
            remedy = "make room or mend the permissions there; a quota shows itself like this, too"
            yield Finding("write", text, "wrong", remedy)
    rates = {rank: answer for rank, answer in answers.items() if "problem" not in answer}
    if rates:
        yield _rate("write", rates, "with fsync")
        yield _rate("read", rates, "after the page cache was told to let go (posix_fadvise)")
        yield from _save_time(subject, sum(rate["write"] for rate in rates.values()))


def _write(path: Path, most: int) -> float:
    """Bytes a second of the last of ever larger flushed blocks: the larger, the less the flush costs."""
    written, size, start = 0, min(_FIRST_BLOCK_BYTES, most), time.monotonic()
    block = os.urandom(_LARGEST_BLOCK_BYTES)  # random: some file systems compress
    rate = 0.0
    with path.open("wb", buffering=0) as file:
        while size and written + size <= most and time.monotonic() - start < _WRITE_SECONDS:
            begin = time.monotonic()
            left = memoryview(block)[:size]
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
            rate = size / (time.monotonic() - begin)
            written, size = written + size, min(2 * size, _LARGEST_BLOCK_BYTES)
    return rate


def _read(path: Path) -> float:
    """Bytes a second of reading a flushed file back."""
    done, start = 0, time.monotonic()
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while time.monotonic() - start < _READ_SECONDS and (data := file.read(4 << 20)):
            done += len(data)
    return done / (time.monotonic() - start)


def _rate(check: str, rates: dict[int, dict[str, float]], how: str) -> Finding:
    values = {rank: rate[check] for rank, rate in rates.items()}
    slowest = min(values, key=lambda rank: values[rank])
    text = f"{amount(sum(values.values()))}/s {how}"
    if len(values) > 1:
        text = f"{text}; {len(values)} ranks at once, the slowest, {slowest}: {amount(values[slowest])}/s"
    return Finding(check, text)


def _save_time(subject: Subject, bytes_per_second: float) -> Iterator[Finding]:
    """What a checkpoint will take at this speed, against the time that the job has left."""
    deadline = subject.deadline
    left = f"; the job ends in {max(0.0, deadline - time.time()) / 60:.0f} min" if deadline else ""
    if subject.parameters is None or not bytes_per_second:
        if left:
            yield Finding("time", left[2:])
        return
    from hpctrain.checkpoint.retention import BYTES_PER_PARAMETER

    size = BYTES_PER_PARAMETER * subject.parameters
    seconds = size / bytes_per_second
    text = f"a checkpoint of {amount(size)} takes about {brief(seconds)}{left}"
    need = _SAVE_MARGIN * seconds + _SAVE_SPARE_SECONDS
    if deadline and time.time() + need > deadline:
        remedy = f"a save would not fit before the end: ask for more than {need:.0f} s besides the start-up"
        yield Finding("time", text, "wrong", remedy)
    elif seconds > _SLOW_SAVE_SECONDS:
        remedy = "warn the job earlier (--signal=B:USR1@SECONDS), or use a quicker file system or more nodes"
        yield Finding("time", text, "warning", remedy)
    else:
        yield Finding("time", text)


def clear(subject: Subject) -> Iterator[Finding]:
    """Remove the checks' files, when all ranks are done with them."""
    if subject.scratch is None:
        return
    subject.exchange.gather("done with files", None)
    if subject.world.rank == 0:
        try:
            shutil.rmtree(subject.scratch)
        except OSError as reason:
            text = f"{subject.scratch} could not be removed: {reason_of(reason)}"
            yield Finding("left behind", text, "warning", "remove it by hand")
