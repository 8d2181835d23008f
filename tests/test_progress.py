"""Progress: a bar on a terminal, lines in a log, silence where not asked for."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.progress import duration, progress, say, tell_batch_script


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test moves."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_ten_seconds_and_one_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("pack", 100, "files") as bar:
        for _ in range(100):
            clock[0] += 0.5
            bar.advance(status="now c")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "pack: 20% of 100 files, 40s to go  now c",
        "pack: 40% of 100 files, 30s to go  now c",
        "pack: 60% of 100 files, 20s to go  now c",
        "pack: 80% of 100 files, 10s to go  now c",
        "pack: 100% of 100 files, 0s to go  now c",
        "pack: 100 files in 50s  now c",
    ]


def test_a_short_task_is_not_worth_a_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("pack", 10, "files") as bar:
        bar.advance(10)
        clock[0] += 1.9
    assert capsys.readouterr().err == ""


def test_a_status_stays_until_another_comes(clock: list[float]) -> None:
    with progress("pack", 10, "files") as bar:
        bar.advance(1, "first")
        bar.advance(1)
        assert (bar.done, bar.status) == (2, "first")


@pytest.mark.parametrize(("total", "amounts"), [(0, [0, 0]), (0, [3]), (5, [0, 0]), (5, [7]), (0.0, [])])
def test_nothing_is_divided_by_zero(
    clock: list[float], capsys: pytest.CaptureFixture[str], total: float, amounts: list[float]
) -> None:
    with progress("pack", total, "MB") as bar:
        for amount in amounts:
            clock[0] += 11
            bar.advance(amount)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(amounts) + bool(amounts)


def test_what_is_not_visible_is_silent(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("pack", 10, "files", visible=False) as bar:
        clock[0] += 100
        bar.advance(4, "status")
        bar.advance(2)
    assert (bar.done, bar.status) == (6, "status")
    assert capsys.readouterr() == ("", "")


def test_it_ends_quietly_when_the_task_fails(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with progress("pack", 10, "files"):
            clock[0] += 100
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0, "0s"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (3599.4, "59m59s"),
     (3599.6, "1h00m"), (7620, "2h07m"), (360_000, "100h00m")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e7))
def test_a_duration_reads_back_to_its_precision(seconds: float) -> None:
    text = duration(seconds).replace("h", " 3600 ").replace("m", " 60 ").replace("s", " 1 ").split()
    read = sum(int(count) * int(unit) for count, unit in zip(text[::2], [*text[1::2], "60"], strict=False))
    assert abs(read - seconds) <= (60 if "h" in duration(seconds) else 0.5)


def test_say_goes_to_stderr_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Stream()
    monkeypatch.setattr(sys, "stderr", stream)
    say("loss 1.23")
    assert stream.getvalue() == "loss 1.23\n"
    assert stream.flushed


BAR = """
import time
from pathlib import Path
from hpctrain.progress import progress
with progress("verify", 20, "MB") as bar:
    for number in range(20):
        bar.advance(1, f"file {number}")
        time.sleep(0.02)
"""


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen([sys.executable, "-c", BAR], stderr=theirs, env=environment) as process:
            os.close(theirs)
            shown = b""
            try:
                while part := terminal.read(65536):
                    shown += part
            except OSError:
                pass  # how Linux says that the other side of a terminal is closed
        assert process.returncode == 0
    text = shown.decode()
    assert "verify" in text
    assert "100%" in text
    assert "to go" in text
    assert "file 19" in text


def test_the_bar_itself_is_loaded_only_for_a_terminal() -> None:
    script = BAR + "import sys; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE).returncode == 0


def test_a_batch_script_is_told_if_it_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.delenv("HPCTRAIN_NOTES", raising=False)
    tell_batch_script("nobody asked")
    monkeypatch.setenv("HPCTRAIN_NOTES", str(notes))
    notes.write_text("start\n")
    tell_batch_script("ready")
    tell_batch_script("93")
    assert notes.read_text() == "start\nready\n93\n"
    monkeypatch.setenv("HPCTRAIN_NOTES", str(tmp_path / "missing" / "notes"))
    tell_batch_script("ready")
    assert "No such file or directory: launch/job.sh will not know of 'ready'" in capsys.readouterr().err
