"""Averages of figures that answers have one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpctrain.evaluate.estimators import mean
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Score


@dataclass(frozen=True)
class Measured:
    """A problem with the figures of each of its answers; a figure may be missing where it means nothing."""

    problem: Problem
    figures: Sequence[Mapping[str, float]]


def averages(
    measured: Sequence[Measured], metrics: Sequence[str], groups: Mapping[str, Callable[[Problem], str]]
) -> list[Score]:
    """The mean of each metric over all problems, then by each group that divides them.

    A problem counts once, with the mean of its answers; one that has not the figure counts not at all. A
    group where none has it has no score.
    """
    scores = [_average(measured, metric, {}) for metric in metrics]
    for key, group_of in groups.items():
        values = sorted({group_of(each.problem) for each in measured})
        if len(values) < 2:
            continue  # it would say again what stands above
        for value in values:
            part = [each for each in measured if group_of(each.problem) == value]
            found = (_average(part, metric, {key: value}) for metric in metrics)
            scores += [score for score in found if score.count]
    return scores


def _average(measured: Sequence[Measured], metric: str, group: dict[str, str]) -> Score:
    means = [mean([figures[metric] for figures in each.figures if metric in figures]) for each in measured]
    known = [value for value in means if value is not None]
    return Score(metric=metric, value=mean(known), count=len(known), group=group)
