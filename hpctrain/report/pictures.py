"""The pictures of a report, drawn without a display and without pyplot's global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from hpctrain.report.record import Restart, RunRecord, find_restarts
from hpctrain.report.words import count, plain, plural

_DOTS_PER_INCH = 160
_RESTARTS_LABELLED = 4
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
    head, body = figure.subfigures(2, 1, height_ratios=(0.09, 1))
    for part in (head, body):
        part.set_facecolor(theme.paper)
    head.text(
        0.02, 0.62, plain(title), color=theme.ink, size=19, weight="bold", va="center", parse_math=False
    )
    head.text(0.02, 0.12, plain(subtitle), color=theme.muted, size=11.5, va="center", parse_math=False)
    for part, picture in zip(body.subfigures(2, 2).flat, PICTURES, strict=True):
        part.set_facecolor(theme.paper)
        picture.draw(part, record, theme)
    return figure


def draw_one(picture: Picture, record: RunRecord, theme: Theme) -> Figure:
    """One picture alone, 7 x 4.1 inches."""
    figure = Figure(figsize=(7, 4.1), dpi=_DOTS_PER_INCH, facecolor=theme.paper)
    picture.draw(figure, record, theme)
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
    axes = _axes(figure, theme, "Training loss", "nats per token")
    steps, losses = record.series("loss")
    if not steps:
        return _say_nothing(axes, theme, "no step yet")
    _raw_and_smooth(axes, theme, steps, losses)
    _mark_restarts(axes, record, theme)
    saves = sorted({event["step"] for event in record.events_of("save") if event["step"] <= steps[-1]})
    axes.plot(
        saves, [0.012] * len(saves), "^", transform=axes.get_xaxis_transform(), color=theme.muted,
        markersize=5, markeredgewidth=0, label="checkpoint saved", clip_on=False, zorder=5,
    )  # fmt: skip
    legend = axes.legend(frameon=False, fontsize=9, loc="upper right", handlelength=1.6)
    for text in legend.get_texts():
        text.set_color(theme.muted)


def _bits_per_byte(figure: Any, record: RunRecord, theme: Theme) -> None:
    axes = _axes(figure, theme, "Held-out text", "bits per byte")
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
    axes = _axes(figure, theme, "Throughput", "tokens per second")
    steps, rates = record.series("tokens_per_second")
    if not steps:
        return _say_nothing(axes, theme, "no step yet")
    _raw_and_smooth(axes, theme, steps, rates)
    median = float(np.median(rates))
    axes.set_ylim(0, 1.2 * float(np.percentile(rates, 99)))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.axhline(median, color=theme.ink, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"median {count(median)}", (1, median), xycoords=("axes fraction", "data"), xytext=(-4, -5),
        textcoords="offset points", ha="right", va="top", size=9.5, color=theme.ink,
    )  # fmt: skip
    _mark_restarts(axes, record, theme, labelled=True)


def _rate_and_norm(figure: Any, record: RunRecord, theme: Theme) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.16})
    _dress(figure, upper, theme, "Learning rate and gradient norm", "learning rate")
    _dress(figure, lower, theme, "", "gradient norm")
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    steps, rates = record.series("learning_rate")
    if not steps:
        _say_nothing(upper, theme, "no step yet")
        return _say_nothing(lower, theme, "")
    upper.plot(steps, rates, color=theme.accent, linewidth=1.8, marker="o" if len(steps) == 1 else "")
    upper.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    upper.yaxis.get_offset_text().set(color=theme.muted, size=9)
    upper.set_ylim(0, 1.15 * (max(rates) or 1))
    _raw_and_smooth(lower, theme, *record.series("grad_norm"))
    lower.set_yscale("log")
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
    Picture("held-out", "Held-out text", "Bits per byte of each language on held-out files.", _bits_per_byte),
    Picture("throughput", "Throughput", "Tokens per second over the steps, all ranks together.", _throughput),
    Picture("schedule", "Learning rate and gradient norm", "Both over the steps.", _rate_and_norm),
)
"""Every picture of a report, in the order shown."""


def _axes(figure: Any, theme: Theme, title: str, unit: str) -> Any:
    axes = figure.subplots()
    _dress(figure, axes, theme, title, unit)
    return axes


def _dress(figure: Any, axes: Any, theme: Theme, title: str, unit: str) -> None:
    """Margins, title, grid and colours: quiet, so that the data speaks."""
    figure.subplots_adjust(left=0.105, right=0.965, top=0.86, bottom=0.125)
    axes.set_facecolor(theme.paper)
    axes.set_title(title, loc="left", color=theme.ink, size=13, weight="bold", pad=12)
    axes.set_ylabel(unit, color=theme.muted, size=10)
    axes.set_xlabel("step", color=theme.muted, size=10)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=9.5, length=0, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.015)


def _say_nothing(axes: Any, theme: Theme, reason: str) -> None:
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", color=theme.muted, size=12)


def _raw_and_smooth(axes: Any, theme: Theme, steps: list[int], values: list[float]) -> None:
    """Every step faintly, and over it a running mean of a fiftieth of the run."""
    window = max(1, len(steps) // 50) | 1
    if window < 3:
        axes.plot(
            steps, values, color=theme.accent, linewidth=1.6, marker="o", markersize=3.5, label="each step"
        )
        return
    axes.plot(steps, values, color=theme.accent, linewidth=0.8, alpha=0.35, label="each step")
    axes.plot(steps, smooth(values, window), color=theme.accent, linewidth=2, label=f"mean of {window} steps")


def _mark_restarts(axes: Any, record: RunRecord, theme: Theme, labelled: bool = False) -> None:
    """A line where each restart went on, and a band over the steps that it repeated."""
    restarts = [restart for restart in find_restarts(record) if restart.step is not None]
    for number, restart in enumerate(restarts):
        label = "restart, and the steps it repeated" if number == 0 else None
        axes.axvspan(
            restart.step, restart.step + restart.discarded_steps, color=theme.alarm, alpha=0.13, linewidth=0
        )
        axes.axvline(restart.step, color=theme.alarm, linewidth=1.1, linestyle=(0, (4, 2)), label=label)
        if labelled and len(restarts) <= _RESTARTS_LABELLED:
            _label_restart(axes, restart, theme)


def _label_restart(axes: Any, restart: Restart, theme: Theme) -> None:
    ranks = f"\n{plural(restart.ranks, 'rank')}, {restart.layout}" if restart.ranks else ""
    axes.annotate(
        f"restart{ranks}", (restart.step, 0), xycoords=("data", "axes fraction"), xytext=(5, 6),
        textcoords="offset points", va="bottom", size=9, color=theme.alarm, parse_math=False,
    )  # fmt: skip


def _label_ends(
    figure: Any, axes: Any, theme: Theme, series: dict[str, tuple[list[int], list[float]]]
) -> None:
    """Each line's name and last value at its end, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ends = [values[-1] for _, values in series.values()]
    heights = spread([(end - low) / (high - low) for end in ends], gap=0.062)
    for number, (language, end) in enumerate(zip(series, ends, strict=True)):
        axes.text(
            1.015, heights[number], f"{plain(language)}  {end:.2f}", transform=axes.transAxes, va="center",
            color=theme.series[number % len(theme.series)], size=10, parse_math=False,
        )  # fmt: skip
    figure.subplots_adjust(right=0.80)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places moved as little as needed so that neighbours are at least `gap` apart, their order kept."""
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
    return [place for _, place in sorted(zip(order, moved, strict=True))]
