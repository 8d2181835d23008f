"""Local ranks: real children, their variables, their signals, and one exit code for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LAUNCHER = """
import sys
from hpctrain.launch.local import run_ranks
sys.exit(run_ranks([sys.executable, "-c", sys.argv[2]], int(sys.argv[1]), grace_seconds=float(sys.argv[3])))
"""
RANK = """
import json, os, signal, sys, time
from pathlib import Path
rank, here = int(os.environ["RANK"]), Path({directory!r})
def tell(what):
    aside = here / f".{{rank}}-{{what}}"
    aside.write_text(str(os.getpid()))
    aside.rename(here / f"{{rank}}-{{what}}")
def wait():
    while True:
        time.sleep(0.02)
"""
QUICK = 0.3  # seconds of grace


class Launcher:
    """Runs a script as every rank, in a launcher that is a process of its own, as a user's is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None

    def start(self, ranks: int, script: str, grace_seconds: float = 10.0, **environment: str) -> None:
        code = RANK.format(directory=str(self.directory)) + script
        kept = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS" and not k.startswith("MALLOC_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(ranks), code, str(grace_seconds)],
            env={**kept, **environment}, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self) -> tuple[int, str]:
        """Exit code and stderr, once it has ended."""
        assert self.process is not None
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err

    def run(
        self, ranks: int, script: str, grace_seconds: float = 10.0, **environment: str
    ) -> tuple[int, str]:
        self.start(ranks, script, grace_seconds, **environment)
        return self.end()

    def wait_for(self, *told: str) -> list[int]:
        """Wait until the ranks have told all this; their process ids."""
        assert self.process is not None
        deadline = time.monotonic() + 30
        while not all((self.directory / name).exists() for name in told):
            assert time.monotonic() < deadline, f"{told} did not come, only {self.told()}"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)
        return [int((self.directory / name).read_text()) for name in told]

    def told(self) -> set[str]:
        return {path.name for path in self.directory.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    if launcher.process is not None and launcher.process.poll() is None:
        launcher.process.kill()
    for name in launcher.told():  # ranks that a failed test left behind: their pipes would be waited for
        text = (tmp_path / name).read_text()
        if text.isdigit() and alive(int(text)):
            os.kill(int(text), signal.SIGKILL)
    if launcher.process is not None:
        launcher.process.communicate()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.ranks
def test_every_rank_gets_its_place_and_a_share_of_the_cores(launcher: Launcher) -> None:
    script = "(here / f'{rank}-env').write_text(json.dumps(dict(os.environ)))"
    code, err = launcher.run(3, script, MALLOC_TOP_PAD_="7", WORLD_SIZE="99", RANK="98")
    assert (code, err) == (0, "")
    places = [json.loads((launcher.directory / f"{rank}-env").read_text()) for rank in range(3)]
    for rank, place in enumerate(places):
        assert place["RANK"] == place["LOCAL_RANK"] == str(rank)
        assert place["WORLD_SIZE"] == place["LOCAL_WORLD_SIZE"] == "3"
        assert place["MASTER_ADDR"] == "127.0.0.1"
        assert place["OMP_NUM_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // 3))
        assert place["MALLOC_TRIM_THRESHOLD_"] == "-1"
        assert place["MALLOC_TOP_PAD_"] == "7", "what the user sets stays"
        assert place["PATH"] == os.environ["PATH"]
    assert len({place["MASTER_PORT"] for place in places}) == 1


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("sys.exit(75)", 75, ""),
        ("sys.exit(75 if rank else 0)", 75, ""),
        ("sys.exit(3 if rank == 1 else 0)", 3, "rank 1 failed with code 3; ending the other ranks\n"),
    ],
)
def test_the_exit_code_of_the_run(launcher: Launcher, script: str, code: int, message: str) -> None:
    assert launcher.run(2, script) == (code, message)


@pytest.mark.ranks
def test_when_a_rank_is_killed_the_others_are_ended_within_seconds(launcher: Launcher) -> None:
    launcher.start(3, "tell('began'); wait()")
    pids = launcher.wait_for("0-began", "1-began", "2-began")
    os.kill(pids[1], signal.SIGKILL)
    start = time.monotonic()
    code, err = launcher.end()
    assert time.monotonic() - start < 5
    assert code == 1
    assert err == "rank 1 was killed by SIGKILL; ending the other ranks\n"
    assert not any(map(alive, pids))


@pytest.mark.ranks
def test_a_rank_has_time_to_clean_up_when_another_fails(launcher: Launcher) -> None:
    script = """
def clean(*_):
    time.sleep(0.5)
    tell('clean')
    sys.exit(0)
signal.signal(signal.SIGTERM, clean)
tell('began')
if rank:
    while not (here / '0-began').exists():
        time.sleep(0.01)
    sys.exit(4)
wait()
"""
    assert launcher.run(2, script)[0] == 4
    assert "0-clean" in launcher.told()


@pytest.mark.ranks
def test_a_rank_that_ignores_sigterm_is_killed(launcher: Launcher) -> None:
    script = """
signal.signal(signal.SIGTERM, lambda *_: tell('ignored'))
tell('began')
if rank:
    while not (here / '0-began').exists():
        time.sleep(0.01)
    sys.exit(3)
wait()
"""
    start = time.monotonic()
    code, _ = launcher.run(2, script, grace_seconds=QUICK)
    assert code == 3
    assert QUICK <= time.monotonic() - start < 10
    assert "0-ignored" in launcher.told()
    assert not alive(int((launcher.directory / "0-began").read_text()))


@pytest.mark.ranks
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_signals_reach_every_rank_once_and_the_launcher_stays(
    launcher: Launcher, number: signal.Signals
) -> None:
    script = f"""
def stop(*_):
    assert not (here / f'{{rank}}-stopped').exists()
    tell('stopped')
    time.sleep(0.3)  # saves
    sys.exit(75)
signal.signal({int(number)}, stop)
tell('began')
wait()
"""
    launcher.start(2, script)
    launcher.wait_for("0-began", "1-began")
    assert launcher.process is not None
    launcher.process.send_signal(number)
    assert launcher.end() == (75, "")
    assert launcher.told() >= {"0-stopped", "1-stopped"}


@pytest.mark.ranks
def test_a_terminals_interrupt_is_passed_on_only_by_the_launcher(launcher: Launcher) -> None:
    """Ctrl-C goes to a whole process group: a rank in it would be interrupted twice."""
    launcher.start(2, "tell('began'); wait()")
    assert launcher.process is not None
    pids = launcher.wait_for("0-began", "1-began")
    assert all(os.getpgid(pid) == pid for pid in pids)
    launcher.process.terminate()
    code, err = launcher.end()
    assert code == 1
    assert "was killed by SIGTERM" in err


@pytest.mark.ranks
def test_a_command_that_cannot_start_leaves_no_rank_behind() -> None:
    from hpctrain.launch.local import run_ranks

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(FileNotFoundError):
        run_ranks(["/nonexistent/command"], 2)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    assert run_ranks([sys.executable, "-c", ""], 2) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers
