"""A summary as one screen of text."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hpctrain.progress import duration
from hpctrain.report.record import Start
from hpctrain.report.summary import LanguageSummary, State, Summary
from hpctrain.report.words import change, count, decimal, moment, plain, plural, size

_WIDTH = 100
_LANGUAGES_SHOWN = 10
_EPOCHS_SHOWN = 6
_RESTARTS_SHOWN = 4
_STYLES: dict[State, str] = {
    "finished": "bold green", "running": "bold blue", "stopped": "bold yellow",
    "interrupted": "bold yellow", "failed": "bold red",
}  # fmt: skip


def show(summary: Summary) -> None:
    """Print a summary on stdout: coloured in a terminal, plain lines of 100 columns elsewhere."""
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else _WIDTH, highlight=False, markup=False, emoji=False)
    console.print(render(summary, narrow=console.width < _WIDTH))


def render(summary: Summary, narrow: bool = False) -> RenderableType:
    """The whole screen: facts, languages, restarts, places."""
    parts: list[RenderableType] = [
        Text.assemble((plain(summary.name), "bold"), "  ", (summary.state_text, _STYLES[summary.state])),
        _facts(model_facts(summary)),
    ]
    if summary.languages:
        parts.append(_languages(summary, narrow))
    if summary.restarts:
        parts.append(_restarts(summary))
    parts.append(_facts(places(summary)))
    return Group(*parts)


def model_facts(summary: Summary) -> list[tuple[str, str]]:
    """The run in a few labelled lines."""
    rate = summary.tokens_per_second
    speed = f", median {count(rate)} tokens/s" if rate is not None else ""
    took = f", {duration(summary.step_seconds_total)} in steps" if summary.step_seconds_total else ""
    facts = []
    if summary.ranks is not None:
        facts.append(("model", f"{count(summary.parameters)} parameters in {summary.precision}"))
        facts.append(("layout", f"{plural(summary.ranks, f'{summary.device} rank')}, {summary.layout}"))
    if summary.last_loss is None:
        facts.append(("training", "no step yet"))
    else:
        loss = f"loss {decimal(summary.first_loss)} → {decimal(summary.last_loss)} nats/token"
        facts.append(("training", f"{loss}; {count(summary.tokens_seen)} tokens{speed}{took}"))
    if efficiency := _efficiency(summary):
        facts.append(("efficiency", efficiency))
    facts.append(("data", summary.shards_problem or str(summary.shards)))
    if summary.epochs:
        most = sorted(summary.epochs.items(), key=lambda item: -item[1])
        shown = [f"{name} {epochs:.2f}" for name, epochs in most[:_EPOCHS_SHOWN]]
        more = f", {len(most) - len(shown)} more" if len(most) > len(shown) else ""
        facts.append(("epochs", ", ".join(shown) + more))
    if summary.evaluated_step is not None:
        latest = f" → {summary.evaluated_step:,}" if summary.evaluated_step else ""
        facts.append(("held out", f"measured on files that no step reads, at step 0{latest}"))
    return facts


def _efficiency(summary: Summary) -> str:
    """How much of the devices and of the time came to use, as far as it is known."""
    parts = []
    if summary.mfu is not None and summary.mfu_causal is not None:
        parts.append(f"MFU {summary.mfu:.1%} ({summary.mfu_causal:.1%} with causal attention)")
    if summary.data_wait_share is not None:
        parts.append(f"{summary.data_wait_share:.2%} of the time waiting for data")
    return "; ".join(parts)


def describe_restart(restart: Start) -> str:
    """One restart in words."""
    if restart.step is None:
        return "ended before it could go on"
    ranks = f" on {plural(restart.ranks, 'rank')}, {restart.layout}" if restart.ranks else ""
    repeated = plural(restart.discarded_steps, "step") if restart.discarded_steps else "no step"
    return f"from step {restart.step:,}{ranks}; {repeated} repeated"


def describe_repeats(summary: Summary) -> str | None:
    """Whether repeated steps read the same data; None if there were none."""
    if summary.repeats_saw_same_data is None:
        return None
    verdict = "the same" if summary.repeats_saw_same_data else "NOT all the same"
    return f"{plural(summary.repeated_steps, 'step')} done again: {verdict} tokens as before"


def places(summary: Summary) -> list[tuple[str, str]]:
    """Where the run and what came of it lie, one labelled path each."""
    known = [
        ("run", summary.directory), ("checkpoint", summary.checkpoint), ("export", summary.export),
        ("report", summary.report), ("profile", summary.profile),
    ]  # fmt: skip
    return [(label, place) for label, place in known if place is not None]


def _facts(facts: list[tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", width=10)
    table.add_column(overflow="fold")
    for label, fact in facts:
        table.add_row(label, plain(fact))
    return Padding(table, (0, 0, 0, 2))


def _languages(summary: Summary, narrow: bool) -> Table:
    """A row a language; on a narrow screen only what does not fit elsewhere."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_footer=len(summary.languages) > 1)
    rows = summary.languages
    columns: list[tuple[str, str, Callable[[LanguageSummary], str]]] = [
        ("files", count(_total(rows, "documents")), lambda row: count(row.documents)),
        ("size", size(_total(rows, "bytes")), lambda row: size(row.bytes)),
        ("tokens", count(_total(rows, "tokens")), lambda row: count(row.tokens)),
        (
            "held out",
            count(_total(rows, "validation_documents")),
            lambda row: count(row.validation_documents),
        ),
        ("nats/token", "", lambda row: _from_to(row.loss_before, row.loss_after)),
        ("bits/byte", "", lambda row: _from_to(row.bits_per_byte_before, row.bits_per_byte_after)),
        ("change", "", lambda row: change(row.bits_per_byte_before, row.bits_per_byte_after)),
    ]
    if narrow:
        columns = [column for column in columns if column[0] not in ("held out", "change")]
    table.add_column("language", "all", no_wrap=True, overflow="ellipsis")
    for heading, total, _ in columns:
        table.add_column(heading, total, justify="right", no_wrap=True)
    for row in rows[:_LANGUAGES_SHOWN]:
        table.add_row(plain(row.language), *(text(row) for _, _, text in columns))
    if len(rows) > _LANGUAGES_SHOWN:
        table.add_row(f"… and {len(rows) - _LANGUAGES_SHOWN} more")
    return table


def _from_to(before: float | None, after: float | None) -> str:
    return f"{decimal(before)} → {decimal(after)}"


def _total(rows: tuple[LanguageSummary, ...], column: str) -> int | None:
    values = [getattr(row, column) for row in rows]
    return None if None in values else sum(values)


def _restarts(summary: Summary) -> RenderableType:
    earlier = len(summary.restarts) - _RESTARTS_SHOWN
    facts = [("restarts", f"{earlier} earlier")] if earlier > 0 else []
    for restart in summary.restarts[-_RESTARTS_SHOWN:]:
        facts.append(("" if facts else "restarts", f"{moment(restart.time)}  {describe_restart(restart)}"))
    if repeats := describe_repeats(summary):
        facts.append(("", repeats))
    return _facts(facts)
