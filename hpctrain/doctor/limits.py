"""What this node grants its processes: locked memory, files, stack, shared memory, temporary files."""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hpctrain.doctor.finding import Finding, amount, reason_of
from hpctrain.doctor.subject import Subject

_FEWEST_FILES = 256  # libraries, logs, data
_FILES_A_RANK = 8  # a few process groups, each with a connection to every rank
_LEAST_STACK_BYTES = 8 << 20
_LEAST_SHM_BYTES_A_RANK = 64 << 20
_LEAST_TMP_BYTES = 1 << 30
_RDMA_DEVICES = ("/sys/class/infiniband", "/sys/class/cxi")


def granted(subject: Subject) -> Iterator[Finding]:
    """The limits of the process."""
    yield _locked_memory()
    yield _open_files(subject.world.size)
    yield _stack()
    yield _umask()


def rdma_devices() -> list[str]:
    """InfiniBand, RoCE and Slingshot devices of this node, by name."""
    roots = [Path(root) for root in _RDMA_DEVICES]
    return sorted(device.name for root in roots if root.is_dir() for device in root.iterdir())


def _locked_memory() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    devices = rdma_devices()
    if soft == resource.RLIM_INFINITY:
        return Finding("memlock", "unlimited")
    if not devices:
        return Finding("memlock", f"{amount(soft)}; enough, for there is no InfiniBand or Slingshot here")
    remedy = "ulimit -l unlimited; if that is refused, ask the site (Slurm: PropagateResourceLimits)"
    return Finding("memlock", f"{amount(soft)}, but {', '.join(devices)} must lock memory", "wrong", remedy)


def _open_files(world_size: int) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = _FEWEST_FILES + _FILES_A_RANK * world_size
    if soft == resource.RLIM_INFINITY or soft >= need:
        return Finding("open files", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}")
    may = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    text = f"{soft:,}; a world of {world_size} may need {need:,}"
    return Finding("open files", text, "wrong", f"ulimit -n in the job script; you may have {may}")


def _stack() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY:
        return Finding("stack", "unlimited")
    if soft >= _LEAST_STACK_BYTES:
        return Finding("stack", amount(soft))
    return Finding(
        "stack", amount(soft), "warning", "ulimit -s 8192: threads of compiled code may overflow it"
    )


def _umask() -> Finding:
    # To ask the system call is to change it, for all threads.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mask = int(status["Umask"], 8)
    if mask & 0o022 == 0o022:
        return Finding("umask", f"{mask:03o}")
    return Finding("umask", f"{mask:03o}: others may write what you make", "warning", "umask 077 or 022")


def local_room(subject: Subject) -> Iterator[Finding]:
    """Shared memory and temporary files of this node."""
    yield _shared_memory(len(subject.here))
    yield _temporary(Path(tempfile.gettempdir()))


def _shared_memory(ranks: int) -> Finding:
    path = Path("/dev/shm")
    if not path.is_dir():
        return Finding(
            "/dev/shm", "missing", "wrong", "mount a tmpfs there: ranks of a node share memory in it"
        )
    free, need = shutil.disk_usage(path).free, _LEAST_SHM_BYTES_A_RANK * ranks
    if free >= need:
        return Finding("/dev/shm", f"over {amount(need)} free")
    remedy = "in a container: --shm-size or a bind of the host's; else remove what others left there"
    return Finding("/dev/shm", f"{amount(free)} free, {amount(need)} wanted", "warning", remedy)


def _temporary(path: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"hpctrain")
            file.flush()
    except OSError as reason:
        text = f"{path}: {reason_of(reason)}"
        return Finding("temporary files", text, "wrong", "set TMPDIR to a directory of this node with room")
    free = shutil.disk_usage(path).free
    if free >= _LEAST_TMP_BYTES:
        return Finding("temporary files", f"{path}: over {amount(_LEAST_TMP_BYTES)} free")
    text = f"{path}: only {amount(free)} free"
    return Finding("temporary files", text, "warning", "set TMPDIR to a directory of this node with room")
