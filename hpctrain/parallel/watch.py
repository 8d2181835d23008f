"""Ranks that watch each other: when one dies, falls silent or all hang, every rank ends, and says why.

A collective waits for a dead rank until its timeout, and names nobody. So each rank keeps its connection from
the meeting and sends a heartbeat over it from a thread of its own; rank 0 hears all, the others hear rank 0.
"""

from __future__ import annotations

import faulthandler
import os
import selectors
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pydantic import Field

from hpctrain.config import Section
from hpctrain.errors import HpctrainError, StoppedEarly
from hpctrain.parallel.meeting import Meeting

_GATHER_SECONDS = 0.5
_VERDICT_SECONDS = 5.0
_PART_SECONDS = 2.0
_RUN_AGAIN = StoppedEarly.exit_code


class WatchConfig(Section):
    """When ranks are given up, so that the job can be run again from its last checkpoint."""

    silent_seconds: float = Field(default=60.0, ge=1)
    """A rank that sends no heartbeat for so long is frozen, or its node is gone. A rank that dies is noticed
    at once."""
    hang_seconds: float = Field(default=1800.0, ge=1)
    """Without a finished step, evaluation, save or part of the start for so long, the run hangs."""


@dataclass
class _Signs:
    """What rank 0 has seen go wrong and not yet acted on."""

    lost: dict[int, str] = field(default_factory=dict)
    """Host by rank, of connections that ended without a word."""
    leaving: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Reason and exit code by rank, of ranks that failed and said so."""
    since: float = 0.0


class Watch:
    """Watches the ranks of a meeting while its block runs; ends the process when the run cannot go on.

    `on_end(reason)` is called in the watching thread just before the process is ended, with exit code 75 or
    that of the rank that failed.
    """

    def __init__(self, meeting: Meeting, config: WatchConfig, on_end: Callable[[str], None]) -> None:
        self.meeting, self.config, self.on_end = meeting, config, on_end
        self._stacks: TextIO = sys.stderr
        self.interval = min(5.0, config.silent_seconds / 6)
        self._progress = time.monotonic()
        self._heard: defaultdict[int, float] = defaultdict(time.monotonic)
        self._signs = _Signs()
        self._watched = dict(meeting.peers)
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Say goodbye, or why this rank fails; if another's death is the reason, be ended by the thread."""
        told_by_all = isinstance(error, HpctrainError) and error.everywhere
        if isinstance(error, Exception) and not isinstance(error, HpctrainError) and self.meeting.peers:
            time.sleep(_VERDICT_SECONDS)  # a lost rank makes collectives fail: the thread learns of it
        if error is None or told_by_all:
            self._send({"bye": True})
        else:
            code = error.exit_code if isinstance(error, HpctrainError) else 1
            self._send({"leaving": f"{type(error).__name__}: {error}", "code": code})
        self._over.set()
        self._thread.join(self.interval)
        self._part()
        faulthandler.cancel_dump_traceback_later()
        if self._stacks is not sys.stderr:
            self._stacks.close()

    def beat(self) -> None:
        """Note that the run has got somewhere."""
        self._progress = time.monotonic()

    def write_stacks_to(self, path: Path) -> None:
        """Append the stacks of a hang to a file; until told, they go to stderr."""
        self._stacks = path.open("a", encoding="utf-8")

    def _run(self) -> None:
        """The thread: hear, beat, judge."""
        with selectors.DefaultSelector() as selector:
            for peer in list(self._watched.values()):
                peer.channel.connection.settimeout(self.interval)
                if peer.channel.waiting and not self._hear(peer.rank):  # it came with the meeting's last word
                    continue
                selector.register(peer.channel.connection, selectors.EVENT_READ, peer.rank)
            beaten = 0.0
            while not self._over.is_set():
                # This timer also ends a process whose interpreter is held by foreign code, as this thread is.
                patience = 2 * self.config.silent_seconds
                faulthandler.dump_traceback_later(patience, exit=True, file=self._stacks)
                pause = _GATHER_SECONDS / 4 if self._signs.since else self.interval / 4
                if not self._watched:
                    self._over.wait(pause)
                for key, _ in selector.select(pause) if self._watched else ():
                    if not self._hear(key.data):
                        selector.unregister(key.fileobj)
                if time.monotonic() - beaten > self.interval:
                    beaten = time.monotonic()
                    self._send({"beat": True})
                self._judge()

    def _hear(self, rank: int) -> bool:
        """Take in what a peer sent; returns whether it goes on being watched."""
        self._heard[rank] = time.monotonic()
        records = self._watched[rank].channel.receive()
        if records is None:
            self._note(lost=rank)
            return False
        for record in records:
            if "end" in record:
                self._end(str(record["end"]), int(record["code"]), bool(record["stacks"]))
            if "leaving" in record:
                self._note(leaving=rank, why=str(record["leaving"]), code=int(record["code"]))
            if "bye" in record or "leaving" in record:
                self._watched.pop(rank).channel.finish()
                return False
        return True

    def _note(
        self, lost: int | None = None, leaving: int | None = None, why: str = "", code: int = 0
    ) -> None:
        self._signs.since = self._signs.since or time.monotonic()
        if lost is not None:
            self._signs.lost[lost] = self._watched.pop(lost).host
        if leaving is not None:
            self._signs.leaving[leaving] = (f"{self._name(leaving)} failed: {why}", code)

    def _judge(self) -> None:
        """Decide whether the run is over. A loss that is followed by failures elsewhere is their cause."""
        now = time.monotonic()
        signs = self._signs
        if signs.since and now - signs.since > _GATHER_SECONDS:
            if signs.lost:
                self._end_all(f"{_list(signs.lost)} died", _RUN_AGAIN)
            else:
                reason, code = signs.leaving[min(signs.leaving)]
                self._end_all(reason, code)
        silent = {
            rank: peer.host
            for rank, peer in self._watched.items()
            if now - self._heard[rank] > self.config.silent_seconds
        }
        if silent:
            seconds = self.config.silent_seconds
            reason = f"{_list(silent)} silent for {seconds:.0f} s: frozen, or the node is gone"
            self._end_all(reason, _RUN_AGAIN, stacks=True)
        if self.meeting.world.rank == 0 and now - self._progress > self.config.hang_seconds:
            seconds = self.config.hang_seconds
            self._end_all(f"the run hangs: nothing finished for {seconds:.0f} s", _RUN_AGAIN, stacks=True)

    def _end_all(self, reason: str, code: int, stacks: bool = False) -> None:
        if self.meeting.world.rank == 0:
            self._send({"end": reason, "code": code, "stacks": stacks})
        self._end(reason, code, stacks)

    def _end(self, reason: str, code: int, stacks: bool) -> None:
        """End this process: its main thread may be waiting for somebody who will not come."""
        if self._over.is_set():
            return
        if stacks:
            self._stacks.write(f"stacks of rank {self.meeting.world.rank}: {reason}\n")
            self._stacks.flush()
            faulthandler.dump_traceback(self._stacks, all_threads=True)
        try:
            self.on_end(reason)
        except Exception:  # noqa: BLE001 - whatever it is, the process must end
            traceback.print_exc()
        sys.stderr.flush()
        self._part()
        os._exit(code)

    def _part(self) -> None:
        """Make sure that the last words arrive."""
        deadline = time.monotonic() + _PART_SECONDS
        for peer in self._watched.values():
            peer.channel.finish()
        for peer in self._watched.values():
            peer.channel.drain(deadline)

    def _send(self, record: dict[str, Any]) -> None:
        """Send to all that are watched; who cannot be reached is noticed when its connection is read."""
        with self._sending:
            for peer in list(self._watched.values()):
                try:
                    peer.channel.send(record)
                except OSError:
                    continue

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.meeting.peers[rank].host}"


def _list(hosts: dict[int, str]) -> str:
    """Ranks and their hosts: `rank 3 on n2`, or `ranks 2, 3 on n2; ranks 4, 5 on n3`."""
    by_host: dict[str, list[int]] = defaultdict(list)
    for rank, host in sorted(hosts.items()):
        by_host[host].append(rank)
    return "; ".join(
        f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} on {host}"
        for host, ranks in by_host.items()
    )
