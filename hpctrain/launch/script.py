"""The batch script of a job: a record in, text out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpctrain.launch.site import Scheduler

WARNING_SECONDS = 300
"""How long before the time limit Slurm warns a job."""


@dataclass(frozen=True)
class Job:
    """All that a batch script says."""

    scheduler: Scheduler
    name: str
    nodes: int
    seconds: int | None
    """Its time limit; None: the scheduler's own."""
    queue_options: tuple[str, ...]
    account: str | None
    gpu_option: str | None
    """The header option that asks for GPUs."""
    pbs_chunk: str | None
    header: tuple[str, ...]
    """Further options of the header."""
    logs: Path
    """Directory of the job's log."""
    requeue: bool
    singleton: bool
    """Whether it waits for jobs of the same name, as those of a chain do."""
    setup: tuple[str, ...]
    directory: Path
    """Where it runs."""
    script: Path
    """launch/job.sh."""
    command: str
    """The command of hpctrain that the ranks run."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    """A comment on where the script is from; one line."""


def render(job: Job) -> str:
    """The batch script. Every word of the user's reaches the command as it was typed."""
    mark = {"slurm": "#SBATCH", "pbs": "#PBS", "flux": "# flux:"}[job.scheduler]
    options = {"slurm": _slurm, "pbs": _pbs, "flux": _flux}[job.scheduler](job)
    # PBS starts jobs without the environment of the login shell, and so without the module command.
    shell = "#!/bin/bash -l" if job.scheduler == "pbs" else "#!/bin/bash"
    lines = [shell, *(f"{mark} {option}" for option in options)]
    if job.note:
        lines.append(f"# {job.note}")
    lines += ["", f"cd {shlex.quote(str(job.directory))} || exit 2"]
    lines += [f"{line} || exit 2" for line in job.setup]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    words = [job.command, *(shlex.quote(word) for word in job.arguments)]
    lines += ["", f". {shlex.quote(str(job.script))} || exit 2", f"run_ranks {' '.join(words)}"]
    return "\n".join(lines) + "\n"


def _slurm(job: Job) -> Iterator[str]:
    yield f"--job-name={job.name}"
    yield f"--nodes={job.nodes}"
    if job.seconds is not None:
        yield f"--time={clock(job.seconds)}"
    yield from job.queue_options
    if job.account is not None:
        yield f"--account={job.account}"
    if job.gpu_option is not None:
        yield job.gpu_option
    # A warning so early that it comes at the start would stop the job before its first step.
    lead = WARNING_SECONDS if job.seconds is None else min(WARNING_SECONDS, job.seconds // 4)
    yield f"--signal=B:USR1@{lead}"
    yield "--requeue" if job.requeue else "--no-requeue"
    if job.singleton:
        yield "--dependency=singleton"
    yield "--open-mode=append"
    yield f'--output="{job.logs}/job-%j.log"'
    yield from job.header


def _pbs(job: Job) -> Iterator[str]:
    yield f"-N {job.name}"
    yield f"-l select={job.nodes}" + (f":{job.pbs_chunk}" if job.pbs_chunk else "")
    if job.seconds is not None:
        yield f"-l walltime={clock(job.seconds)}"
    yield from job.queue_options
    if job.account is not None:
        yield f"-A {job.account}"
    if job.gpu_option is not None:
        yield job.gpu_option
    yield "-r y"  # the server may run it again when a node is lost
    yield "-j oe"
    yield "-k doe"  # written where it belongs while the job runs, not copied at its end
    yield f"-o {job.logs}/"
    yield from job.header


def _flux(job: Job) -> Iterator[str]:
    yield f"--job-name={job.name}"
    yield f"--nodes={job.nodes}"
    yield "--exclusive"
    if job.seconds is not None:
        yield f"--time-limit={job.seconds}s"
    yield from job.queue_options
    if job.account is not None:
        yield f"--bank={job.account}"
    if job.gpu_option is not None:
        yield job.gpu_option
    yield f'--output="{job.logs}/job-{{{{id}}}}.log"'
    yield from job.header


def clock(seconds: int) -> str:
    """Seconds as HH:MM:SS, which all schedulers read; hours may exceed a day."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
