"""A diagnosis as one table."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hpctrain.doctor.diagnose import Diagnosis
from hpctrain.doctor.fold import Line

_PIPE_WIDTH = 110
_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "skipped": "dim"}


def show(diagnosis: Diagnosis) -> None:
    """Print the table on stdout: coloured in a terminal, plain lines elsewhere."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1))
    several = diagnosis.ranks > 1
    table.add_column("check", no_wrap=True)
    if several:
        table.add_column("where", overflow="fold")
    table.add_column("found", overflow="fold", ratio=1)
    table.add_column("verdict", no_wrap=True)
    for line in diagnosis.lines:
        cells = [_plain(line.check), *([_plain(line.where)] if several else [])]
        table.add_row(*cells, _found(line), Text(line.verdict, style=_STYLES[line.verdict]))
    console.print(table)
    console.print(_summary(diagnosis))


def as_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis for programs."""
    return {
        "ranks": diagnosis.ranks, "hosts": diagnosis.hosts, "seconds": round(diagnosis.seconds, 1),
        "lines": [asdict(line) for line in diagnosis.lines],
    }  # fmt: skip


def complaint(line: Line) -> str:
    """A wrong line, for the list of what must be put right."""
    return f"{line.check} ({line.where}): {_plain(line.found)}\n    → {_plain(line.remedy)}"


def _found(line: Line) -> Text:
    """What was found, and what to do about it."""
    text = Text(_plain(line.found))
    return text.append(f"\n→ {_plain(line.remedy)}", style=_STYLES[line.verdict]) if line.remedy else text


def _plain(text: str) -> str:
    """Text that may come from files and other programs, without what could steer a terminal."""
    return "".join(
        mark if mark.isprintable() or mark == "\n" else "\N{REPLACEMENT CHARACTER}" for mark in text
    )


def _summary(diagnosis: Diagnosis) -> str:
    counts = {name: sum(line.verdict == name for line in diagnosis.lines) for name in _STYLES}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    ranks = "1 rank" if diagnosis.ranks == 1 else f"{diagnosis.ranks} ranks"
    return f"  {ranks} on {', '.join(diagnosis.hosts)}, {diagnosis.seconds:.0f} s: {told}"
