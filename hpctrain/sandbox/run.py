"""Run one command that nobody trusts, within limits, and say how it ended."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from hpctrain.errors import LaunchError
from hpctrain.progress import say
from hpctrain.sandbox import bubblewrap
from hpctrain.sandbox.watch import Watched, watch

Status = Literal["ok", "failed", "too slow", "over limit"]
"""ok: exit code 0. failed: another one, or a signal. The others: stopped from outside."""

_GIB = 1 << 30
_EACH_BYTES = 128 << 20


@dataclass(frozen=True)
class Limits:
    """What a command may take, all its processes together unless it is said otherwise."""

    seconds: float = 30.0
    """By the clock on the wall."""
    cpu_seconds: int = 60
    """Of each process, all its threads together."""
    memory_bytes: int = 2 * _GIB
    """Resident."""
    processes: int = 64
    """Processes and threads."""
    output_bytes: int = 1 << 20
    """Of standard output, and of standard error."""
    file_bytes: int = 256 << 20
    """Written into the directory; each file alone too."""
    address_space: bool = True
    """Whether each process's address space is limited too; not for ThreadSanitizer and CUDA, which map more
    than they use."""

    def times(self, count: int) -> Limits:
        """What `count` threads or ranks may take: each brings stacks, buffers and a core of its own."""
        return replace(
            self,
            cpu_seconds=self.cpu_seconds * count,
            processes=self.processes + 8 * count,
            memory_bytes=self.memory_bytes + count * _EACH_BYTES,
        )


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: Status
    returncode: int
    """Negative: the number of the signal that ended it."""
    stdout: str
    """Bytes that are no UTF-8 are replaced."""
    stderr: str
    seconds: float
    """By the clock on the wall, with the start of the sandbox."""
    reason: str = ""
    """Which limit was met, or how a failed command ended."""

    @property
    def message(self) -> str:
        """What there is to say about a failure: the reason and the end of what was printed."""
        return "\n".join(
            part for part in (self.reason, self.stdout[-2000:], self.stderr[-4000:]) if part.strip()
        )


class Sandbox:
    """Runs commands with no network, no home, no other processes, and only the system's programs to read.

    As root the command gets a user number of its own, so that the kernel counts its processes alone.
    """

    def __init__(self, unsafe: bool = False) -> None:
        """Raises LaunchError where no sandbox can be had; `unsafe` runs without one, by limits alone."""
        self.unsafe = unsafe
        if unsafe:
            say("generated code runs without a sandbox, as you: limits alone hold it")
        elif problem := bubblewrap.missing():
            raise LaunchError(
                f"generated code is run in a sandbox only, and there is none here: {problem}. "
                "Run where bubblewrap works, or say --unsafe to run generated code as yourself"
            )

    @property
    def name(self) -> str:
        """For the settings of a result."""
        return "none" if self.unsafe else "bubblewrap, seccomp"

    def run(
        self,
        command: Sequence[str],
        directory: Path,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
        readable: Sequence[Path] = (),
        devices: Sequence[Path] = (),
    ) -> Outcome:
        """Run `command` in `directory`, the one place where it can leave files.

        `environment` is added to a bare one. `readable` are further directories it may read; `devices` are
        device files that it may use. Raises LaunchError if the command cannot be started at all.
        """
        limits = limits or Limits()
        directory = directory.resolve()
        variables = {**bubblewrap.bare_environment(), **(environment or {})}
        if self.unsafe:
            with tempfile.TemporaryDirectory() as scratch:
                variables = {**variables, "HOME": scratch, "TMPDIR": scratch}
                line = bubblewrap.limited(command, limits, bubblewrap.own_threads())
                return _outcome(_start(line, directory, variables, ()), limits)
        # A number of its own: the kernel exempts root from the limit of processes.
        user = secrets.randbelow(1 << 29) + (1 << 30) if os.geteuid() == 0 else None
        if user is not None:
            _give(directory, user)
        place = bubblewrap.Place(directory, tuple(readable), tuple(devices))
        try:
            with bubblewrap.wrapped(command, place, limits, variables, user) as wrapped:
                outcome = _outcome(_start(wrapped.line, directory, os.environ, wrapped.descriptors), limits)
                if outcome.status == "failed" and not wrapped.has_begun():
                    raise LaunchError(f"the sandbox cannot be set up: {outcome.stderr.strip()}")
                return outcome
        finally:
            if user is not None:
                _give(directory, os.geteuid())


def _start(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], fds: Sequence[int]
) -> Watched:
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(fds),
            start_new_session=True,
        )
    except OSError as reason:
        raise LaunchError(f"{command[0]} cannot be started: {reason.strerror}") from None
    return Watched(process, directory)


def _outcome(started: Watched, limits: Limits) -> Outcome:
    ended = watch(
        started, limits.seconds, limits.memory_bytes, limits.processes, limits.output_bytes, limits.file_bytes
    )
    code = ended.returncode if ended.returncode <= 128 else 128 - ended.returncode
    stdout, stderr = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
    status: Status = "ok" if code == 0 else "failed"
    reason = ended.stopped_by
    if reason:
        status = "too slow" if reason.startswith("ran longer") else "over limit"
    elif code in (-24, -25):  # SIGXCPU, SIGXFSZ
        status = "too slow" if code == -24 else "over limit"
        reason = (
            f"used more than {limits.cpu_seconds} s of processor time"
            if code == -24
            else f"wrote a file of more than {limits.file_bytes >> 20} MiB"
        )
    elif code:
        reason = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return Outcome(status, code, stdout, stderr, ended.seconds, reason)


def _give(directory: Path, user: int) -> None:
    """Hand a directory and what is in it to a user; links are not followed."""
    os.chown(directory, user, user)
    for folder, names, files in os.walk(directory):
        for name in (*names, *files):
            os.chown(Path(folder, name), user, user, follow_symlinks=False)
