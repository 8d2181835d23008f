"""The pictures of a report, drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from hpctrain.report.record import RunRecord, Start, find_legs, find_starts
from hpctrain.report.words import count, plain, plural

_DOTS_PER_INCH = 160
_LABEL_WIDTH = 0.28  # of the axis: what runs shorter under one layout carries no label
_MARKERS = "os^DvPX"


@dataclass(frozen=True)
class Theme:
    """The colours of a picture."""

    paper: str
    ink: str
    muted: str
    grid: str
    accent: str
    alarm: str
    series: tuple[str, ...]
    """One for each language, after Okabe and Ito: told apart with every kind of colour vision."""


LIGHT = Theme(
    paper="#ffffff", ink="#1d2530", muted="#667080", grid="#e6e9ee", accent="#0072b2", alarm="#d55e00",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b27d00", "#3d9bd1", "#5b6470"),
)  # fmt: skip
DARK = Theme(
    paper="#161b22", ink="#e4e8ee", muted="#929dab", grid="#2b323c", accent="#56b4e9", alarm="#f0803c",
    series=("#56b4e9", "#f0803c", "#2fbf96", "#e39ac4", "#e6a823", "#8fc7ff", "#b6bec9"),
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One picture: how it is called, what it tells to somebody who cannot see it, and how it is drawn."""

    name: str
    title: str
    text: str
    draw: Callable[[Any, RunRecord, Theme], None]
    """Draws into a (sub)figure."""


def draw_overview(record: RunRecord, title: str, subtitle: str, theme: Theme = LIGHT) -> Figure:
    """All pictures on one sheet of 14 x 9 inches, under a title and a line of facts."""
    figure = Figure(figsize=(14, 9), dpi=_DOTS_PER_INCH, facecolor=theme.paper)
    halves: Any = figure.subfigures(2, 1, height_ratios=(0.09, 1))
    head, body = halves
    for part in (head, body):
        part.set_facecolor(theme.paper)
    head.text(
        0.02, 0.62, plain(title), color=theme.ink, size=19, weight="bold", va="center", parse_math=False
    )
    head.text(0.02, 0.12, plain(subtitle), color=theme.muted, size=11.5, va="center", parse_math=False)
    parts: Any = body.subfigures(2, 2)
    for part, picture in zip(parts.flat, PICTURES, strict=True):
        part.set_facecolor(theme.paper)
        picture.draw(part, record, theme)
    return figure


def draw_one(picture: Picture, record: RunRecord, theme: Theme) -> Figure:
    """One picture alone, 6.2 x 3.9 inches."""
    figure = Figure(figsize=(6.2, 3.9), dpi=_DOTS_PER_INCH, facecolor=theme.paper)
    picture.draw(figure, record, theme)
    figure.subplots_adjust(left=0.135)
    return figure


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def smooth(values: Sequence[float], window: int) -> npt.NDArray[np.float64]:
    """Running mean over `window` values, centred, so that it does not lag.

    It narrows towards the beginning, where a loss falls fast, and is cut off at the end.
    """
    half, index = window // 2, np.arange(len(values))
    before = np.minimum(half, index)
    after = np.minimum(np.minimum(half, len(values) - 1 - index), np.where(index < half, before, half))
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=np.float64))])
    means: npt.NDArray[np.float64] = (sums[index + after + 1] - sums[index - before]) / (before + after + 1)
    return means


def _loss(figure: Any, record: RunRecord, theme: Theme) -> None:
    axes = _axes(figure, record, theme, "Training loss", "nats per token")
    steps, losses = record.series("loss")
    if not steps:
        return _say_nothing(axes, theme, "no step yet")
    _raw_and_smooth(axes, theme, steps, losses)
    _mark_restarts(axes, record, theme)
    saves = [step for event in record.events_of("save") if (step := event.get("step", 0)) <= steps[-1]]
    axes.plot(
        saves, [0.012] * len(saves), "^", transform=axes.get_xaxis_transform(), color=theme.muted,
        markersize=5 if len(saves) <= 50 else 3, markeredgewidth=0, label="checkpoint saved", clip_on=False,
        zorder=5,
    )  # fmt: skip
    legend = axes.legend(
        fontsize=9,
        loc="upper right",
        handlelength=1.6,
        facecolor=theme.paper,
        edgecolor="none",
        framealpha=0.8,
    )
    for text in legend.get_texts():
        text.set_color(theme.muted)


