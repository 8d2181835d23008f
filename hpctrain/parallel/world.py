"""From the launcher's variables to this process's place among all: the one reader of them besides launch/."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpctrain.errors import LaunchError

# rank, world size, local rank; in the order of trust. torchrun and `--ranks` set the first.
_RANK_VARIABLES = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "OpenMPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    "PALS": ("PALS_RANKID", "PALS_NRANKS", "PALS_LOCAL_RANKID"),
    "Flux": ("FLUX_TASK_RANK", "FLUX_JOB_SIZE", "FLUX_TASK_LOCAL_ID"),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
}
# Who sets PMI_RANK need not set MPI_LOCALRANKID: `srun --mpi=pmi2` and PALS have their own.
_LOCAL_RANK_VARIABLES = ("PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "FLUX_TASK_LOCAL_ID", "SLURM_LOCALID")
_LOCAL_SIZE_VARIABLES = (
    "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "PALS_LOCAL_SIZE",
)  # fmt: skip
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True)
class World:
    """This process among all that the launcher started."""

    rank: int
    size: int
    local_rank: int
    master_address: str
    """Host of rank 0, as the others reach it."""
    master_port: int
    """The first port that rank 0 tries to listen on."""
    job_id: str = ""
    """The scheduler's job id, or an empty string."""
    series: str = ""
    """What a job shares with its requeued and chained successors, or an empty string."""
    token: str = field(default="", repr=False)
    """The job's secret: who does not know it cannot join. Empty: the job id guards against mistakes only."""
    deadline: float | None = None
    """When the scheduler ends the job, in seconds since the epoch, if that is known."""
    job_start: float | None = None
    """When the job's script began, in seconds since the epoch, if that is known."""


def discover_world(environment: Mapping[str, str]) -> World:
    """Find rank, size and meeting point from the launcher's variables; alone, a world of one.

    Raises LaunchError if the meeting point of several ranks cannot be known, or if the world is smaller than
    the scheduler promised.
    """
    rank, size, local_rank = _place(environment) or (0, 1, 0)
    check_promise(environment, size)
    job_id = environment.get("SLURM_JOB_ID", environment.get("PBS_JOBID", environment.get("FLUX_JOB_ID", "")))
    address, port = _meeting_point(environment, rank, size, job_id) if size > 1 else ("127.0.0.1", 0)
    if address.startswith(_LOOPBACK) and _spans_nodes(environment, rank, size):
        raise everywhere(
            f"MASTER_ADDR is {address}, which every node takes for itself, but the {size} ranks are on "
            "several nodes; unset it, or set it to a name of rank 0's node that the others can reach"
        )
    return World(
        rank, size, local_rank, address, port, job_id,
        series=environment.get("HPCTRAIN_SERIES", job_id), token=environment.get("HPCTRAIN_TOKEN", ""),
        deadline=_seconds(environment, "HPCTRAIN_DEADLINE"),
        job_start=_seconds(environment, "HPCTRAIN_JOB_START"),
    )  # fmt: skip


def rank_of(environment: Mapping[str, str]) -> int:
    """This process's rank, 0 if it was started alone."""
    return (_place(environment) or (0, 1, 0))[0]


def size_of(environment: Mapping[str, str]) -> int:
    """The number of ranks that the launcher says it started, 1 if this process was started alone."""
    return (_place(environment) or (0, 1, 0))[1]


