"""The pictures of an evaluation: scores beside the yardsticks, what became of the answers, speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hpctrain.report.bars import add_legend, make_axes, say_instead, stack
from hpctrain.report.pictures import Theme
from hpctrain.report.words import plain
from hpctrain.tasks.result import VERDICTS, Result, Score

_DOTS_PER_INCH = 160
_ROWS = 14
_MARKERS = "oDs^vPX"
_LETTERS = 20


@dataclass(frozen=True)
class EvaluationPicture:
    """One picture of the results of one suite: the model's first, then the yardsticks'."""

    name: str
    text: str
    """What it tells to somebody who cannot see it."""
    draw: Callable[[Any, Sequence[Result], Theme], None]
    """Draws into a figure."""
    applies: Callable[[Sequence[Result]], bool]


def draw_evaluation(picture: EvaluationPicture, results: Sequence[Result], theme: Theme) -> Figure:
    """One picture, 6.2 x 3.9 inches."""
    figure = Figure(figsize=(6.2, 3.9), dpi=_DOTS_PER_INCH, facecolor=theme.paper)
    picture.draw(figure, results, theme)
    return figure


def overall(result: Result) -> list[Score]:
    """The scores over everything."""
    return [score for score in result.scores if not score.group]


def is_share(score: Score) -> bool:
    """Whether a score lies between 0 and 1."""
    return score.value is not None and 0 <= score.value <= 1 and not score.lower_is_better


def _scores(figure: Any, results: Sequence[Result], theme: Theme) -> None:
    axes = make_axes(figure, theme, "Beside the yardsticks", "share")
    metrics = [score.metric for score in overall(results[0]) if is_share(score)][:_ROWS]
    places = {metric: place for place, metric in enumerate(metrics)}
    for result, marker, colour in zip(results, cycle(_MARKERS), cycle(theme.series), strict=False):
        found = [(score.value, places[score.metric]) for score in overall(result) if score.metric in places]
        values = [(value, place) for value, place in found if value is not None]
        axes.scatter(
            [value for value, _ in values], [place for _, place in values],
            s=90 if result is results[0] else 45, zorder=4 if result is results[0] else 3, clip_on=False,
            marker=marker, color=colour, label=plain(_short(result.candidate)),
        )  # fmt: skip
    axes.set_yticks(range(len(metrics)), metrics)
    for label in axes.get_yticklabels():
        label.set(color=theme.ink, parse_math=False)
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    figure.subplots_adjust(top=0.77)
    add_legend(axes, theme, loc="lower left", ncols=3, bbox_to_anchor=(-0.2, 1), columnspacing=1.2)


def _verdicts(figure: Any, results: Sequence[Result], theme: Theme) -> None:
    axes = make_axes(figure, theme, "What became of the answers", "share of answers")
    answered = [result for result in results if result.samples]
    rows: list[dict[str, float]] = []
    for result in answered:
        counts = Counter(sample.verdict for sample in result.samples)
        rows.append({verdict: counts[verdict] / len(result.samples) for verdict in VERDICTS})
    palette = (theme.series[2], theme.series[5], theme.alarm, *(theme.series[n] for n in (3, 4, 0)))
    colours: dict[str, str] = dict(zip(VERDICTS, cycle((*palette, theme.muted, theme.grid)), strict=False))
    stack(axes, theme, [plain(_short(r.candidate)) for r in answered], list(VERDICTS), rows, colours)
    figure.subplots_adjust(top=0.77)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def _groups(figure: Any, results: Sequence[Result], theme: Theme) -> None:
    scores = [score for score in results[0].scores if score.group and score.value is not None]
    metric = scores[0].metric
    axes = make_axes(figure, theme, f"{metric[0].upper()}{metric[1:]} by group", metric)
    shown = [score for score in scores if score.metric == metric][:_ROWS]
    names = [plain(" ".join(score.group.values())[:_LETTERS]) for score in shown]
    stack(axes, theme, names, [""], [{"": score.value or 0.0} for score in shown], {"": theme.accent})
    for place, score in enumerate(shown):
        text = f" {score.value:.3g}  ({score.count:,})"
        axes.annotate(text, (score.value, place), va="center", size=8, color=theme.muted)
    axes.set_xlim(0, 1.25 * max([score.value or 0.0 for score in shown] + [1e-9]))


def _speedups(figure: Any, results: Sequence[Result], theme: Theme) -> None:
    axes = make_axes(figure, theme, "Speedup over the serial program", "times as fast")
    rows: dict[str, dict[str, float]] = {}
    for sample in results[0].samples:
        for name, value in sample.figures.items():
            if name.startswith("speedup"):
                best = rows.setdefault(sample.problem, {})
                best[name] = max(value, best.get(name, 0.0))
    if not rows:
        return say_instead(axes, theme, "nothing was timed")
    names = sorted(rows, key=lambda name: -max(rows[name].values()))[:_ROWS]
    kinds = sorted({kind for row in rows.values() for kind in row})
    for kind, marker, colour in zip(kinds, cycle(_MARKERS), cycle(theme.series), strict=False):
        points = [(rows[name][kind], place) for place, name in enumerate(names) if kind in rows[name]]
        axes.scatter(
            [value for value, _ in points], [place for _, place in points],
            s=45, clip_on=False, zorder=3, marker=marker, color=colour, label=kind,
        )  # fmt: skip
    axes.axvline(1, color=theme.muted, linewidth=1)
    axes.set_yticks(range(len(names)), [plain(name[:_LETTERS]) for name in names])
    for label in axes.get_yticklabels():
        label.set(color=theme.ink, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(left=0)
    figure.subplots_adjust(top=0.77)
    add_legend(axes, theme, loc="lower left", ncols=3, bbox_to_anchor=(-0.2, 1), columnspacing=1.2)


def _short(candidate: str) -> str:
    """The end of a long path."""
    return candidate if len(candidate) <= _LETTERS else "…" + candidate[-_LETTERS:]


EVALUATION_PICTURES = (
    EvaluationPicture(
        "scores", "Each score of the model beside the yardsticks'.", _scores,
        lambda results: any(is_share(score) for score in overall(results[0])),
    ),
    EvaluationPicture(
        "verdicts", "For each candidate the share of answers by verdict.", _verdicts,
        lambda results: any(result.samples for result in results),
    ),
    EvaluationPicture(
        "groups", "The model's first score by language, form or programming model.", _groups,
        lambda results: any(score.group and score.value is not None for score in results[0].scores),
    ),
    EvaluationPicture(
        "speedups", "Speedup of the model's answers by problem and number of threads or ranks.", _speedups,
        lambda results: any(
            name.startswith("speedup") for sample in results[0].samples for name in sample.figures
        ),
    ),
)  # fmt: skip
"""Every picture of a suite, in the order shown."""
