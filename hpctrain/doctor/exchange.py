"""What the ranks tell each other, over the connections of their meeting; no wait is endless.

Every record has a name, so what comes late is never taken for something else. A rank that did not answer
once is not waited for again.
"""

from __future__ import annotations

import selectors
import threading
import time
from typing import Any

from hpctrain.parallel.meeting import Meeting

_SLICE_SECONDS = 0.2


class Exchange:
    """A star: rank 0 speaks with every rank, the others with rank 0."""

    def __init__(self, meeting: Meeting, patience_seconds: float) -> None:
        self.meeting, self.patience_seconds = meeting, patience_seconds
        self.rank, self.size = meeting.world.rank, meeting.world.size
        self.silent: dict[int, str] = {}
        """Ranks that did not answer, each with what it was asked for."""
        self._arrived: dict[tuple[int, str], Any] = {}
        self._gone: set[int] = set()
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        for peer in meeting.peers.values():
            self._selector.register(peer.channel, selectors.EVENT_READ, peer)

    def send(self, to: int, name: str, value: Any) -> None:
        """Send a record of JSON-like content. Raises OSError if the other rank is gone."""
        self.meeting.peers[to].channel.send({"name": name, "value": value})

    def receive(self, origin: int, name: str, seconds: float | None = None) -> Any:
        """The record of that name from that rank. Raises TimeoutError, or ConnectionError if it is gone."""
        wait = self.patience_seconds if seconds is None else seconds
        deadline = time.monotonic() + wait
        self._listen(0.0)
        while (origin, name) not in self._arrived:
            if origin in self._gone:
                raise ConnectionError(f"{self._named(origin)} has gone")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{self._named(origin)} said nothing for {wait:.0f} s")
            self._listen(_SLICE_SECONDS)
        return self._arrived.pop((origin, name))

    def gather(
        self, name: str, value: Any, seconds: float | None = None, silent_seconds: float = 0.0
    ) -> dict[int, Any]:
        """Send `value` to rank 0: there, the values by rank of who sent one in time; elsewhere nothing.

        For ranks that were silent before, rank 0 waits `silent_seconds` all together.
        """
        if self.rank != 0:
            self.send(0, name, value)
            return {}
        begin = time.monotonic()
        deadline = begin + (self.patience_seconds if seconds is None else seconds)
        values = {0: value}
        for rank in sorted(self.meeting.peers):
            until = min(deadline, begin + silent_seconds) if rank in self.silent else deadline
            try:
                values[rank] = self.receive(rank, name, max(0.0, until - time.monotonic()))
            except (TimeoutError, ConnectionError):
                self.silent.setdefault(rank, name)
        return values

    def tell(self, name: str, value: Any = None, seconds: float | None = None) -> Any:
        """Rank 0's `value`, on every rank. Rank 0 may be waiting for others first: the rest waits longer."""
        if self.rank != 0:
            return self.receive(0, name, 1.8 * self.patience_seconds if seconds is None else seconds)
        for rank in self.meeting.peers:
            try:
                self.send(rank, name, value)
            except OSError:
                self.silent.setdefault(rank, name)
        return value

    def _listen(self, seconds: float) -> None:
        with self._lock:
            for key, _ in self._selector.select(seconds):
                peer = key.data
                records = peer.channel.receive()
                if records is None:
                    self._selector.unregister(peer.channel)
                    self._gone.add(peer.rank)
                for record in records or []:
                    self._arrived[peer.rank, record["name"]] = record["value"]

    def _named(self, rank: int) -> str:
        return f"rank {rank} on {self.meeting.peers[rank].host}"
