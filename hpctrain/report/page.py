"""What a run did, as one self-contained HTML page and one PNG: no script, nothing fetched."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from hpctrain import __version__
from hpctrain.errors import ConfigError
from hpctrain.manifest import disk_errors, sync_directory
from hpctrain.progress import duration
from hpctrain.report import words
from hpctrain.report.pictures import DARK, LIGHT, PICTURES, Theme, draw_one, draw_overview, png
from hpctrain.report.record import Record, RunRecord, read_run
from hpctrain.report.screen import describe_repeats, describe_restart, model_facts, places
from hpctrain.report.summary import Summary, summarize_record
from hpctrain.report.template import PAGE

_PLACE = {"time", "event", "step", "world_size", "job_id"}


@dataclass(frozen=True)
class EventRow:
    """A line of the page's list of events; saves in a row are one line."""

    kind: str
    time: str
    steps: str
    ranks: str
    job: str
    details: str


def write_page(run: Path, html: Path) -> None:
    """Write the report of a run as an HTML page, and its pictures as one PNG of the same name beside it.

    Each file appears whole or not at all. Raises DataError if `run` is not the directory of a run or the
    files cannot be written, ConfigError if `html` is the name of the PNG or of a directory.
    """
    if html.suffix == ".png" or html.is_dir():
        raise ConfigError(f"--html: {html} must be the name of an HTML file, such as report.html")
    record = read_run(run)
    summary = summarize_record(record)
    overview = draw_overview(record, summary.name, _subtitle(summary))
    page = render_page(record, summary)
    with disk_errors(html):
        html.parent.mkdir(parents=True, exist_ok=True)
        publish(html.with_suffix(".png"), png(overview))
        publish(html, page.encode("utf-8", "replace"))


def render_page(record: RunRecord, summary: Summary) -> str:
    """The HTML text of a report; everything that comes from files is escaped."""
    environment = page_environment()
    return environment.from_string(PAGE).render(
        summary=summary,
        subtitle=_subtitle(summary),
        facts=model_facts(summary),
        places=places(summary),
        restarts=[(words.moment(restart.time), describe_restart(restart)) for restart in summary.restarts],
        repeats=describe_repeats(summary),
        change=words.change,
        pictures=[
            {"picture": picture, "light": _data(picture, record, LIGHT), "dark": _data(picture, record, DARK)}
            for picture in PICTURES
        ],
        events=fold_events(record.events),
        config=record.config_text,
        version=__version__,
    )


def page_environment() -> Environment:
    """Templates that escape what comes from files, stop at a name they do not know, and write numbers."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        count=words.count, size=words.size, decimal=words.decimal, moment=words.moment, duration=duration
    )
    return environment


def fold_events(events: list[Record]) -> list[EventRow]:
    """The events as rows of text, each run of saves folded into one row."""
    groups: list[list[Record]] = []
    for event in events:
        if groups and event.get("event") == "save" == groups[-1][0].get("event"):
            groups[-1].append(event)
        else:
            groups.append([event])
    return [_row(group) for group in groups]


def _row(group: list[Record]) -> EventRow:
    first, last = group[0], group[-1]
    kind = str(first.get("event", words.NOTHING))
    steps = str(first.get("step", words.NOTHING))
    details = ", ".join(f"{key} {_flat(value)}" for key, value in first.items() if key not in _PLACE)
    if kind == "save":
        seconds = [event["seconds"] for event in group if isinstance(event.get("seconds"), (int, float))]
        details = f"{max(seconds):.2f} s at most" if seconds else ""
    if len(group) > 1:
        kind, steps = (
            f"{kind} \N{MULTIPLICATION SIGN} {len(group)}",
            f"{steps} … {last.get('step', words.NOTHING)}",
        )
    return EventRow(
        kind, words.moment(first.get("time")), steps, str(first.get("world_size", "")),
        str(first.get("job_id", "")), details,
    )  # fmt: skip


def _flat(value: Any) -> str:
    """A small JSON value as words."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items()) + ")"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _subtitle(summary: Summary) -> str:
    """The run in one line."""
    parts = [summary.state_text]
    if summary.ranks is not None:
        parts.append(f"{words.count(summary.parameters)} parameters in {summary.precision}")
        parts.append(f"{words.plural(summary.ranks, f'{summary.device} rank')}, {summary.layout}")
    if summary.tokens_seen is not None:
        parts.append(f"{words.count(summary.tokens_seen)} tokens")
    return "  ·  ".join(parts)


def _data(picture: Any, record: RunRecord, theme: Theme) -> str:
    return data_uri(png(draw_one(picture, record, theme)))


def data_uri(picture: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def publish(path: Path, content: bytes) -> None:
    """Replace a file so that a reader sees the old content or the new, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)
