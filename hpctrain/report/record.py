"""A run as its directory tells it: config, metrics, events, and the restarts that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpctrain.config import read_yaml
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import is_finished
from hpctrain.report.words import plural
from hpctrain.train.metrics import EVENTS_NAME, METRICS_NAME, read_events, read_lines, read_metrics
from hpctrain.train.rundir import CONFIG_NAME, is_held

Record = dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """Everything a report is made from. Read it once, so that a run that goes on does not change under it."""

    directory: Path
    config: Record
    """The resolved config as plain mappings."""
    config_text: str
    """The same as it stands in run.yaml."""
    lines: list[Record]
    """Every whole line of metrics.jsonl in the order written, superseded ones too."""
    metrics: list[Record]
    """One record a step, in order of steps, without those that a restart discarded."""
    events: list[Record]
    """Every event in the order written."""
    is_held: bool
    """Whether a job holds the run directory just now."""

    @property
    def step(self) -> int:
        """The step the run has come to."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    def setting(self, dotted: str) -> Any:
        """A value of the config by its dotted path; None if it is not there."""
        value: Any = self.config
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def events_of(self, *kinds: str) -> list[Record]:
        """The events of some kinds, in order."""
        return [event for event in self.events if event.get("event") in kinds]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one number of the metrics, where it is given."""
        found = [
            (line["step"], line[name]) for line in self.metrics if isinstance(line.get(name), (int, float))
        ]
        return [step for step, _ in found], [value for _, value in found]

    def series_by_language(self, name: str) -> dict[str, tuple[list[int], list[float]]]:
        """Steps and values of one number of the evaluations for each language, in alphabetical order."""
        series: dict[str, tuple[list[int], list[float]]] = {}
        for line in self.metrics:
            for language, value in line.get(name, {}).items():
                steps, values = series.setdefault(language, ([], []))
                steps.append(line["step"])
                values.append(value)
        return dict(sorted(series.items()))

    def newest_checkpoint(self) -> Path | None:
        """Directory of the newest committed checkpoint; its files are not verified here."""
        committed = [path for path in (self.directory / "checkpoints").glob("step-*") if is_finished(path)]
        return max(committed, default=None)


@dataclass(frozen=True)
class Start:
    """One time that the run was started."""

    time: float | None
    """Seconds since the epoch."""
    step: int | None
    """The step it went on from, 0 if it began there; None if it ended before its first step."""
    discarded_steps: int
    """Steps done before this start that it had to do again."""
    ranks: int | None
    """Its world size."""
    layout: str
    """Its ZeRO stage and pipeline stages."""


def read_run(directory: Path) -> RunRecord:
    """Read a run directory. Metrics and events may be missing yet.

    Raises DataError if it is not the directory of a run or its config cannot be read.
    """
    path = directory / CONFIG_NAME
    if not path.is_file():
        state = f"holds no {CONFIG_NAME}" if directory.is_dir() else "does not exist"
        raise DataError(f"{directory}: {state}; give the directory that the config calls run.dir")
    try:
        config, text = read_yaml(path), path.read_text(encoding="utf-8")
    except ConfigError as error:
        raise DataError(f"{error}; restore the file, or let the run write it again") from None
    has_metrics = (directory / METRICS_NAME).is_file()
    lines = [line for line in read_lines(directory / METRICS_NAME) if "step" in line] if has_metrics else []
    # after a restart has gone back, steps beyond its own are still in the file, but no longer in the run
    metrics = [line for line in read_metrics(directory) if line["step"] <= lines[-1]["step"]] if lines else []
    events = read_events(directory) if (directory / EVENTS_NAME).is_file() else []
    return RunRecord(directory, config, text, lines, metrics, events, is_held(directory))


def find_starts(record: RunRecord) -> list[Start]:
    """Every start with what became of it; all but the first are restarts."""
    rewinds = [
        (max(0, after["step"] - 1), before["step"])
        for before, after in pairwise(record.lines)
        if after["step"] <= before["step"]
    ]
    starts: list[Start] = []
    stopped_at: set[int] = set()
    for session in _sessions(record.events):
        start, step, discarded = session[0], _went_on_from(session), 0
        if starts and step not in stopped_at and rewinds and rewinds[0][0] == step:
            discarded = rewinds.pop(0)[1] - step
        starts.append(
            Start(start.get("time"), step, discarded, start.get("world_size"), describe_layout(start))
        )
        if step is not None:  # a stop saves first: who goes on from there repeats nothing
            stopped_at = {event["step"] for event in session if event.get("event") == "stop"}
    return starts


def find_legs(record: RunRecord) -> list[tuple[int, Start]]:
    """Where the ranks or the layout changed: the step after which each holds, and its start, in order."""
    legs: list[tuple[int, Start]] = []
    for start in find_starts(record):
        if start.step is None:
            continue
        legs = [leg for leg in legs if leg[0] < start.step]  # what it does again counts no longer
        if not legs or (legs[-1][1].ranks, legs[-1][1].layout) != (start.ranks, start.layout):
            legs.append((start.step, start))
    return legs


def describe_layout(start: Record) -> str:
    """The layout of a start event in words: `ZeRO 2`, or `ZeRO 1, 4 pipeline stages`."""
    layout = start.get("layout", {})
    stages = layout.get("pipeline_stages", 1)
    zero = f"ZeRO {layout.get('zero_stage', '?')}"
    return zero if stages == 1 else f"{zero}, {plural(stages, 'pipeline stage')}"


def _sessions(events: list[Record]) -> list[list[Record]]:
    """The events from each start to the next."""
    sessions: list[list[Record]] = []
    for event in events:
        if event.get("event") == "start":
            sessions.append([])
        if sessions:
            sessions[-1].append(event)
    return sessions


def _went_on_from(session: list[Record]) -> int | None:
    """The step that a start went on from: what it restored, or 0 if it saved step 0 to begin anew."""
    for event in session:
        if event.get("event") == "restore" or (event.get("event") == "save" and event.get("step") == 0):
            step = event.get("step")
            return step if isinstance(step, int) else None
    return None
