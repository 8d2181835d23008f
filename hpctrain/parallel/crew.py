"""Ranks that do host work together over MPI: work is dealt out as they go, and an error of one is one of all.

Nothing here needs torch. Alone, without MPI, every call is the plain thing that it says.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from hpctrain.errors import HpctrainError
from hpctrain.manifest import StageWriter, partial_directory, write_stage
from hpctrain.parallel.world import check_promise, everywhere, rank_of, size_of
from hpctrain.progress import say, tell_batch_script

T = TypeVar("T")
_POLL_SECONDS = 0.002
_REPORT_SECONDS = 0.5
_TO_DEALER, _TO_WORKER = 1, 2
_PROGRESS, _ASKS, _FAILED = range(3)

_Report = Callable[[float, str], None]


class Crew:
    """All ranks of a command; see `join_crew`. Every method but `deal`'s loop is a collective call."""

    def __init__(self, communicator: Any = None) -> None:
        self._communicator = communicator
        self.rank: int = communicator.rank if communicator else 0
        self.size: int = communicator.size if communicator else 1

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self._communicator:
            self._communicator.barrier()

    def bcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        return self._communicator.bcast(value) if self._communicator else value

    def allgather(self, value: T) -> list[T]:
        """Every rank's value in the order of ranks, on every rank."""
        return self._communicator.allgather(value) if self._communicator else [value]

    def gather(self, value: T) -> list[T]:
        """Every rank's value in the order of ranks, on rank 0; an empty list elsewhere."""
        return (self._communicator.gather(value) or []) if self._communicator else [value]

    def total(self, value: T) -> T:
        """The sum of every rank's number or array, on every rank."""
        return self._communicator.allreduce(value) if self._communicator else value

    def exchange(self, values: Sequence[T]) -> list[T]:
        """Send `values[r]` to each rank r; returns what the ranks sent here, in their order."""
        return self._communicator.alltoall(values) if self._communicator else list(values)

    def once(self, work: Callable[[], T]) -> T:
        """Let rank 0 do it, and give its result to all; so with its error."""
        result = None
        with self.together():
            if self.rank == 0:
                result = work()
        return self.bcast(result)  # type: ignore[return-value] # rank 0's is no None of ours

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block of work of each rank's own: when all have left it, an error of any is raised on all.

        There must be no collective call in the block: a rank that fails would not come to it.
        """
        mine: Exception | None = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again on every rank
            mine = error
        self._agree(mine)

    @contextmanager
    def deal(self, items: Sequence[T], report: _Report = lambda amount, status: None) -> Iterator[Deal[T]]:
        """A loop over `items`, each of which goes to one rank: the next in order to whoever asks first.

        Only rank 0 needs to have the items. `report` is called on rank 0 with every rank's progress. An
        error in the block on one rank ends the loops of all, and is raised on all. Alone: all in order.
        """
        deal = Deal(self._communicator, items, report)
        mine: Exception | None = None
        try:
            yield deal
        except Exception as error:  # noqa: BLE001 - raised again on every rank
            mine = error
        deal.finish(failed=mine is not None)
        self._agree(mine)

    def _agree(self, mine: Exception | None) -> None:
        if self._communicator is None:
            if mine is not None:
                raise mine
            return
        errors = self._communicator.allgather(self._as_ours(mine))
        if found := [error for error in errors if error is not None]:
            found[0].everywhere = True
            raise found[0] from mine

    def _as_ours(self, error: Exception | None) -> HpctrainError | None:
        """An error as one that all ranks can raise; what no user should meet shows its traceback here."""
        if error is None or isinstance(error, HpctrainError):
            return error
        traceback.print_exception(error)
        return HpctrainError(f"rank {self.rank}: {type(error).__name__}: {error}")


class Deal(Generic[T]):
    """One rank's side of `Crew.deal`. Rank 0 deals between its own items, whenever it reports progress."""

    def __init__(self, communicator: Any, items: Sequence[T], report: _Report) -> None:
        self._communicator, self._report = communicator, report
        self._items = iter(items)
        self._alone = communicator is None
        self._deals = self._alone or communicator.rank == 0
        self._working = set() if self._alone else set(range(1, communicator.size))
        self._done, self._status, self._sent = 0.0, "", 0.0
        self._over = False

    def __iter__(self) -> Iterator[T]:
        while not self._over:
            handed = self._take() if self._deals else self._ask()
            if handed:
                yield handed[0]
            else:
                self._over = True

    def advance(self, amount: float, status: str = "") -> None:
        """Count `amount` of work done; to be called often, above all on rank 0: others may be waiting."""
        if self._deals:
            self._report(amount, status)
            self._serve()
            return
        self._done, self._status = self._done + amount, status
        if time.monotonic() - self._sent > max(_REPORT_SECONDS, self._communicator.size / 100):
            self._send(_PROGRESS)

    def finish(self, failed: bool) -> None:
        """Wait until no rank works on an item of this deal any more."""
        if not self._deals:
            if failed:
                self._send(_FAILED)
            elif not self._over:
                raise HpctrainError("the loop over dealt items was left before its end")
            return
        if failed:
            self._items = iter(())
        while self._working:
            self._serve()
            time.sleep(_POLL_SECONDS)

    def _take(self) -> tuple[T, ...]:
        """The next item, or nothing."""
        self._serve()
        return tuple(islice(self._items, 1))

    def _serve(self) -> None:
        """Answer whoever has written to rank 0 by now."""
        while not self._alone and self._communicator.iprobe(tag=_TO_DEALER):
            rank, amount, status, what = self._communicator.recv(tag=_TO_DEALER)
            self._report(amount, status)
            handed: tuple[T, ...] = ()
            if what == _FAILED:
                self._items = iter(())
            elif what == _ASKS:
                handed = tuple(islice(self._items, 1))
                self._communicator.send(handed, rank, _TO_WORKER)
            if what != _PROGRESS and not handed:
                self._working.discard(rank)

    def _send(self, what: int) -> None:
        self._communicator.send((self._communicator.rank, self._done, self._status, what), 0, _TO_DEALER)
        self._done, self._sent = 0.0, time.monotonic()

    def _ask(self) -> tuple[T, ...]:
        self._send(_ASKS)
        while not self._communicator.iprobe(source=0, tag=_TO_WORKER):
            time.sleep(_POLL_SECONDS)  # MPI itself would wait at full speed
        handed: tuple[T, ...] = self._communicator.recv(source=0, tag=_TO_WORKER)
        return handed


