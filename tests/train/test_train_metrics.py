"""metrics.jsonl and events.jsonl: whole lines, healed after a kill, the last line of a step counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.errors import DataError
from hpctrain.train.metrics import JsonLines, read_events, read_lines, read_metrics
from hpctrain.train.signals import STOP_SIGNALS, stop_signals


def append(path: Path, *records: dict[str, Any]) -> None:
    lines = JsonLines(path)
    for record in records:
        lines.append(record)
    lines.close()


def test_records_read_back_in_order_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1, "loss": 2.5}, {"note": "Größe\n\u2028", "step": 2})
    append(path, {"step": 3})
    assert read_lines(path) == [{"step": 1, "loss": 2.5}, {"note": "Größe\n\u2028", "step": 2}, {"step": 3}]
    assert path.read_bytes().count(b"\n") == 3


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    """A run that is killed right after keeps the line."""
    path = tmp_path / "metrics.jsonl"
    script = (
        "import os, sys; from pathlib import Path; from hpctrain.train.metrics import JsonLines\n"
        "lines = JsonLines(Path(sys.argv[1])); lines.append({'step': 7}); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert read_lines(path) == [{"step": 7}]


@settings(max_examples=60)
@given(kept=st.integers(0, 200))
def test_a_line_broken_anywhere_is_healed(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    """Wherever a kill cut the file, the whole lines before it and all lines after it are read."""
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.unlink(missing_ok=True)
    records = [{"step": step, "name": "ä" * step, "by_language": {"c": 1.5}} for step in range(4)]
    append(path, *records)
    content = path.read_bytes()
    cut = min(kept, len(content))
    path.write_bytes(content[:cut])
    append(path, {"step": 99})
    whole = content[:cut].count(b"\n")
    found = read_lines(path)
    # a cut just before the end of the line leaves the record whole
    assert found[:-1] in (records[:whole], records[: whole + 1])
    assert found[-1] == {"step": 99}


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\n{"step": 1}\n[1, 2]\n5\n"text"\nnull\n{"step": \xff}\n{"step": 2}\n\0\0\0\n{"ste')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_the_last_line_of_a_step_counts_and_steps_are_in_order(tmp_path: Path) -> None:
    first = [{"step": step, "loss": 1.0, "first": True} for step in (1, 2, 3, 4)]
    restarted = [{"step": step, "loss": 2.0} for step in (3, 4, 5)]
    append(tmp_path / "metrics.jsonl", *first, *restarted, {"no": "step"})
    assert read_metrics(tmp_path) == [*first[:2], *restarted]


def test_events_are_all_kept(tmp_path: Path) -> None:
    events = [{"event": "start", "step": 0}, {"event": "fault", "step": 3}, {"event": "start", "step": 0}]
    append(tmp_path / "events.jsonl", *events)
    assert read_events(tmp_path) == events


def test_numbers_survive(tmp_path: Path) -> None:
    append(tmp_path / "metrics.jsonl", {"step": 1, "loss": float("nan"), "digest": "f" * 16, "tiny": 5e-324})
    (record,) = read_metrics(tmp_path)
    assert record["loss"] != record["loss"]
    assert (record["digest"], record["tiny"]) == ("f" * 16, 5e-324)
    assert json.dumps(record)


@pytest.mark.parametrize("read", [read_metrics, read_events])
def test_a_directory_that_is_no_run_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(DataError, match="not found; is this the directory of a run"):
        read(tmp_path)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with stop_signals() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal is number
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_a_second_interrupt_ends_at_once() -> None:
    def interrupt_twice() -> None:
        with stop_signals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupt_twice()
    with stop_signals() as request:  # the scheduler's signals may come again and again
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
    assert request.signal is signal.SIGUSR1