def _bits_per_byte(figure: Any, record: RunRecord, theme: Theme) -> None:
    axes = _axes(figure, record, theme, "Bits per byte on held-out files", "bits per byte")
    series = record.series_by_language("bits_per_byte_by_language")
    if not series:
        return _say_nothing(axes, theme, "no evaluation yet")
    for number, (steps, values) in enumerate(series.values()):
        axes.plot(
            steps, values, color=theme.series[number % len(theme.series)], linewidth=1.8,
            marker=_MARKERS[number % len(_MARKERS)], markersize=5 if len(steps) <= 40 else 0,
            markeredgecolor=theme.paper, markeredgewidth=0.6,
        )  # fmt: skip
    axes.margins(y=0.08)
    _mark_restarts(axes, record, theme)
    _label_ends(figure, axes, theme, series)


def _throughput(figure: Any, record: RunRecord, theme: Theme) -> None:
    axes = _axes(figure, record, theme, "Throughput", "tokens per second")
    steps, rates = record.series("tokens_per_second")
    if not steps:
        return _say_nothing(axes, theme, "no step yet")
    _mark_restarts(axes, record, theme)
    legs: list[tuple[int, Start | None]] = [
        (step, start) for step, start in find_legs(record) if step < steps[-1]
    ] or [(0, None)]
    bounds = [bisect_right(steps, step) for step, _ in legs[1:]]
    for (began, start), first, stop in zip(legs, [0, *bounds], [*bounds, len(steps)], strict=True):
        # each layout by itself: a mean across a change would show a speed that no step had
        _raw_and_smooth(axes, theme, steps[first:stop], rates[first:stop], len(steps))
        if stop - first >= _LABEL_WIDTH * len(steps):
            _label_leg(axes, theme, began, float(np.median(rates[first:stop])), start)
    axes.set_ylim(0, 1.15 * float(np.percentile(rates, 99)))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _label_leg(axes: Any, theme: Theme, step: int, median: float, start: Start | None) -> None:
    """How many ranks ran under one layout, and how fast, written where it began."""
    ranks = f"{plural(start.ranks, 'rank')}, {start.layout}\n" if start and start.ranks else ""
    axes.annotate(
        f"{ranks}median {count(median)} tokens/s", (step, 0), xycoords=("data", "axes fraction"),
        xytext=(6, 7), textcoords="offset points", va="bottom", size=9.5, color=theme.ink,
        linespacing=1.4, parse_math=False,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )  # fmt: skip


def _rate_and_norm(figure: Any, record: RunRecord, theme: Theme) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.16})
    _dress(figure, upper, record, theme, "Learning rate and gradient norm", "learning rate")
    _dress(figure, lower, record, theme, "", "gradient norm")
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    steps, rates = record.series("learning_rate")
    if not steps:
        _say_nothing(upper, theme, "no step yet")
        return _say_nothing(lower, theme, "")
    upper.plot(steps, rates, color=theme.accent, linewidth=1.8, marker="o" if len(steps) == 1 else "")
    upper.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    upper.set_ylim(0, 1.15 * (max(rates) or 1))
    _raw_and_smooth(lower, theme, *record.series("grad_norm"))
    lower.set_yscale("log")
    lower.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.yaxis.set_minor_locator(NullLocator())
    lower.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    figure.align_ylabels([upper, lower])
    clip = record.setting("optimizer.clip_norm")
    if isinstance(clip, (int, float)) and clip > 0:
        lower.axhline(clip, color=theme.ink, linewidth=0.9, linestyle=(0, (1, 2)))
        lower.annotate(
            f"clipped at {clip:g}", (1, clip), xycoords=("axes fraction", "data"), xytext=(-4, 4),
            textcoords="offset points", ha="right", size=9, color=theme.ink,
        )  # fmt: skip
    for axes in (upper, lower):
        _mark_restarts(axes, record, theme)


