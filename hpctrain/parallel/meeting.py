"""The ranks find each other: each proves to rank 0 that it knows the job's token, and keeps the connection.

Rank 0 takes the first free port of a few that all ranks know; the others try them until they are answered by
one that knows the token (HMAC both ways, each over fresh nonces). So two jobs on a node cannot take each
other's ranks, no port has to be reserved, and who is missing is known by name.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hpctrain.errors import LaunchError
from hpctrain.parallel.world import World
from hpctrain.progress import say

PATIENCE_SECONDS = 300.0
_PORTS = 16
_HANDSHAKE_SECONDS = 5.0
_FOREIGN_SECONDS = 2.0
_TELL_SECONDS = 30.0
_GREETING = b"hpctrain meeting 1\n"
_NONCE_BYTES = 32


@dataclass
class Peer:
    """A connection to another rank."""

    rank: int
    host: str
    channel: Channel


@dataclass
class Meeting:
    """All ranks have met. Rank 0 is connected to each, the others to rank 0."""

    world: World
    host: str
    """The name of this rank's host."""
    peers: dict[int, Peer] = field(default_factory=dict)
    store_port: int = 0
    """Where rank 0's key-value store listens."""
    store_socket: socket.socket | None = None
    """On rank 0, the store's listening socket; whoever makes the store takes it over."""
    secret: str = ""
    """Prefix of the store's keys, new for each meeting: strangers cannot guess a key."""
    interface_address: str = ""
    """This host's own address on the way to the others."""

    def close(self) -> None:
        """Close all connections."""
        for peer in self.peers.values():
            peer.channel.close()
        if self.store_socket is not None:
            self.store_socket.close()


