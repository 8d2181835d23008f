"""Bars, and what stands around them: shared by the pictures of a corpus and of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from hpctrain.report.pictures import Theme

_LEAST_ROWS = 4  # fewer bars are not made thicker


def make_axes(figure: Any, theme: Theme, title: str, unit: str, bars: bool = True) -> Any:
    """The axes of a picture of 6.2 x 3.9 inches; `bars`: horizontal ones, whose names need room."""
    axes = figure.subplots()
    figure.subplots_adjust(left=0.24 if bars else 0.13, right=0.965, top=0.87, bottom=0.13)
    axes.set_facecolor(theme.paper)
    figure.text(0.02, 0.945, title, color=theme.ink, size=13, weight="bold", va="center")
    axes.set_xlabel(unit, color=theme.muted, size=9.5)
    axes.grid(axis="x" if bars else "y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.muted)
    if bars:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return axes


def stack(
    axes: Any, theme: Theme, names: Sequence[str], parts: Sequence[str],
    rows: Sequence[Mapping[str, float]], colours: Mapping[str, str],
) -> None:  # fmt: skip
    """Horizontal bars from top to bottom, each of parts side by side; a legend where there are several."""
    places, left = np.arange(len(rows)), np.zeros(len(rows))
    for part in parts:
        widths = np.array([row.get(part, 0) for row in rows], np.float64)
        if widths.any():
            axes.barh(places, widths, left=left, height=0.68, color=colours[part], label=part)
            left += widths
    axes.set_yticks(places, list(names))
    for label in axes.get_yticklabels():
        label.set(color=theme.ink, parse_math=False)
    axes.set_ylim(max(len(rows), _LEAST_ROWS) - 0.5, -0.5)
    if sum(bool(part) for part in parts) > 1:
        axes.figure.subplots_adjust(top=0.81)
        add_legend(axes, theme, loc="lower left", ncols=6, bbox_to_anchor=(0, 1), columnspacing=1.2)


def add_legend(axes: Any, theme: Theme, **where: Any) -> None:
    """A legend in the colours of the theme."""
    found = axes.legend(
        fontsize=8.5, handlelength=1.1, facecolor=theme.paper, edgecolor="none", framealpha=0.85, **where
    )
    for text in found.get_texts():
        text.set_color(theme.muted)


def say_instead(axes: Any, theme: Theme, reason: str) -> None:
    """What stands where there is nothing to draw."""
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", color=theme.muted, size=12)
