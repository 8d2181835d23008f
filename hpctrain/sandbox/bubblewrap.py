"""The command line of bubblewrap: what a sandboxed command sees of the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import psutil

from hpctrain.sandbox.seccomp import filter_program

# Of /etc only what compilers, the loader and MPI read: no keys, no munge, no site secrets.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SETTINGS = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "openmpi", "mpich", "nsswitch.conf")
_TOPOLOGY = ("/sys/devices/system", "/sys/bus/cpu", "/sys/bus/node")
_SCRATCH_BYTES = 256 << 20


_KEPT = ("PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "OPAL_PREFIX", "I_MPI_ROOT", "CUDA_HOME")


def bare_environment() -> dict[str, str]:
    """What every command starts with: where programs and libraries are, and nothing else of the user's."""
    kept = {name: value for name in _KEPT if (value := os.environ.get(name))}
    return {"HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C", "LC_ALL": "C", "USER": "sandbox", **kept}


class _Limits(Protocol):
    @property
    def cpu_seconds(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def processes(self) -> int: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def address_space(self) -> bool: ...


@lru_cache(maxsize=1)
def missing() -> str:
    """Why there is no sandbox here; empty if there is one."""
    for program in ("bwrap", "prlimit", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is not on PATH (packages bubblewrap and util-linux)"
    try:
        os.close(filter_program())
    except OSError as reason:
        return f"libseccomp: {reason}"
    probe = ["bwrap", *_namespaces(None), "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"bwrap ended with {done.returncode}"


def limited(command: Sequence[str], limits: _Limits, base_processes: int) -> list[str]:
    """`command` under the limits that the kernel keeps for each process."""
    options = [
        f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
        f"--fsize={limits.file_bytes}",
        "--core=0",
        "--nofile=1024",
        f"--nproc={limits.processes + base_processes}",
    ]
    if limits.address_space:
        # Threads reserve far more addresses than they use; what is used is watched from outside.
        options.append(f"--as={4 * limits.memory_bytes + (4 << 30)}")
    return ["prlimit", *options, "--", *command]


@dataclass(frozen=True)
class Place:
    """What of the machine is shown besides the system's programs."""

    directory: Path
    """Can be written."""
    readable: tuple[Path, ...]
    devices: tuple[Path, ...]


@dataclass(frozen=True)
class Wrapped:
    """A command line that is ready to start."""

    line: list[str]
    descriptors: list[int]
    """That it inherits."""
    status: int

    def has_begun(self) -> bool:
        """After the end: whether the command itself was ever started."""
        return b"exit-code" in os.pread(self.status, 4096, 0)


@contextmanager
def wrapped(
    command: Sequence[str],
    place: Place,
    limits: _Limits,
    environment: Mapping[str, str],
    user: int | None,
) -> Iterator[Wrapped]:
    """`command` in the sandbox, as `user` if that is given."""
    number = os.getuid() if user is None else user
    texts = {
        "/etc/passwd": f"sandbox:x:{number}:{number}::/tmp:/bin/sh\n",
        "/etc/group": f"sandbox:x:{number}:\n",
        "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    }
    descriptors = {path: _memory_file(text) for path, text in texts.items()}
    program, status = filter_program(), _memory_file("")
    try:
        inner = limited(command, limits, _counted_outside())
        if user is not None:
            inner = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *inner]
        line = ["bwrap", *_namespaces(user), *_files(place)]
        for path, descriptor in descriptors.items():
            line += ["--perms", "0644", "--ro-bind-data", str(descriptor), path]
        line += ["--remount-ro", "/", "--chdir", str(place.directory), "--clearenv"]
        for name, value in environment.items():
            line += ["--setenv", name, value]
        line += ["--json-status-fd", str(status), "--seccomp", str(program), "--", *inner]
        yield Wrapped(line, [program, status, *descriptors.values()], status)
    finally:
        for descriptor in (program, status, *descriptors.values()):
            os.close(descriptor)


def _namespaces(user: int | None) -> list[str]:
    """Nothing shared; root keeps the user namespace and gets another user number instead."""
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.geteuid() != 0:
        options.append("--unshare-user")
    return [*options, "--hostname", "sandbox", "--new-session", "--die-with-parent"]


def _files(shown: Place) -> list[str]:
    options: list[str] = []
    directory = str(shown.directory)
    for place in _SYSTEM:
        if Path(place).is_symlink():
            options += ["--symlink", str(Path(place).readlink()), place]
        else:
            options += ["--ro-bind-try", place, place]
    for place in (*(f"/etc/{name}" for name in _SETTINGS), *_TOPOLOGY):
        options += [*_parents(place), "--ro-bind-try", place, place]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for device in shown.devices:
        options += ["--dev-bind-try", str(device), str(device)]
    for place in ("/tmp", "/dev/shm"):
        options += ["--perms", "1777", "--size", str(_SCRATCH_BYTES), "--tmpfs", place]
    options += ["--remount-ro", "/dev"]
    for place in dict.fromkeys(str(path.resolve()) for path in shown.readable):
        options += [*_parents(place), "--ro-bind", place, place]
    return [*options, *_parents(directory), "--bind", directory, directory]


def _parents(place: str) -> list[str]:
    """bubblewrap makes missing parents for root alone; the command is somebody else then."""
    above = [str(parent) for parent in reversed(Path(place).parents)][1:]
    return [word for parent in above if parent != "/tmp" for word in ("--perms", "0755", "--dir", parent)]


def _counted_outside() -> int:
    """Threads outside that the kernel counts too; since Linux 5.14 a namespace has its own count."""
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    return 0 if os.geteuid() == 0 or release >= (5, 14) else own_threads()


def own_threads() -> int:
    """Threads that this user has now."""
    own = os.getuid()
    processes = psutil.process_iter(["uids", "num_threads"])
    return sum(p.info["num_threads"] or 0 for p in processes if p.info["uids"] and p.info["uids"].real == own)


def _memory_file(text: str) -> int:
    descriptor = os.memfd_create("sandbox", 0)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
