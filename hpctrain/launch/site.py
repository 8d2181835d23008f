"""Site profiles: what is known of a cluster, as data in launch/sites/NAME.yaml."""

from __future__ import annotations

import datetime
import difflib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

import hpctrain
from hpctrain.config import Section, load_config
from hpctrain.errors import ConfigError

Scheduler = Literal["slurm", "pbs", "flux", "none"]

_DURATION = re.compile(r"(?:(\d+)-)?(\d{1,3}):([0-5]\d):([0-5]\d)")


def _duration(value: object) -> object:
    if isinstance(value, int):  # YAML 1.1 reads a bare 24:00:00 as a number to the base of 60
        raise ValueError(f'{value} is not a time: quote it, as in "24:00:00"')
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        raise ValueError(f"{value!r} is not a time: write HH:MM:SS or D-HH:MM:SS")
    return value


Duration = Annotated[str, BeforeValidator(_duration)]
"""A length of time as schedulers write it: HH:MM:SS or D-HH:MM:SS."""
Line = Annotated[str, Field(pattern=r"^[^\r\n]+$")]


def seconds_of(duration: Duration) -> int:
    """A length of time in seconds; raises ValueError if it is not one."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"{duration!r} is not a time: write HH:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


class Limit(Section):
    """The longest time of a job of up to so many nodes."""

    nodes: int | None = Field(default=None, ge=1)
    """Most nodes of such a job; none: no limit is known."""
    time: Duration | None = None
    """Its longest time, "HH:MM:SS" or "D-HH:MM:SS"; none: no limit is known."""


class Queue(Section):
    """A queue, partition or quality of service."""

    options: list[Line] = []
    """Header options that select it. Empty: --partition=NAME (Slurm), -q NAME (PBS), --queue=NAME (Flux)."""
    limits: list[Limit] = []
    """By number of nodes, smallest first: the first that a job fits holds. Empty: none are known."""
    min_nodes: int = Field(default=1, ge=1)
    """Fewest nodes of a job."""
    gpus: bool = True
    """Whether its nodes have the GPUs that `node` says."""
    gpu_memory_bytes: int | None = Field(default=None, ge=1)
    """Memory of one GPU, where it is not what `node` says."""
    preemptable: bool = False
    """Whether its jobs may be stopped for others."""

    @model_validator(mode="after")
    def _ascending(self) -> Queue:
        nodes = [float("inf") if limit.nodes is None else limit.nodes for limit in self.limits]
        if nodes != sorted(set(nodes)):
            raise ValueError("limits must stand in the order of their nodes, smallest first")
        return self

    @property
    def max_nodes(self) -> int | None:
        """Most nodes of any job; None if no limit is known."""
        return self.limits[-1].nodes if self.limits else None

    def longest(self, nodes: int) -> Duration | None:
        """The longest time of a job of so many nodes; None if no limit is known."""
        fitting = (limit.time for limit in self.limits if limit.nodes is None or nodes <= limit.nodes)
        return next(fitting, None)


class Node(Section):
    """What one node has."""

    gpus: int = Field(default=0, ge=0)
    """GPUs as programs see them; each gets one rank."""
    gpu: str | None = None
    """Their kind."""
    gpu_vendor: Literal["nvidia", "amd", "intel"] | None = None
    """Who makes them."""
    gpu_memory_bytes: int | None = Field(default=None, ge=1)
    """Memory of one GPU."""
    cores: int | None = Field(default=None, ge=1)
    """Cores that a job can use."""
    memory_bytes: int | None = Field(default=None, ge=1)
    """Main memory."""
    local_storage: Line | None = None
    """Where fast storage of the node's own is, if there is any, with variables such as $USER: what
    BROADCAST=yes means."""
    local_paths: list[Line] = []
    """Directories that each node has for itself: neither runs nor shards may be there."""


class Source(Section):
    """Where a profile's facts are from."""

    url: Line
    """A public page."""
    read: datetime.date
    """When it was read; a stored copy may be older."""


class Site(Section):
    """A cluster as `hpctrain submit` needs to know it. What is not known is left out and not checked."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """The name that --site takes; the file is called after it."""
    title: Line
    """What it is, for people."""
    tried: Line | None = None
    """Where and when the profile was run; none: it was not tried."""
    sources: list[Source] = []
    """The documentation that the profile is from."""
    scheduler: Scheduler = "slurm"
    """Who runs jobs; none: ranks are started at once, on this machine."""
    queues: dict[str, Queue] = {}
    """Queues by name. Empty: none are known, any name is taken."""
    default_queue: str | None = None
    """The queue of jobs that name none; none: the scheduler's own."""
    node: Node = Node()
    header: list[Line] = []
    """Options of every job's header besides those that hpctrain writes."""
    gpu_option: Line | None = None
    """Header option that asks for the GPUs of a node, with {gpus} for their number; none: as the scheduler
    spells it (PBS: no option, see `pbs_chunk`)."""
    pbs_chunk: Line | None = None
    """What a PBS job asks of each node, such as ncpus=64:ngpus=4; none: nothing but the node."""
    requeue: bool = False
    """Whether a job may put itself into the queue again. Where not, --chain submits several jobs."""
    account_required: bool = False
    """Whether every job must name an account."""
    setup: list[Line] = []
    """Shell commands before the run, a line each, such as module load; one that fails ends the job."""
    environment: dict[str, Line] = {}
    """Variables of the job, taken literally: of the network, of the launcher (such as SLURM_CPU_BIND, which
    srun reads), and those that launch/job.sh reads."""

    @model_validator(mode="after")
    def _agree(self) -> Site:
        problems = []
        if self.default_queue is not None and self.default_queue not in self.queues:
            problems.append(f"default_queue {self.default_queue!r} is not one of the queues")
        wrong = [name for name in self.environment if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]
        if wrong:
            problems.append(f"environment: not names of variables: {', '.join(map(repr, wrong))}")
        if self.requeue and self.scheduler != "slurm":
            problems.append("requeue: jobs put themselves into the queue again under Slurm only")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def project_directory() -> Path:
    """The project's checkout, which holds the scripts that jobs run. Raises ConfigError if there is none."""
    beside_package = Path(hpctrain.__file__).resolve().parents[1]
    for directory in (beside_package, Path.cwd()):
        if (directory / "launch" / "job.sh").is_file():
            return directory
    raise ConfigError(
        f"the project's launch/ directory is neither beside the installed package ({beside_package}) nor in "
        "this directory: change to the checkout of hpctrain, or install from it with pip install -e"
    )


def known_sites() -> list[str]:
    """The names of the profiles that come with the project."""
    return sorted(path.stem for path in (project_directory() / "launch" / "sites").glob("*.yaml"))


def load_site(name: str) -> Site:
    """The profile of a name, or of a path that ends in .yaml or holds a slash. Raises ConfigError."""
    is_path = name.endswith((".yaml", ".yml")) or "/" in name
    path = Path(name) if is_path else project_directory() / "launch" / "sites" / f"{name}.yaml"
    if not is_path and name not in known_sites():
        near = difflib.get_close_matches(name, known_sites(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"--site: no profile {name!r}; {hint}known: {', '.join(known_sites())}; "
            "or the path of a profile of your own, such as ./mysite.yaml"
        )
    try:
        return load_config(path, [], Site)
    except ConfigError as error:
        raise ConfigError(
            [text if text.startswith(f"{path}:") else f"{path}: {text}" for text in error.problems]
        ) from None
