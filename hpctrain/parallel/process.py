"""From the environment to a process group: the one place, besides launch/, that reads rank variables."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from hpctrain.errors import HpctrainError, LaunchError

if TYPE_CHECKING:
    import torch

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
_RENDEZVOUS_SECONDS = 300


@dataclass(frozen=True)
class World:
    """This process among all that the launcher started."""

    rank: int
    size: int
    local_rank: int
    master_address: str
    master_port: int
    job_id: str
    """The scheduler's job id, or an empty string."""


def discover_world(environment: Mapping[str, str]) -> World:
    """Find rank, size and meeting point from the launcher's variables; alone, a world of one.

    Raises LaunchError if the meeting point of several ranks cannot be known.
    """
    rank, size, local_rank = _place(environment) or (0, 1, 0)
    job_id = environment.get("SLURM_JOB_ID", environment.get("PBS_JOBID", environment.get("FLUX_JOB_ID", "")))
    if size == 1:
        return World(0, 1, 0, "127.0.0.1", _free_port(), job_id)
    address, port = _meeting_point(environment, rank, size, job_id)
    return World(rank, size, local_rank, address, port, job_id)


def rank_of(environment: Mapping[str, str]) -> int:
    """This process's rank, 0 if it was started alone."""
    return (_place(environment) or (0, 1, 0))[0]


def is_placed(environment: Mapping[str, str]) -> bool:
    """Whether a launcher started this process as one of several ranks."""
    return (_place(environment) or (0, 1, 0))[1] > 1


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


def _meeting_point(environment: Mapping[str, str], rank: int, size: int, job_id: str) -> tuple[str, int]:
    """Where rank 0 listens: MASTER_ADDR and MASTER_PORT, else what Slurm tells, else asked over MPI."""
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return environment["MASTER_ADDR"], _whole_number(environment, "MASTER_PORT")
    # Under mpirun a Slurm step holds its daemons, which lack the first node: only a step of the ranks counts.
    task, tasks = environment.get("SLURM_PROCID"), environment.get("SLURM_STEP_NUM_TASKS")
    if "SLURM_STEP_NODELIST" in environment and (task, tasks) == (str(rank), str(size)):
        digits = re.sub(r"\D", "", job_id) or "0"
        step = re.sub(r"\D", "", environment.get("SLURM_STEP_ID", "")) or "0"
        return _first_host(environment["SLURM_STEP_NODELIST"]), 20000 + (int(digits) * 7 + int(step)) % 20000
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as reason:
        raise LaunchError(
            f"MASTER_ADDR and MASTER_PORT are not set, and mpi4py cannot agree on them ({reason}); "
            "set both to the host of rank 0 and a free port there"
        ) from None
    mine = (socket.gethostname() if MPI.COMM_WORLD.size > 1 else "127.0.0.1", _free_port())
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Gang:
    """Ranks that do a piece of host work together; alone, no process group is needed."""

    rank: int
    size: int

    def concatenate(self, lines: list[str]) -> list[str]:
        """All ranks' lines, in the order of ranks; a collective call."""
        if self.size == 1:
            return lines
        import torch

        gathered: list[list[str]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(gathered, lines)
        return [line for part in gathered for line in part]


ALONE = Gang(0, 1)


def choose_accelerator() -> None:
    """Tell DeepSpeed to use the CPU where there is no GPU, before it is imported and warns of it."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


@contextmanager
def process_group(world: World) -> Iterator[torch.device]:
    """Join all ranks: NCCL (or RCCL) where there are GPUs, gloo on CPUs; yields this rank's device.

    DeepSpeed reads the same variables as torchrun sets, so they are set here for it.
    """
    import deepspeed
    import torch

    os.environ.update(
        RANK=str(world.rank), WORLD_SIZE=str(world.size), LOCAL_RANK=str(world.local_rank),
        MASTER_ADDR=world.master_address, MASTER_PORT=str(world.master_port),
    )  # fmt: skip
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", world.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        # Its CPU collectives would be compiled at start, which takes minutes and fails without a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    try:
        deepspeed.init_distributed(
            "nccl" if on_gpu else "gloo", auto_mpi_discovery=False, verbose=False,
            timeout=timedelta(seconds=_RENDEZVOUS_SECONDS), init_method="env://",
        )  # fmt: skip
    except (RuntimeError, ValueError) as reason:
        raise LaunchError(
            f"rank {world.rank} of {world.size} could not meet the others at {world.master_address}:"
            f"{world.master_port}: {str(reason).splitlines()[0]}"
        ) from reason
    try:
        yield device
    finally:
        torch.distributed.destroy_process_group()


def raise_together(error: HpctrainError | None) -> None:
    """Raise on every rank the first error that any rank brings; a collective call."""
    import torch

    errors: list[HpctrainError | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(errors, error)
    found = [error for error in errors if error is not None]
    if found:
        found[0].everywhere = True
        raise found[0]
