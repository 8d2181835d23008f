"""The parts of the preflight: checks that fail or hang, ranks that answer late, wrong or not at all."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpctrain.doctor import shared, storage, together, versions
from hpctrain.doctor.examine import Check, examine
from hpctrain.doctor.exchange import Exchange
from hpctrain.doctor.finding import Finding
from hpctrain.doctor.plan import memory_limit
from hpctrain.doctor.subject import Request, Subject, alone
from hpctrain.parallel.meeting import meet
from hpctrain.parallel.world import World, free_port


@pytest.fixture
def subject() -> Iterator[Subject]:
    with ExitStack() as stack:
        yield alone(Request({}), stack)


def test_a_check_that_fails_keeps_what_it_found_and_says_why(subject: Subject) -> None:
    def look(subject: Subject) -> Iterator[Finding]:
        yield Finding("a", "fine")
        raise ZeroDivisionError("no number")

    findings, ended = examine(Check("probe", look, "world"), subject, 5)
    assert ended
    assert findings[0] == Finding("a", "fine", scope="world")
    assert (findings[1].check, findings[1].verdict, findings[1].scope) == ("probe", "wrong", "rank")
    assert "ZeroDivisionError: no number" in findings[1].found


def test_even_leaving_the_process_is_a_failure(subject: Subject) -> None:
    def look(subject: Subject) -> Iterator[Finding]:
        yield from ()
        sys.exit(0)

    findings, _ = examine(Check("probe", look), subject, 5)
    assert [finding.verdict for finding in findings] == ["wrong"]


def test_a_check_that_hangs_is_left_behind(subject: Subject) -> None:
    release = threading.Event()

    def look(subject: Subject) -> Iterator[Finding]:
        yield Finding("a", "fine")
        release.wait(30)

    findings, ended = examine(Check("probe", look), subject, 0.3)
    release.set()
    assert not ended
    assert [finding.verdict for finding in findings] == ["ok", "wrong"]
    assert "did not end" in findings[1].found


class Pair:
    """Rank 0 and rank 1 of a world, each in a thread, over a real meeting."""

    def __init__(self, patience_seconds: float = 5.0) -> None:
        self.port, self.patience_seconds = free_port(), patience_seconds
        self.problems: list[BaseException] = []

    def run(self, *parts: Callable[[Exchange], object]) -> None:
        threads = [threading.Thread(target=self._rank, args=each) for each in enumerate(parts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if self.problems:
            raise self.problems[0]

    def _rank(self, rank: int, part: Callable[[Exchange], object]) -> None:
        try:
            with meet(World(rank, 2, rank, "127.0.0.1", self.port, "job"), 30) as meeting:
                part(Exchange(meeting, self.patience_seconds))
        except BaseException as problem:  # noqa: BLE001 - raised again in the test's thread
            self.problems.append(problem)


def test_ranks_gather_and_are_told() -> None:
    def first(exchange: Exchange) -> None:
        assert exchange.gather("colour", "red") == {0: "red", 1: "blue"}
        assert exchange.tell("done", [1, 2]) == [1, 2]

    def second(exchange: Exchange) -> None:
        assert exchange.gather("colour", "blue") == {}
        assert exchange.tell("done") == [1, 2]

    Pair().run(first, second)


def test_a_silent_rank_is_waited_for_once_and_a_late_answer_is_not_mistaken() -> None:
    said = threading.Event()

    def first(exchange: Exchange) -> None:
        assert exchange.gather("one", "a") == {0: "a"}
        assert exchange.silent == {1: "one"}
        begin = time.monotonic()
        assert exchange.gather("two", "b") == {0: "b"}
        assert time.monotonic() - begin < 0.5 * exchange.patience_seconds
        said.set()
        assert exchange.receive(1, "three", 10) == "late"
        assert exchange.gather("one", "a", silent_seconds=10) == {0: "a", 1: "later"}

    def second(exchange: Exchange) -> None:
        said.wait(30)
        exchange.send(0, "three", "late")
        exchange.gather("one", "later")

    Pair(patience_seconds=2).run(first, second)


def test_a_rank_that_is_gone_is_not_waited_for() -> None:
    def first(exchange: Exchange) -> None:
        begin = time.monotonic()
        with pytest.raises(ConnectionError, match="rank 1 on"):
            exchange.receive(1, "anything", 30)
        assert time.monotonic() - begin < 25

    Pair().run(first, lambda exchange: None)


def test_a_clock_that_is_ahead_is_measured() -> None:
    ahead = 3.0

    def first(exchange: Exchange) -> None:
        exchange.gather("ready", None)
        offset, error = together._skew(exchange, 1)
        assert abs(offset - ahead) <= error
        assert error < 1

    def second(exchange: Exchange) -> None:
        exchange.gather("ready", None)
        for number in range(together._PINGS):
            exchange.receive(0, f"ping {number}")
            exchange.send(0, f"pong {number}", time.time() + ahead)

    Pair().run(first, second)


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_of_another_process_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    assert shared._try(path) == "granted"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert shared._try(path) == "refused"
    assert "No such file" in shared._try(tmp_path / "nothing")


def test_a_lock_that_two_ranks_get_is_wrong(subject: Subject) -> None:
    subject.neighbours = [subject.neighbours[0]] * 3
    fine = shared._lock_verdict(subject, "granted", {1: "refused", 2: "refused"})
    assert (fine.verdict, "2 others" in fine.found) == ("ok", True)
    bad = shared._lock_verdict(subject, "granted", {1: "refused", 2: "granted"})
    assert (bad.verdict, "rank 2" in bad.found) == ("wrong", True)
    assert shared._lock_verdict(subject, "Function not implemented", {}).verdict == "wrong"


def test_a_file_that_never_comes_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "marker"
    assert shared._wait_for(path, "token", 0.2) is None
    path.write_text("old")
    assert shared._wait_for(path, "token", 0.2) is None
    threading.Timer(0.2, lambda: path.write_text("token")).start()
    waited = shared._wait_for(path, "token", 30)
    assert waited is not None
    assert waited >= 0.1


def test_what_is_written_is_read_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "speed"
    assert storage._write(path, 3 << 20) > 0
    assert path.stat().st_size == 3 << 20  # blocks of 1 and 2 MiB
    assert storage._read(path) > 0
    assert storage._write(path, 1000) > 0
    assert path.stat().st_size == 1000
    assert storage._write(path, 0) == 0


def test_the_nearest_directory_that_exists(tmp_path: Path) -> None:
    assert storage.existing(tmp_path / "a" / "b") == tmp_path
    assert storage.existing(tmp_path) == tmp_path
    assert storage.file_system(Path("/proc/self")) == "proc"


def test_installed_packages_are_what_they_should_be(subject: Subject) -> None:
    findings = {finding.check: finding for finding in versions.installed(subject)}
    assert {finding.verdict for finding in findings.values()} == {"ok"}
    assert sys.version.split()[0] in findings["python"].found
    assert "deepspeed 0.19" in findings["packages"].found


def test_the_smallest_limit_of_memory_counts() -> None:
    limit, what = memory_limit()
    assert limit <= 1 << 50
    code = "from hpctrain.doctor.plan import memory_limit; print(*memory_limit())"

    def shrink() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (min(limit, 1 << 30), resource.RLIM_INFINITY))

    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, preexec_fn=shrink
    ).stdout
    assert said.startswith(str(1 << 30))
    assert "ulimit -v" in said
    assert "ulimit" not in what
