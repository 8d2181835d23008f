"""The last words of a rank whose run cannot go on."""

from __future__ import annotations

from contextlib import closing

from hpctrain.checkpoint.save import Saver
from hpctrain.parallel.world import World
from hpctrain.progress import say
from hpctrain.train.rundir import Journal

_SETTLE_SECONDS = 10.0


class FaultReport:
    """Called by the watch with what went wrong: notes it, and lets a save that is being written finish.

    Its parts are assigned as they come to be; a fault may come before.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.journal: Journal | None = None
        self.saver: Saver | None = None

    def __call__(self, reason: str) -> None:
        """Tell it once a node, since rank 0 may be the one that is gone; write the event; settle."""
        if self.world.local_rank == 0:
            say(f"hpctrain: {reason}; ending rank {self.world.rank} and all others")
        if self.journal is not None:  # which the main thread may have closed on its way out
            with closing(Journal(self.journal.directory, self.world)) as journal:
                journal.event("fault", self.journal.step, reason=reason)
        if self.saver is not None:
            self.saver.settle(_SETTLE_SECONDS)
