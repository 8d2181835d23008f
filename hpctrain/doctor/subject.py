"""What is examined, and what the checks have learnt of it so far."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpctrain.doctor.exchange import Exchange
from hpctrain.parallel.meeting import Meeting
from hpctrain.parallel.world import World

if TYPE_CHECKING:
    from hpctrain.train.config import RunConfig


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    environment: Mapping[str, str]
    seconds: float = 50.0
    """The longest that all checks together may take."""
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    run_directory: Path | None = None
    """Where the run will live, if not where the config says."""

    @property
    def patience_seconds(self) -> float:
        """How long one rank waits for an answer of another."""
        return self.seconds / 6


@dataclass(frozen=True)
class Neighbour:
    """What every rank knows of each."""

    host: str
    pid: int
    cores: int
    """A bit for each core that the rank may run on."""
    threads: int
    """OMP_NUM_THREADS, or as many as it has cores."""


@dataclass
class Subject:
    """This rank in its world. Until the ranks have met, each is a world of one."""

    request: Request
    stack: ExitStack
    """Closes, in the end, what the checks leave open."""
    exchange: Exchange
    neighbours: list[Neighbour]
    """By rank: all of the world, this one too."""
    met: bool = False
    config: RunConfig | None = None
    parameters: int | None = None
    """That the config trains, if its shards could be read."""
    frozen: int = 0
    """Parameters of the base that an adapter changes."""
    scratch: Path | None = None
    """A directory below the run directory for the checks' own files."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The process's environment variables."""
        return self.request.environment

    @property
    def world(self) -> World:
        """This process among all."""
        return self.exchange.meeting.world

    @property
    def host(self) -> str:
        """This node's name."""
        return self.exchange.meeting.host

    @property
    def hosts(self) -> list[str]:
        """The names of all nodes, in the order of ranks."""
        return list(dict.fromkeys(each.host for each in self.neighbours))

    @property
    def here(self) -> list[Neighbour]:
        """The ranks on this node."""
        return [each for each in self.neighbours if each.host == self.host]

    @property
    def is_first_here(self) -> bool:
        """Whether no lower rank is on this node."""
        return all(each.host != self.host for each in self.neighbours[: self.world.rank])

    @property
    def deadline(self) -> float | None:
        """When the scheduler ends the job, in seconds since the epoch, if that is known."""
        told = self.environment.get("SLURM_JOB_END_TIME", "")
        return self.world.deadline or (float(told) if told.isdigit() else None)

    @property
    def run_directory(self) -> Path | None:
        """Where the run will live, if that is known."""
        return self.request.run_directory or (self.config.run.dir if self.config else None)


def alone(request: Request, stack: ExitStack) -> Subject:
    """A rank that has met nobody."""
    world = World(rank=0, size=1, local_rank=0, master_address="127.0.0.1", master_port=0)
    meeting = Meeting(world, socket.gethostname())
    exchange = Exchange(meeting, request.patience_seconds)
    return Subject(request, stack, exchange, neighbours=[oneself(request.environment)])


def oneself(environment: Mapping[str, str]) -> Neighbour:
    """What the others should know of this rank."""
    cores = os.sched_getaffinity(0)
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    count = int(threads) if threads.isdigit() else len(cores)
    return Neighbour(socket.gethostname(), os.getpid(), sum(1 << core for core in cores), count)
