"""Ranks find each other on ports that others use too, and nobody joins who does not know the token."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from hpctrain.errors import LaunchError
from hpctrain.parallel.meeting import Channel, Meeting, meet
from hpctrain.parallel.world import World, free_port


def world(rank: int, size: int, port: int, token: str = "secret", address: str = "127.0.0.1") -> World:
    return World(rank, size, rank, address, port, "job", token=token)


class Attendant:
    """A rank in a thread: meets, says what it found, and stays until told to leave."""

    def __init__(self, place: World, patience_seconds: float = 20.0) -> None:
        self.found: Future[Meeting] = Future()
        self.leave = threading.Event()
        self.thread = threading.Thread(target=self.attend, args=(place, patience_seconds))
        self.thread.start()

    def attend(self, place: World, patience_seconds: float) -> None:
        try:
            with meet(place, patience_seconds) as meeting:
                self.found.set_result(meeting)
                self.leave.wait(30)
        except LaunchError as error:
            self.found.set_exception(error)

    def end(self) -> None:
        self.leave.set()
        self.thread.join(30)


@pytest.fixture
def port() -> int:
    return min(free_port(), 60000)


@pytest.fixture
def attendants() -> Iterator[list[Attendant]]:
    present: list[Attendant] = []
    yield present
    for each in present:
        each.end()


def test_all_meet_and_know_where_the_store_is(port: int, attendants: list[Attendant]) -> None:
    attendants += [Attendant(world(rank, 5, port)) for rank in (3, 1, 0, 4, 2)]
    meetings = {each.found.result(30).world.rank: each.found.result() for each in attendants}
    assert set(meetings[0].peers) == {1, 2, 3, 4}
    assert all(set(meetings[rank].peers) == {0} for rank in (1, 2, 3, 4))
    assert len({(each.store_port, each.secret) for each in meetings.values()}) == 1
    assert meetings[0].store_socket is not None
    assert {each.interface_address for each in meetings.values()} == {"127.0.0.1"}
    assert meetings[2].peers[0].host == socket.gethostname()


def test_alone_nobody_has_to_be_met() -> None:
    with meet(world(0, 1, 0)) as meeting:
        assert meeting.peers == {}


def test_two_jobs_with_the_same_ports_do_not_mix(port: int, attendants: list[Attendant]) -> None:
    """As on a shared node, when two job ids give the same port."""
    for token in ("one", "other"):
        attendants += [Attendant(world(rank, 3, port, token)) for rank in (2, 0, 1)]
    meetings = [each.found.result(40) for each in attendants]
    secrets = [{each.secret for each in meetings if each.world.token == token} for token in ("one", "other")]
    assert [len(each) for each in secrets] == [1, 1]
    assert secrets[0] != secrets[1]


def test_a_port_that_is_taken_by_a_silent_service(port: int, attendants: list[Attendant]) -> None:
    with socket.socket() as service:
        service.bind(("127.0.0.1", port))
        service.listen()
        attendants += [Attendant(world(rank, 2, port)) for rank in (0, 1)]
        assert [each.found.result(40).world.rank for each in attendants] == [0, 1]


def test_strangers_neither_join_nor_hold_up_the_meeting(port: int, attendants: list[Attendant]) -> None:
    attendants.append(Attendant(world(0, 2, port)))
    with ThreadPoolExecutor(4) as strangers:
        wrong = strangers.submit(attend_briefly, world(1, 2, port, "guessed"))
        silent = [connect(port) for _ in range(3)]
        noisy = connect(port)
        noisy.sendall(b"GET / HTTP/1.1\r\n\r\n")
        attendants.append(Attendant(world(1, 2, port)))
        assert set(attendants[0].found.result(40).peers) == {1}
        assert isinstance(wrong.result(40), LaunchError)
        for each in [*silent, noisy]:
            each.close()


def test_records_that_arrive_together_are_all_read() -> None:
    near, far = socket.socketpair()
    with near, far:
        channel = Channel(near)
        far.sendall(b'{"n": 1}\n{"n": 2}\n{"n": 3}\n{"n":')
        assert channel.receive_one() == {"n": 1}
        assert channel.receive_one() == {"n": 2}
        far.sendall(b" 4}\n")
        assert channel.receive() == [{"n": 3}]
        assert channel.receive_one() == {"n": 4}


def connect(port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            continue


def attend_briefly(place: World) -> LaunchError | None:
    try:
        with meet(place, 3.0):
            return None
    except LaunchError as error:
        return error


def test_ranks_that_do_not_come_are_named(port: int, attendants: list[Attendant]) -> None:
    attendants += [Attendant(world(rank, 4, port), 2.0) for rank in (0, 2)]
    with pytest.raises(LaunchError, match=r"2 of 4 ranks \(rank 1, 3; ranks came from"):
        attendants[0].found.result(40)
    with pytest.raises(LaunchError, match=r"rank 2 on .*gave up on the meeting"):
        attendants[1].found.result(40)


def test_a_rank_without_a_rank_0_says_where_it_looked(port: int) -> None:
    error = attend_briefly(world(1, 2, port))
    assert f"found no rank 0 at 127.0.0.1, ports {port} to {port + 15}" in str(error)


def test_ranks_of_another_world_size(port: int, attendants: list[Attendant]) -> None:
    attendants += [Attendant(world(0, 2, port), 3.0), Attendant(world(1, 3, port), 3.0)]
    with pytest.raises(LaunchError, match=r"rank 1 on .* is in a world of 3, rank 0 in one of 2"):
        attendants[0].found.result(40)


def test_a_rank_that_comes_twice(port: int, attendants: list[Attendant]) -> None:
    attendants += [Attendant(world(rank, 3, port), 3.0) for rank in (1, 1, 0)]
    with pytest.raises(LaunchError, match="two processes are rank 1"):
        attendants[2].found.result(40)


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("192.0.2.1", "does not have that address; unset MASTER_ADDR"),  # a documentation address: nobody's
        ("no-such-host.invalid", "does not know the address no-such-host.invalid"),
    ],
)
def test_a_master_address_that_is_not_rank_0s(port: int, address: str, complaint: str) -> None:
    place = replace(world(0, 2, port), master_address=address)
    assert complaint in str(attend_briefly(place))


def test_no_port_is_free(port: int) -> None:
    taken = []
    try:
        for each in range(port, port + 16):
            service = socket.socket()
            service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.append(service)
            try:
                service.bind(("127.0.0.1", each))
                service.listen()
            except OSError:
                continue  # somebody else's
        assert f"ports {port} to {port + 15} are all taken; set MASTER_PORT" in str(
            attend_briefly(world(0, 2, port))
        )
    finally:
        for service in taken:
            service.close()
