"""`hpctrain doctor` as a user runs it: on a machine that is well, and on one where something is wrong."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runner import Runner, environment

from hpctrain.parallel.world import free_port

SECONDS = "120"  # for slow machines: a healthy one needs a few


def start(*arguments: object, prepare: Callable[[], None] | None = None, **variables: str) -> Any:
    """Start `hpctrain doctor --json`."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpctrain", "doctor", "--json", *map(str, arguments)],
        env={**environment(), **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=prepare,
    )  # fmt: skip


class Answer:
    """What a doctor said."""

    def __init__(self, process: Any) -> None:
        out, self.err = process.communicate(timeout=300)
        self.code = process.returncode
        assert out, self.err
        self.whole = json.loads(out)
        self.lines: list[dict[str, str]] = self.whole["lines"]

    def line(self, check: str) -> dict[str, str]:
        """The one line of a check."""
        found = [line for line in self.lines if line["check"] == check]
        assert len(found) == 1, found
        return found[0]

    def verdicts(self) -> dict[str, set[str]]:
        """Checks by verdict."""
        return {
            verdict: {line["check"] for line in self.lines if line["verdict"] == verdict}
            for verdict in ("ok", "warning", "wrong", "skipped")
        }


def examine(*arguments: object, **more: Any) -> Answer:
    return Answer(start("--seconds", SECONDS, *arguments, **more))


@pytest.mark.ranks
def test_two_ranks_with_a_config(runner: Runner) -> None:
    config = runner.config()
    answer = examine(config, "--ranks", 2, HPCTRAIN_DEADLINE=str(int(time.time()) + 7200))
    assert (answer.code, answer.verdicts()["wrong"]) == (0, set()), answer.err
    assert (answer.whole["ranks"], answer.whole["hosts"]) == (2, [socket.gethostname()])
    assert answer.verdicts()["ok"] >= {
        "meeting", "python", "packages", "torch", "HDF5", "product", "config", "layout", "shards", "memory",
        "run directory", "room", "locks", "HDF5 files", "write", "read", "time", "network", "all-reduce 8 B",
    }  # fmt: skip
    assert "refused to 1 other" in answer.line("locks")["found"]
    assert "job ends in 1" in answer.line("time")["found"]
    assert "gloo over" in answer.line("network")["found"]
    assert answer.line("torch")["where"] == "all 2 ranks"
    assert sorted(path.name for path in runner.directory.iterdir()) == ["run.yaml"], (
        "it leaves nothing behind"
    )


def test_alone_it_prints_a_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpctrain", "doctor", "--seconds", SECONDS, "--run-dir", str(tmp_path)]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    begins = {line.split()[0] for line in found.stdout.splitlines() if line.strip()}
    assert {"meeting", "python", "locks", "write"} <= begins
    assert "1 rank on" in found.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ranks
def test_everything_that_is_wrong_is_told_at_once(runner: Runner) -> None:
    """Too few files, a bad batch size, a stop file, no time left, HDF5 without locks, one core for two."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    config = runner.config(train={"micro_batch_size": 3})
    (runner.directory / "run").mkdir()
    (runner.directory / "run" / "stop").touch()
    answer = examine(
        config, "--ranks", 2, prepare=prepare,
        HPCTRAIN_DEADLINE=str(int(time.time()) + 10), HDF5_USE_FILE_LOCKING="FALSE",
    )  # fmt: skip
    assert answer.code == 2
    expected = {"open files", "layout", "run", "time"} | ({"cores"} if (os.cpu_count() or 1) > 1 else set())
    assert answer.verdicts()["wrong"] == expected
    assert "HDF5 files" in answer.verdicts()["warning"]
    assert all(line["remedy"] for line in answer.lines if line["verdict"] != "ok")
    assert f"{len(expected)} wrong:" in answer.err
    for check in expected:
        assert f"  {check} (" in answer.err


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    answer = examine("--run-dir", "/sys/run")  # not even by root
    assert answer.code == 2
    assert answer.verdicts()["wrong"] == {"run directory"}
    assert "/sys cannot be written" in answer.line("run directory")["found"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, almost full."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    (place / "filling").write_bytes(bytes(2_080_768 - 8192))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(runner: Runner, small_disk: Path) -> None:
    answer = examine(runner.config(), f"run.dir={small_disk / 'run'}")
    assert answer.code == 2
    assert "room" in answer.verdicts()["wrong"]
    assert "12 bytes a parameter" in answer.line("room")["found"]
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_a_config_that_is_wrong_and_shards_that_are_not_there(runner: Runner) -> None:
    config = runner.config()
    answer = examine(config, "train.stepz=1", "train.steps=0")
    assert answer.code == 2
    assert answer.verdicts()["wrong"] == {"config"}
    assert "train.stepz" in answer.line("config")["found"]
    assert "train.steps:" in answer.line("config")["found"]
    answer = examine(config, f"data.shards={runner.directory}")
    assert answer.verdicts()["wrong"] == {"shards"}


def test_ranks_that_do_not_come() -> None:
    """The other lines are there all the same."""
    port = str(free_port())
    world = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start("--seconds", 20, **world, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in (0, 1)]
    other_out, other_err = ranks[1].communicate(timeout=300)
    first = Answer(ranks[0])
    assert (first.code, ranks[1].returncode, other_out) == (2, 2, "")
    assert "1 of 3 ranks (rank 2" in first.line("meeting")["found"]
    assert first.verdicts()["ok"] >= {"python", "packages", "open files"}
    assert "layout" not in first.verdicts()["ok"]
    assert "wrong:\n  meeting" in other_err


def test_a_world_of_one_where_more_were_promised() -> None:
    answer = examine(SLURM_JOB_ID="7", SLURM_NTASKS="4")
    assert answer.code == 2
    assert "promised 4 tasks" in answer.line("meeting")["found"]


FROZEN = """
import sys, time
from hpctrain.parallel.meeting import meet
from hpctrain.parallel.world import World
with meet(World(1, 2, 1, "127.0.0.1", int(sys.argv[1])), 120):
    time.sleep(120)
"""


@pytest.mark.ranks
def test_a_rank_that_falls_silent_is_named_and_not_waited_for(tmp_path: Path) -> None:
    port = str(free_port())
    world = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with subprocess.Popen([sys.executable, "-c", FROZEN, port], env=environment()) as other:
        answer = Answer(start("--seconds", 60, "--run-dir", tmp_path, **world))
        other.kill()
    assert answer.code == 2
    assert "rank 1 on" in answer.line("ranks")["found"]
    assert answer.verdicts()["wrong"] == {"ranks", "network"}
    assert answer.line("python")["where"].startswith("rank 0 on")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ranks
def test_a_rank_that_differs_is_named() -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    first = start("--seconds", SECONDS, **world, RANK="0")
    second = start("--seconds", SECONDS, **world, RANK="1", LOCAL_RANK="1", prepare=prepare)
    answer = Answer(first)
    assert second.communicate(timeout=300) == ("", "")
    assert (answer.code, second.returncode) == (2, 0), "rank 0 speaks for all"
    few = [line for line in answer.lines if line["check"] == "open files"]
    assert [(line["where"].split(" on ")[0], line["verdict"]) for line in few] == [
        ("rank 1", "wrong"),
        ("rank 0", "ok"),
    ]


def test_ranks_under_a_launcher_are_refused() -> None:
    process = start("--ranks", 2, RANK="0", WORLD_SIZE="2")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a launcher has already placed this process" in err
