"""The config, if one is given: is it right, does it fit these ranks, their memory and the data."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from hpctrain.config import fingerprint, load_config
from hpctrain.doctor.finding import Finding, amount, count, reason_of
from hpctrain.doctor.storage import existing, file_system
from hpctrain.doctor.subject import Subject
from hpctrain.errors import ConfigError, DataError

_PROCESS_BYTES = 1_000_000_000  # Python, torch and DeepSpeed
_SHARED_FILE_SYSTEMS = ("lustre", "nfs", "nfs4", "gpfs", "beegfs", "ceph", "cifs", "wekafs", "panfs")
_NO_LIMIT = 1 << 60  # cgroups of version 1 say "none" with a huge number


def read_config(subject: Subject) -> Iterator[Finding]:
    """Read the config with its overrides; every problem is told."""
    from hpctrain.train.config import RunConfig

    if subject.request.config is None:
        return
    try:
        subject.config = load_config(subject.request.config, subject.request.overrides, RunConfig)
    except ConfigError as reason:
        remedy = "correct it: nothing else of the config could be checked"
        yield Finding("config", str(reason), "wrong", remedy)
        return
    digest = fingerprint(subject.config)[:8]
    name, steps = subject.config.run.name, subject.config.train.steps
    yield Finding("config", f"{name}, {count(steps, 'step')} ({subject.request.config}, digest {digest})")


def layout(subject: Subject) -> Iterator[Finding]:
    """Whether the config's layout fits as many ranks as there are."""
    from hpctrain.train.config import check_layout

    if subject.config is None or subject.world.rank != 0:
        return
    if not subject.met:
        yield Finding(
            "layout", "unknown, for the ranks did not meet", "skipped", "see the line on the meeting"
        )
        return
    try:
        check_layout(subject.config, subject.world.size)
    except ConfigError as reason:
        yield Finding("layout", str(reason), "wrong", "change the config or the number of ranks")
        return
    parallel, ranks = subject.config.parallel, count(subject.world.size, "rank")
    stages = count(parallel.pipeline_stages, "pipeline stage")
    yield Finding("layout", f"ZeRO {parallel.zero_stage}, {stages}, {ranks}")


def shards(subject: Subject) -> Iterator[Finding]:
    """The shards by their manifest and the sizes of their files; `hpctrain shards verify` reads them all."""
    from hpctrain.shards.reader import read_shards_manifest

    if subject.config is None:
        return
    directory = subject.config.data.shards
    try:
        manifest = read_shards_manifest(directory)
        vocab_size = manifest.details["vocab_size"]
        subject.parameters = subject.config.parameter_count(vocab_size)
        if subject.config.adapter is not None:
            subject.frozen = subject.config.model.parameter_count(vocab_size)
    except DataError as reason:
        yield Finding(
            "shards", str(reason), "wrong", "build them, or mend data.shards; all nodes must see them"
        )
        return
    if not subject.is_first_here:
        return  # one rank of each node looks at the files
    paths = {directory / name: record.bytes for name, record in manifest.files.items()}
    bad = [path for path, size in paths.items() if not path.is_file() or path.stat().st_size != size]
    if bad:
        text = f"{len(bad)} of {len(paths)} files are missing or not of their size; the first: {bad[0]}"
        yield Finding("shards", text, "wrong", "build the shards again")
    else:
        text = f"{len(paths)} files, {amount(sum(paths.values()))}, digest {manifest.fingerprint[:8]}"
        yield Finding("shards", f"{text}; sizes agree, checksums were not compared")


def run_state(subject: Subject) -> Iterator[Finding]:
    """Whether a start in this run directory would be refused."""
    from hpctrain.train.brake import STOP_FILE
    from hpctrain.train.rundir import is_held

    directory = subject.run_directory
    if directory is None or subject.world.rank != 0 or not directory.is_dir():
        return
    if (directory / STOP_FILE).exists():
        remedy = f"remove {directory / STOP_FILE} when the run shall go on"
        yield Finding("run", "a stop file is there: a start would end at once", "wrong", remedy)
    if is_held(directory):
        remedy = "wait for it, or use another run.dir: a second job is refused"
        yield Finding("run", "a job is writing it now", "warning", remedy)


