"""Real processes that watch each other: dead, frozen, failing, hanging, and well-behaved ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpctrain.parallel.world import free_port

RANK = """
import ctypes, sys, time
from pathlib import Path
from hpctrain.errors import DataError, StoppedEarly
from hpctrain.parallel.meeting import meet
from hpctrain.parallel.watch import Watch, WatchConfig
from hpctrain.parallel.world import World
rank, size, port = map(int, sys.argv[1:4])
silent, hang, directory = *map(float, sys.argv[4:6]), Path(sys.argv[6])
def on_end(reason):
    (directory / f"reason-{rank}").write_text(reason)
def everywhere(error):
    error.everywhere = True
    return error
world = World(rank, size, rank, "127.0.0.1", port, "job", token="token")
try:
    config = WatchConfig(silent_seconds=silent, hang_seconds=hang)
    with meet(world) as meeting, Watch(meeting, config, on_end) as watch:
        watch.write_stacks_to(directory / f"stacks-{rank}")
        (directory / f"met-{rank}").touch()
        exec(sys.argv[7])
except (DataError, StoppedEarly) as error:
    sys.exit(error.exit_code)
"""
WORK = "while True: time.sleep(0.05); watch.beat()"


@dataclass
class Ranks:
    """Ranks that run scripts under a watch."""

    directory: Path
    silent: float = 30.0
    hang: float = 60.0
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *scripts: str) -> None:
        port = min(free_port(), 60000)
        for rank, script in enumerate(scripts):
            arguments = [rank, len(scripts), port, self.silent, self.hang, self.directory, script]
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", RANK, *map(str, arguments)], stderr=subprocess.PIPE, text=True
                )
            )
        deadline = time.monotonic() + 60
        while len(list(self.directory.glob("met-*"))) < len(scripts):
            assert time.monotonic() < deadline, [process.poll() for process in self.processes]
            time.sleep(0.02)

    def codes(self, *ranks: int) -> list[int]:
        """Exit codes of all ranks, or of those named."""
        return [self.processes[rank].wait(60) for rank in ranks or range(len(self.processes))]

    def reason(self, rank: int) -> str:
        path = self.directory / f"reason-{rank}"
        return path.read_text() if path.exists() else ""

    def stacks(self, rank: int) -> str:
        return (self.directory / f"stacks-{rank}").read_text()


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path)
    yield ranks
    for process in ranks.processes:
        process.kill()
        process.communicate()


def test_ranks_that_finish_leave_in_peace(ranks: Ranks) -> None:
    ranks.start("time.sleep(0.3)", "pass", "time.sleep(0.6)")
    assert ranks.codes() == [0, 0, 0]
    assert [ranks.reason(rank) for rank in range(3)] == ["", "", ""]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_ends_all_and_is_named(ranks: Ranks, victim: int) -> None:
    ranks.start(WORK, WORK, WORK)
    os.kill(ranks.processes[victim].pid, signal.SIGKILL)
    others = [rank for rank in range(3) if rank != victim]
    assert ranks.codes(*others) == [75, 75]
    for rank in others:
        assert ranks.reason(rank) == f"rank {victim} on {socket.gethostname()} died"


@pytest.mark.parametrize("victim", [0, 2])
def test_a_frozen_rank_ends_all_others_with_their_stacks(ranks: Ranks, victim: int) -> None:
    ranks.silent = 2.0
    ranks.start(WORK, WORK, WORK)
    os.kill(ranks.processes[victim].pid, signal.SIGSTOP)
    others = [rank for rank in range(3) if rank != victim]
    assert ranks.codes(*others) == [75, 75]
    for rank in others:
        assert f"rank {victim} on {socket.gethostname()} silent for 2 s: frozen" in ranks.reason(rank)
        assert "Current thread" in ranks.stacks(rank)


def test_a_hang_of_all_is_noticed_and_every_rank_shows_where_it_stands(ranks: Ranks) -> None:
    ranks.hang = 2.0
    ranks.start(*["def wait_for_ever():\n    time.sleep(600)\nwait_for_ever()"] * 2)
    assert ranks.codes() == [75, 75]
    for rank in (0, 1):
        assert "the run hangs: nothing finished for 2 s" in ranks.reason(rank)
        assert "wait_for_ever" in ranks.stacks(rank)


def test_a_rank_held_by_foreign_code_is_ended_by_its_timer(ranks: Ranks) -> None:
    """PyDLL keeps the interpreter's lock while it sleeps: no Python thread can run."""
    ranks.silent = 1.0
    ranks.start(WORK, "time.sleep(1)\nctypes.PyDLL(None).sleep(600)")
    assert ranks.codes() == [75, 1]
    assert "rank 1 on" in ranks.reason(0)
    assert "Timeout" in ranks.stacks(1)


def test_a_failure_of_one_rank_ends_all_with_its_code(ranks: Ranks) -> None:
    ranks.start(WORK, WORK, "raise DataError('shard 7 is gone')")
    assert ranks.codes() == [3, 3, 3]
    assert ranks.reason(1) == f"rank 2 on {socket.gethostname()} failed: DataError: shard 7 is gone"
    assert ranks.reason(2) == ""


def test_a_crash_of_rank_0_is_told_by_the_others(ranks: Ranks) -> None:
    ranks.start("raise ZeroDivisionError('oh')", WORK)
    assert ranks.codes() == [1, 1]
    assert "rank 0 on" in ranks.reason(1)
    assert "ZeroDivisionError: oh" in ranks.reason(1)


def test_an_error_that_all_raise_is_nobodys_fault(ranks: Ranks) -> None:
    ranks.start(*["raise everywhere(StoppedEarly('saved'))"] * 3)
    assert ranks.codes() == [75, 75, 75]
    assert [ranks.reason(rank) for rank in range(3)] == ["", "", ""]


def test_the_failure_that_follows_from_a_death_does_not_hide_it(ranks: Ranks) -> None:
    """When a rank dies, collectives on the others raise at once: that is not the news."""
    follow = (
        "while not (directory / 'dead').exists(): time.sleep(0.01)\nraise RuntimeError('connection reset')"
    )
    ranks.start(WORK, follow, WORK)
    os.kill(ranks.processes[2].pid, signal.SIGKILL)
    (ranks.directory / "dead").touch()
    assert ranks.codes(0, 1) == [75, 75]
    assert ranks.reason(0) == ranks.reason(1) == f"rank 2 on {socket.gethostname()} died"


def test_alone_a_hang_is_noticed_too(ranks: Ranks) -> None:
    ranks.hang = 1.0
    ranks.start("time.sleep(600)")
    assert ranks.codes() == [75]
    assert "the run hangs" in ranks.reason(0)