PICTURES = (
    Picture("loss", "Training loss", "Training loss over the steps, each step and a running mean.", _loss),
    Picture(
        "held-out",
        "Bits per byte on held-out files",
        "Bits per byte of each language on held-out files.",
        _bits_per_byte,
    ),
    Picture("throughput", "Throughput", "Tokens per second over the steps, all ranks together.", _throughput),
    Picture("schedule", "Learning rate and gradient norm", "Both over the steps.", _rate_and_norm),
)
"""Every picture of a report, in the order shown."""


def _axes(figure: Any, record: RunRecord, theme: Theme, title: str, unit: str) -> Any:
    axes = figure.subplots()
    _dress(figure, axes, record, theme, title, unit)
    return axes


def _dress(figure: Any, axes: Any, record: RunRecord, theme: Theme, title: str, unit: str) -> None:
    """Margins, title, grid and colours: quiet, so that the data speaks."""
    figure.subplots_adjust(left=0.105, right=0.965, top=0.86, bottom=0.125)
    last = max(1, record.step)
    axes.set_facecolor(theme.paper)
    axes.set_title(title, loc="left", color=theme.ink, size=13, weight="bold", pad=12)
    axes.set_ylabel(unit, color=theme.muted, size=10)
    axes.set_xlabel("step", color=theme.muted, size=10)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=9.5, length=0, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(-0.015 * last, 1.015 * last)


def _say_nothing(axes: Any, theme: Theme, reason: str) -> None:
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", color=theme.muted, size=12)


def _raw_and_smooth(
    axes: Any, theme: Theme, steps: list[int], values: list[float], of_steps: int | None = None
) -> None:
    """Every step faintly, and over it a running mean of a fiftieth of the run (of `of_steps`)."""
    window = (of_steps or len(steps)) // 50 | 1
    if window < 3:
        axes.plot(steps, values, color=theme.accent, linewidth=1.6, marker="o", markersize=3.5,
                  label="each step")  # fmt: skip
        return
    axes.plot(steps, values, color=theme.accent, linewidth=0.8, alpha=0.35, label="each step")
    axes.plot(steps, smooth(values, window), color=theme.accent, linewidth=2, label=f"mean of {window} steps")


def _mark_restarts(axes: Any, record: RunRecord, theme: Theme) -> None:
    """A line where each restart went on, and a band over the steps that it repeated."""
    label: str | None = "restart, and the steps it repeated"
    for start in find_starts(record)[1:]:
        if start.step is None:
            continue
        axes.axvspan(
            start.step, start.step + start.discarded_steps, color=theme.alarm, alpha=0.13, linewidth=0
        )
        axes.axvline(start.step, color=theme.alarm, linewidth=1.1, linestyle=(0, (4, 2)), label=label)
        label = None


def _label_ends(
    figure: Any, axes: Any, theme: Theme, series: dict[str, tuple[list[int], list[float]]]
) -> None:
    """Each line's name and last value at its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ends = [values[-1] for _, values in series.values()]
    heights = spread([(end - low) / (high - low) for end in ends], gap=0.062, floor=0.03)
    for number, (language, end) in enumerate(zip(series, ends, strict=True)):
        axes.text(
            1.015, heights[number], f"{plain(language)}  {end:.2f}", transform=axes.transAxes, va="center",
            color=theme.series[number % len(theme.series)], size=10, parse_math=False,
        )  # fmt: skip
    figure.subplots_adjust(right=0.78)


def spread(places: Sequence[float], gap: float, floor: float) -> list[float]:
    """Places moved apart: neighbours at least `gap`, none below `floor`, their order kept."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    blocks: list[tuple[float, int]] = []  # centre and number of members, from low to high
    for index in order:
        centre, members = places[index], 1
        while blocks and centre - members * gap / 2 < blocks[-1][0] + blocks[-1][1] * gap / 2:
            below, others = blocks.pop()
            centre = (centre * members + below * others) / (members + others)
            members += others
        blocks.append((centre, members))
    moved = [centre + (k - (n - 1) / 2) * gap for centre, n in blocks for k in range(n)]
    lifted = [max(place, floor + rank * gap) for rank, place in enumerate(moved)]
    return [place for _, place in sorted(zip(order, lifted, strict=True))]
