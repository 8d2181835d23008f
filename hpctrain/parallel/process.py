"""A process group for the ranks of a world, and what they do together on the host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hpctrain.errors import HpctrainError, LaunchError
from hpctrain.parallel.meeting import PATIENCE_SECONDS, Meeting, meet
from hpctrain.parallel.world import World, set_rank_variables

if TYPE_CHECKING:
    import torch


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
def process_group(world: World, meeting: Meeting | None = None) -> Iterator[torch.device]:
    """Join all ranks: NCCL (or RCCL) where there are GPUs, gloo on CPUs; yields this rank's device.

    `meeting`: where the ranks have met already; otherwise they meet here. Raises LaunchError if they cannot.
    """
    import deepspeed
    import torch

    set_rank_variables(world)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", world.local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        # Its CPU collectives would be compiled at start, which takes minutes and fails without a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with ExitStack() as stack:
        met = meeting or stack.enter_context(meet(world))
        backend = "nccl" if on_gpu else "gloo"
        try:
            torch.distributed.init_process_group(
                backend, store=_store(met), rank=world.rank, world_size=world.size,
                timeout=timedelta(seconds=PATIENCE_SECONDS),
            )  # fmt: skip
        except (RuntimeError, ValueError) as reason:
            raise LaunchError(
                f"rank {world.rank} of {world.size} on {met.host} met the others, but {backend} cannot "
                f"connect them: {str(reason).splitlines()[0]}; see docs/clusters.md on network interfaces"
            ) from reason
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        try:
            yield device
        finally:
            torch.distributed.destroy_process_group()


def _store(meeting: Meeting) -> Any:
    """The key-value store through which the backend connects the ranks."""
    import torch

    distributed: Any = torch.distributed  # its stores are not in its stubs
    world = meeting.world
    if world.size == 1:
        return distributed.HashStore()
    _use_interface(meeting.interface_address)
    listening = meeting.store_socket.detach() if meeting.store_socket else None
    store = distributed.TCPStore(
        world.master_address, meeting.store_port, None, world.rank == 0, wait_for_workers=False,
        timeout=timedelta(seconds=PATIENCE_SECONDS), master_listen_fd=listening, use_libuv=True,
    )  # fmt: skip
    return distributed.PrefixStore(meeting.secret, store)


def _use_interface(address: str) -> None:
    """Let gloo use the interface over which the ranks met; it would look up the host's own name, which many
    systems map to loopback."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def raise_together(error: HpctrainError | None) -> None:
    """Raise on every rank the first error that any rank brings; a collective call."""
    import torch

    errors: list[HpctrainError | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(errors, error)
    found = [error for error in errors if error is not None]
    if found:
        found[0].everywhere = True
        raise found[0]