ALONE = Crew()


@contextmanager
def join_crew(environment: Mapping[str, str]) -> Iterator[Crew]:
    """The ranks that mpiexec, srun or their like started; this process alone where none did.

    An error that only one rank has ends all of them: the others would wait for it forever. Raises LaunchError
    if MPI knows another number of ranks than the launcher or the scheduler.
    """
    size = size_of(environment)
    check_promise(environment, size)
    if size == 1:
        yield ALONE
        return
    mpi = _import_mpi(environment, size)
    try:
        yield Crew(mpi.COMM_WORLD.Dup())
    except BaseException as error:
        if not getattr(error, "everywhere", False):
            if isinstance(error, HpctrainError):
                say(f"hpctrain: rank {mpi.COMM_WORLD.rank}: {error}")
                tell_batch_script(str(error.exit_code))
            else:
                traceback.print_exception(error)
            mpi.COMM_WORLD.Abort(getattr(error, "exit_code", 1))
        raise


def _import_mpi(environment: Mapping[str, str], size: int) -> Any:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as reason:
        raise everywhere(f"{size} ranks were started, but mpi4py finds no MPI library: {reason}") from None
    if (MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size) != (rank_of(environment), size):
        raise everywhere(
            f"the launcher says rank {rank_of(environment)} of {size}, MPI says rank {MPI.COMM_WORLD.rank} "
            f"of {MPI.COMM_WORLD.size}: start the ranks with mpiexec of the MPI that mpi4py was built for, "
            "or with srun --mpi= of its kind (pmix or pmi2)"
        )
    return MPI


@contextmanager
def write_stage_together(crew: Crew, final: Path, kind: str, format_version: int) -> Iterator[StageWriter]:
    """As `write_stage`, with files from every rank; rank 0 publishes when the block ends on all.

    Each rank writes files of its own names and may seal them. `inputs`, `counts` and `details` are rank 0's.
    """
    with ExitStack() as stack:
        writer = StageWriter(partial_directory(final))
        with crew.together():
            if crew.rank == 0:
                writer = stack.enter_context(write_stage(final, kind, format_version))
        yield writer
        for files in crew.gather(writer.files):
            writer.files.update(files)
        with crew.together():
            stack.close()