class Channel:
    """JSON records over a connection, one a line."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = b""
        self.waiting: list[dict[str, Any]] = []

    def fileno(self) -> int:
        """For selectors."""
        return self.connection.fileno()

    def send(self, record: dict[str, Any]) -> None:
        """Send one record. Raises OSError if the other side is gone."""
        self.connection.sendall(json.dumps(record).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come, at least one call's worth of bytes; None at the end of the connection."""
        if self.waiting:
            records, self.waiting = self.waiting, []
            return records
        try:
            data = self.connection.recv(65536)
        except (TimeoutError, BlockingIOError):
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def receive_one(self) -> dict[str, Any]:
        """The next record. Raises OSError if none comes in time."""
        deadline = time.monotonic() + (self.connection.gettimeout() or _HANDSHAKE_SECONDS)
        while time.monotonic() < deadline:
            records = self.receive()
            if records is None:
                break
            if records:
                first, *self.waiting = records
                return first
        raise ConnectionResetError("the other side said nothing")

    def finish(self) -> None:
        """No more will be sent from here."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def drain(self, deadline: float) -> None:
        """Read until the other side has finished too, or until `deadline` (monotonic seconds).

        A connection that is closed with bytes unread is reset, and what was sent last is lost.
        """
        with suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(65536):
                    return

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@contextmanager
def meet(world: World, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[Meeting]:
    """Bring all ranks together; a collective call. Raises LaunchError if they do not meet in time."""
    meeting = Meeting(world, socket.gethostname())
    try:
        if world.size > 1:
            (_host if world.rank == 0 else _join)(meeting, patience_seconds)
        yield meeting
    finally:
        meeting.close()


def _host(meeting: Meeting, patience_seconds: float) -> None:
    """Rank 0: let everyone in who knows the token, then tell all where the store is."""
    world = meeting.world
    listener = _listen(world)
    meeting.store_socket = socket.socket(listener.family)
    meeting.store_socket.bind((listener.getsockname()[0], 0))
    meeting.store_socket.listen(1024)
    meeting.store_port = meeting.store_socket.getsockname()[1]
    meeting.secret = secrets.token_hex(16)
    threads = ThreadPoolExecutor(16, "meeting")
    with listener, ExitStack() as stack:
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)  # strangers may be silent for long
        listener.settimeout(0.2)
        deadline, tell = time.monotonic() + patience_seconds, time.monotonic() + _TELL_SECONDS
        waiting: list[Any] = []
        while len(meeting.peers) < world.size - 1:
            with suppress(TimeoutError):
                waiting.append(threads.submit(_admit, world, listener.accept()[0]))
            for done in [future for future in waiting if future.done()]:
                waiting.remove(done)
                _enrol(meeting, done.result())
            if time.monotonic() > deadline:
                raise LaunchError(f"{_missing(meeting)} did not come within {patience_seconds:.0f} s")
            if time.monotonic() > tell:
                tell += _TELL_SECONDS
                port = listener.getsockname()[1]
                say(f"rank 0 on {meeting.host}, port {port}: waiting for {_missing(meeting)}")
    for peer in meeting.peers.values():
        peer.channel.send({"store_port": meeting.store_port, "secret": meeting.secret, "host": meeting.host})
        meeting.interface_address = peer.channel.connection.getsockname()[0]


def _listen(world: World) -> socket.socket:
    """Listen on the first free port, on the interface that the ranks were told of."""
    address = world.master_address
    try:
        family, _, _, _, (host, *_) = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0]
    except OSError as reason:
        raise LaunchError(
            f"rank 0's host {socket.gethostname()} does not know the address {address}: {reason}; "
            "set MASTER_ADDR to a name or an address of this host"
        ) from None
    if str(host).startswith("127.") and not address.startswith(("127.", "localhost")):
        host = ""  # a host that maps its own name to loopback; the others know it by its real address
    for port in _ports(world):
        listener = socket.socket(family)
        try:
            listener.bind((host, port))
        except OSError as reason:
            listener.close()
            if reason.errno == errno.EADDRNOTAVAIL:
                raise LaunchError(
                    f"MASTER_ADDR is {address}, but rank 0 is on {socket.gethostname()}, which does not have "
                    "that address; unset MASTER_ADDR, or set it to this host"
                ) from None
            continue
        listener.listen(1024)
        return listener
    raise LaunchError(
        f"rank 0 on {socket.gethostname()}: ports {_ports(world)[0]} to {_ports(world)[-1]} are all taken; "
        "set MASTER_PORT to another"
    )


def _ports(world: World) -> range:
    first = min(world.master_port, 65535 - _PORTS)
    return range(first, first + _PORTS)


def _admit(world: World, connection: socket.socket) -> tuple[Channel, dict[str, Any]] | None:
    """Check that who connected knows the token, and prove that rank 0 does; None for strangers."""
    connection.settimeout(_HANDSHAKE_SECONDS)
    channel, nonce = Channel(connection), secrets.token_hex(_NONCE_BYTES)
    try:
        connection.sendall(_GREETING)
        channel.send({"nonce": nonce})
        hello = channel.receive_one()
        if not hmac.compare_digest(str(hello["proof"]), _proof(world, "rank", nonce, str(hello["nonce"]))):
            channel.send({"refused": "token"})
            raise ConnectionRefusedError
        channel.send({"proof": _proof(world, "host", nonce, str(hello["nonce"]))})
    except (OSError, ValueError, KeyError, TypeError):
        channel.close()
        return None
    return channel, hello


def _enrol(meeting: Meeting, admitted: tuple[Channel, dict[str, Any]] | None) -> None:
    """Take a rank in. Raises LaunchError if it cannot be one of this world."""
    if admitted is None:
        return
    channel, hello = admitted
    rank, size, host = int(hello["rank"]), int(hello["size"]), str(hello["host"])
    if size != meeting.world.size:
        raise LaunchError(
            f"rank {rank} on {host} is in a world of {size}, rank 0 in one of {meeting.world.size}"
        )
    if rank in meeting.peers:
        raise LaunchError(f"two processes are rank {rank}: on {meeting.peers[rank].host} and on {host}")
    channel.connection.settimeout(None)
    meeting.peers[rank] = Peer(rank, host, channel)


def _missing(meeting: Meeting) -> str:
    missing = [rank for rank in range(1, meeting.world.size) if rank not in meeting.peers]
    hosts = sorted({meeting.host, *(peer.host for peer in meeting.peers.values())})
    shown = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
    came = ", ".join(hosts[:10]) + (", …" if len(hosts) > 10 else "")
    return f"{len(missing)} of {meeting.world.size} ranks (rank {shown}; ranks came from {came})"


def _join(meeting: Meeting, patience_seconds: float) -> None:
    """Any other rank: find rank 0 among the ports, and keep the connection."""
    world = meeting.world
    deadline, pause, reason = time.monotonic() + patience_seconds, 0.05, "nobody listens there"
    while True:
        for port in _ports(world):
            try:
                channel = _knock(world, meeting.host, port)
            except (OSError, ValueError, KeyError) as why:
                # On most ports nobody listens: any other answer says more.
                reason = reason if isinstance(why, ConnectionRefusedError) else str(why)
                continue
            return _await_all(meeting, channel, max(1.0, deadline - time.monotonic()))
        if time.monotonic() > deadline:
            raise LaunchError(
                f"rank {world.rank} on {meeting.host} found no rank 0 at {world.master_address}, ports "
                f"{_ports(world)[0]} to {_ports(world)[-1]}, within {patience_seconds:.0f} s: {reason}"
            )
        time.sleep(pause)
        pause = min(2.0, pause * 1.5)


def _knock(world: World, host: str, port: int) -> Channel:
    """Ask whoever listens on a port whether it is rank 0 of this job. Raises OSError or ValueError if not."""
    connection = socket.create_connection((world.master_address, port), timeout=_HANDSHAKE_SECONDS)
    try:
        connection.settimeout(_FOREIGN_SECONDS)  # a foreign service waits for us to speak first
        if _receive_exactly(connection, len(_GREETING)) != _GREETING:
            raise ValueError(f"port {port} is somebody else's")
        connection.settimeout(_HANDSHAKE_SECONDS)
        channel, mine = Channel(connection), secrets.token_hex(_NONCE_BYTES)
        theirs = str(channel.receive_one()["nonce"])
        place = {"rank": world.rank, "size": world.size, "host": host}
        channel.send({**place, "nonce": mine, "proof": _proof(world, "rank", theirs, mine)})
        answer = channel.receive_one()
        if not hmac.compare_digest(str(answer.get("proof")), _proof(world, "host", theirs, mine)):
            raise ValueError(f"port {port} belongs to another job")
    except BaseException:
        connection.close()
        raise
    return channel


def _await_all(meeting: Meeting, channel: Channel, seconds: float) -> None:
    """Wait until rank 0 has met everyone."""
    channel.connection.settimeout(seconds + 1)
    meeting.peers[0] = Peer(0, "", channel)
    try:
        told = channel.receive_one()
    except OSError:
        raise _gave_up(meeting) from None
    channel.connection.settimeout(None)
    meeting.peers[0].host = str(told["host"])
    meeting.store_port, meeting.secret = int(told["store_port"]), str(told["secret"])
    meeting.interface_address = channel.connection.getsockname()[0]


def _gave_up(meeting: Meeting) -> LaunchError:
    address = meeting.world.master_address
    return LaunchError(
        f"rank {meeting.world.rank} on {meeting.host}: rank 0 at {address} gave up on the meeting"
    )


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = connection.recv(size - len(received))
        if not data:
            break
        received += data
    return received


def _proof(world: World, role: str, host_nonce: str, rank_nonce: str) -> str:
    """What only who knows the token can say of two nonces."""
    key = (world.token or f"job {world.job_id}").encode()
    return hmac.new(key, f"{role} {host_nonce} {rank_nonce}".encode(), hashlib.sha256).hexdigest()