def memory(subject: Subject) -> Iterator[Finding]:
    """This node's memory, and what the config will take of it."""
    limit, what = memory_limit()
    ranks = len(subject.here)
    text = f"{amount(limit)} {what} for {count(ranks, 'rank')}"
    if subject.config is None or subject.parameters is None:
        yield Finding("memory", text)
        return
    need = ranks * _PROCESS_BYTES + _state_bytes(subject, ranks)
    text = f"{text}; about {amount(need)} needed, besides activations"
    if need > limit:
        remedy = "fewer ranks a node, more nodes, or checkpoint.staging_dir on a local disk"
        yield Finding("memory", text, "wrong", remedy)
    elif need > 0.8 * limit:
        yield Finding("memory", text, "warning", "little is left for activations and data")
    else:
        yield Finding("memory", text)


def _state_bytes(subject: Subject, ranks: int) -> int:
    """Host memory of this node's ranks: the copy that saves are written from; on CPUs the training too."""
    import torch

    from hpctrain.checkpoint.retention import BYTES_PER_PARAMETER

    assert subject.config is not None
    assert subject.parameters is not None
    share = ranks / max(subject.world.size, ranks)
    staged = subject.config.checkpoint.staging_dir is not None
    total = 0 if staged else int(BYTES_PER_PARAMETER * subject.parameters * share)
    if not torch.cuda.is_available():
        # A full copy of weights and gradients a rank and stage, and this node's share of fp32 state.
        each = 8 if subject.config.train.precision == "fp32" else 4
        state = 8 if subject.config.train.precision == "fp32" else BYTES_PER_PARAMETER
        stages = subject.config.parallel.pipeline_stages
        total += ranks * each * subject.parameters // stages + int(state * subject.parameters * share)
        total += ranks * (each // 2) * subject.frozen // stages
    return total


def memory_limit() -> tuple[int, str]:
    """The least of what the node has, its cgroup grants and ulimit -v allows, in bytes, and which it was."""
    limits = {os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"): "on this node"}
    if (granted := _cgroup_limit()) is not None:
        limits.setdefault(granted, "granted to the job (cgroup)")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.setdefault(soft, "address space a process (ulimit -v)")
    least = min(limits)
    return least, limits[least]


def _cgroup_limit() -> int | None:
    """The least limit of this process's memory cgroup and those above it; None if there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (
            (Path("/sys/fs/cgroup"), "memory.max")
            if not controllers
            else (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes")
        )
        inside = root / path.lstrip("/")
        for directory in (inside, *inside.parents):
            if not directory.is_relative_to(root):
                break
            try:
                text = (directory / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue  # the root has none, and a container may not see what is above it
            if text.isdigit() and int(text) < _NO_LIMIT:
                found.append(int(text))
    return min(found, default=None)


def staging(subject: Subject) -> Iterator[Finding]:
    """The node-local directory for the copies that saves are written from, if one is configured."""
    if subject.config is None or (directory := subject.config.checkpoint.staging_dir) is None:
        return
    from hpctrain.checkpoint.retention import BYTES_PER_PARAMETER

    remedy = "name a directory of each node's own disk in checkpoint.staging_dir"
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        state = "cannot be written" if directory.is_dir() else "is not there"
        yield Finding("staging", f"{directory} {state}", "wrong", remedy)
        return
    kind = file_system(existing(directory))
    try:
        stats = os.statvfs(directory)
    except OSError as reason:
        yield Finding("staging", f"{directory}: {reason_of(reason)}", "wrong", remedy)
        return
    free = stats.f_bavail * stats.f_frsize
    share = len(subject.here) / subject.world.size
    need = int(BYTES_PER_PARAMETER * (subject.parameters or 0) * share)
    if free < need:
        text = f"{directory} ({kind}): {amount(free)} free, {amount(need)} needed"
        yield Finding("staging", text, "wrong", "free some, or leave checkpoint.staging_dir out")
    elif kind in _SHARED_FILE_SYSTEMS or kind.startswith("fuse"):
        yield Finding("staging", f"{directory} is on {kind}, which is no local disk", "warning", remedy)
    else:
        yield Finding("staging", f"{directory} ({kind}): room for {amount(need)}")
