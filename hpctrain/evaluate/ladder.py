"""The ladder: five suites from easy to hard, one figure each, so that small models show progress too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.tasks.result import Result

LADDER = "ladder"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder."""

    suite: str
    metric: str
    what: str
    """What a model on this rung can do."""


RUNGS = (
    Rung("bits-per-byte", "bits per byte", "tells which text comes next"),
    Rung("syntax", "syntax", "finishes functions that compile"),
    Rung("openmp", "exact match", "writes the directive of a loop"),
    Rung("translate", "pass@1", "translates a program that then gives the same"),
    Rung("kernels", "pass@1", "makes a serial kernel parallel, and right"),
)


def expand(suites: Sequence[str]) -> list[str]:
    """The suites asked for, with those of the rungs in place of `ladder`, each once."""
    rungs = [rung.suite for rung in RUNGS]
    return list(dict.fromkeys(each for name in suites for each in (rungs if name == LADDER else [name])))


def of_suite(suite: str, options: SuiteOptions) -> SuiteOptions:
    """On the ladder `problems` is a directory with one for each suite; a suite that has none gets none."""
    if options.problems is None:
        return options
    own = options.problems / suite
    return replace(options, problems=own if own.is_dir() else None)


def ladder_rows(results: Mapping[str, Sequence[Result]]) -> list[dict[str, Any]]:
    """A row for each rung, of the results by suite: the model's first, then the yardsticks'."""
    candidates = list(dict.fromkeys(each.candidate for found in results.values() for each in found))
    rows = []
    for number, rung in enumerate(RUNGS, 1):
        found = {each.candidate: each for each in results.get(rung.suite, ())}
        values = {name: _value(found.get(name), rung.metric) for name in candidates}
        rows.append(
            {"rung": number, "the model": rung.what, "suite": rung.suite, "figure": rung.metric, **values}
        )
    return rows


def _value(result: Result | None, metric: str) -> Any:
    if result is None:
        return "-"
    scores = [score for score in result.scores if score.metric == metric and not score.group]
    return "-" if not scores or scores[0].value is None else scores[0].value