def is_placed(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return size_of(environment) > 1


def promised_tasks(environment: Mapping[str, str]) -> int:
    """How many processes the scheduler was asked for, in this step or else this job; 1 if unknown."""
    if "SLURM_STEP_NUM_TASKS" in environment:
        return _whole_number(environment, "SLURM_STEP_NUM_TASKS")
    if "RANK" in environment:  # torchrun and --ranks start their own number
        return 1
    names = [name for name in ("SLURM_NTASKS", "SLURM_JOB_NUM_NODES") if name in environment]
    return max([1, *(_whole_number(environment, name) for name in names)])


def check_promise(environment: Mapping[str, str], size: int) -> None:
    """Refuse the silent N worlds of one: a launcher and an MPI that do not know each other make them.

    Raises LaunchError if `size` is one and the scheduler promised more.
    """
    promised = promised_tasks(environment)
    if size > 1 or promised == 1 or "RANK" in environment:
        return
    raise everywhere(
        f"the scheduler promised {promised} tasks, but this process is a world of one: start it by srun "
        "(with --mpi= of your MPI, if you use one), as slurm/*.sh do, or by --ranks N on one node"
    )


def everywhere(message: str) -> LaunchError:
    """A LaunchError that every rank finds by itself, so that rank 0's message is enough."""
    error = LaunchError(message)
    error.everywhere = True
    return error


def _place(environment: Mapping[str, str]) -> tuple[int, int, int] | None:
    """Rank, world size and local rank by the launcher's variables, if there are any."""
    for rank, size, local_rank in _RANK_VARIABLES.values():
        if rank in environment and size in environment:
            local = [name for name in (local_rank, *_LOCAL_RANK_VARIABLES) if name in environment]
            return (
                _whole_number(environment, rank),
                _whole_number(environment, size),
                _whole_number(environment, local[0]) if local else 0,
            )
    return None


def _whole_number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except ValueError:
        raise LaunchError(f"{name} is {environment[name]!r}, not a whole number") from None


def _seconds(environment: Mapping[str, str], name: str) -> float | None:
    return float(_whole_number(environment, name)) if environment.get(name) else None


def _spans_nodes(environment: Mapping[str, str], rank: int, size: int) -> bool:
    """Whether the launcher says that the ranks are on several nodes."""
    if _is_slurm_step(environment, rank, size):
        return int(environment.get("SLURM_STEP_NUM_NODES", "1")) > 1
    local_sizes = [_whole_number(environment, name) for name in _LOCAL_SIZE_VARIABLES if name in environment]
    return any(local < size for local in local_sizes)


def _is_slurm_step(environment: Mapping[str, str], rank: int, size: int) -> bool:
    """Whether srun started the ranks; under mpirun a step holds its daemons, and lacks the first node."""
    task, tasks = environment.get("SLURM_PROCID"), environment.get("SLURM_STEP_NUM_TASKS")
    return (task, tasks) == (str(rank), str(size))


def _meeting_point(environment: Mapping[str, str], rank: int, size: int, job_id: str) -> tuple[str, int]:
    """Where rank 0 listens: MASTER_ADDR, else what Slurm tells, else asked over MPI."""
    digits = re.sub(r"\D", "", job_id) or "0"
    step = re.sub(r"\D", "", environment.get("SLURM_STEP_ID", "")) or "0"
    port = 20000 + (int(digits) * 7 + int(step)) % 20000
    if "MASTER_PORT" in environment:
        port = _whole_number(environment, "MASTER_PORT")
    if "MASTER_ADDR" in environment and ("MASTER_PORT" in environment or job_id):
        return environment["MASTER_ADDR"], port
    if "SLURM_STEP_NODELIST" in environment and _is_slurm_step(environment, rank, size):
        return _first_host(environment["SLURM_STEP_NODELIST"]), port
    return _ask_mpi(rank)


def _ask_mpi(rank: int) -> tuple[str, int]:
    """Rank 0's host and a port that is free there, over MPI."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as reason:
        raise LaunchError(
            f"MASTER_ADDR and MASTER_PORT are not set, and mpi4py cannot agree on them ({reason}); "
            "set both to the host of rank 0 and a free port there"
        ) from None
    mine = (socket.gethostname() if MPI.COMM_WORLD.size > 1 else "127.0.0.1", free_port())
    address, port = MPI.COMM_WORLD.bcast(mine, root=0)
    mpi_rank, mpi_size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    MPI.Finalize()  # it is not needed any more, and mpiexec calls a rank that leaves without it a failure
    if mpi_rank != rank:
        raise LaunchError(
            f"the launcher says rank {rank}, MPI says rank {mpi_rank} of {mpi_size}: "
            "mpi4py was built for another MPI; set MASTER_ADDR and MASTER_PORT to start without it"
        )
    return str(address), int(port)


def _first_host(node_list: str) -> str:
    """The first host of a Slurm node list such as `n[01-04,7],m1`: `n01`."""
    match = re.match(r"([^,\[\]]+(?:\[\d[\d,-]*\][^,\[\]]*)*)(?:,|$)", node_list)
    if match is None:
        raise LaunchError(f"the Slurm node list {node_list!r} is not understood; set MASTER_ADDR")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", match[1])


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def set_rank_variables(world: World) -> None:
    """Set torchrun's variables, which DeepSpeed reads."""
    os.environ.update(
        RANK=str(world.rank), WORLD_SIZE=str(world.size), LOCAL_RANK=str(world.local_rank),
        MASTER_ADDR=world.master_address, MASTER_PORT=str(world.master_port),
    )  # fmt: skip
