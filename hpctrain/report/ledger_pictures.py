"""The pictures of a corpus: what came in, what became of it, and what the documents are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from hpctrain.corpus.document import SPLITS
from hpctrain.report.bars import add_legend, make_axes, say_instead, stack
from hpctrain.report.ledger_data import (
    FATES,
    JACCARD_BINS,
    NO_LANGUAGE,
    SIZE_BINS,
    Amount,
    CorpusRecord,
    fates,
    top,
)  # fmt: skip
from hpctrain.report.pictures import Theme
from hpctrain.report.words import count, plain, size

_DOTS_PER_INCH = 160
_BARS = 9
_LETTERS = 26
_SHOWN = [fate for fate in FATES if fate != NO_LANGUAGE]


@dataclass(frozen=True)
class CorpusPicture:
    """One picture: its name, what it tells to somebody who cannot see it, and how it is drawn."""

    name: str
    text: str
    draw: Callable[[Any, CorpusRecord, Theme], None]
    """Draws into a figure."""


def draw_corpus(picture: CorpusPicture, record: CorpusRecord, theme: Theme) -> Figure:
    """One picture, 6.2 x 3.9 inches."""
    figure = Figure(figsize=(6.2, 3.9), dpi=_DOTS_PER_INCH, facecolor=theme.paper)
    picture.draw(figure, record, theme)
    return figure


def _fates(figure: Any, record: CorpusRecord, theme: Theme) -> None:
    axes = make_axes(figure, theme, "What became of each source", "share of bytes, other languages left out")
    tables = {name: fates(source) for name, source in record.sources.items()}
    totals = {name: sum((table[fate] for fate in _SHOWN), Amount()) for name, table in tables.items()}
    ranked = sorted((name for name in tables if totals[name].files), key=lambda name: -totals[name].bytes)
    head = ranked if len(ranked) <= _BARS else ranked[: _BARS - 1]
    rows = [(f"{plain(name[:_LETTERS])}\n{size(totals[name].bytes)}", [name]) for name in head]
    if rest := ranked[len(head) :]:
        rows.append((f"{len(rest)} more\n{size(sum(totals[name].bytes for name in rest))}", rest))
    shares = []
    for _, names in rows:
        sums = {fate: sum(tables[name][fate].bytes for name in names) for fate in _SHOWN}
        shares.append({fate: value / max(1, sum(sums.values())) for fate, value in sums.items()})
    colours = dict(zip(_SHOWN, (theme.accent, *theme.series[1:5], theme.muted), strict=True))
    stack(axes, theme, [name for name, _ in rows], _SHOWN, shares, colours)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))


def _languages(figure: Any, record: CorpusRecord, theme: Theme) -> None:
    axes = make_axes(figure, theme, "Documents by language", "bytes")
    table = [(language, {split: each.bytes for split, each in splits.items()})
             for language, splits in record.languages.items()]  # fmt: skip
    colours = dict(zip(SPLITS, (theme.accent, theme.series[1], theme.series[2]), strict=False))
    stack(axes, theme, [name for name, _ in table], list(colours), [row for _, row in table], colours)
    axes.xaxis.set_major_formatter(_SIZES)


def _models(figure: Any, record: CorpusRecord, theme: Theme) -> None:
    axes = make_axes(figure, theme, "Programming models really used", "documents")
    if not record.models:
        return say_instead(axes, theme, "no document uses one")
    rows = sorted(record.models.items(), key=lambda item: -sum(each.files for each in item[1].values()))
    languages = [name for name in record.languages if any(name in row for _, row in rows)][
        : len(theme.series)
    ]
    colours = dict(zip(languages, theme.series, strict=False))
    files = [{language: each.files for language, each in row.items()} for _, row in rows]
    stack(axes, theme, [name for name, _ in rows], languages, files, colours)
    axes.xaxis.set_major_formatter(_COUNTS)


def _reasons(figure: Any, record: CorpusRecord, theme: Theme) -> None:
    axes = make_axes(figure, theme, "Why files of its languages were dropped", "files")
    dropped = record.by("dropped")
    ranked = sorted(((n, a) for n, a in dropped.items() if n != "language"), key=lambda item: -item[1].files)
    rows = list(top(dict(ranked), _BARS + 1))
    if not rows:
        return say_instead(axes, theme, "none was")
    values = [{"": each.files} for _, each in rows]
    stack(axes, theme, [plain(name[:_LETTERS]) for name, _ in rows], [""], values, {"": theme.alarm})
    for place, (_, each) in enumerate(rows):
        axes.annotate(f" {count(each.files)}", (each.files, place), va="center", size=8.5, color=theme.muted)
    axes.set_xlim(0, 1.16 * max(each.files for _, each in rows))
    axes.xaxis.set_major_formatter(_COUNTS)


def _sizes(figure: Any, record: CorpusRecord, theme: Theme) -> None:
    axes = make_axes(figure, theme, "Sizes of documents", "bytes of a document", bars=False)
    axes.set_ylabel("share of documents smaller", color=theme.muted, size=9.5)
    edges = 2.0 ** np.arange(SIZE_BINS)
    for number, language in enumerate(list(record.languages)[: len(theme.series)]):
        bins = record.sizes[language]
        axes.plot(
            edges, np.cumsum(bins) / bins.sum(), color=theme.series[number], linewidth=1.8, label=language
        )
    used = np.flatnonzero(sum(record.sizes.values()))
    axes.set_xscale("log", base=2)
    axes.set_xlim(2.0 ** max(0, int(used[0]) - 1), 2.0 ** int(used[-1]))
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(_SIZES)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    add_legend(axes, theme, loc="upper left")


def _similarity(figure: Any, record: CorpusRecord, theme: Theme) -> None:
    axes = make_axes(figure, theme, "Near duplicates by similarity", "Jaccard of token shingles", bars=False)
    axes.set_ylabel("files dropped", color=theme.muted, size=9.5)
    if not record.jaccard.any():
        return say_instead(axes, theme, "none was found")
    edges = np.arange(JACCARD_BINS) / JACCARD_BINS
    axes.bar(edges, record.jaccard, width=0.9 / JACCARD_BINS, align="edge", color=theme.accent)
    axes.set_xlim(float(edges[np.flatnonzero(record.jaccard)[0]]) - 0.02, 1.005)
    axes.yaxis.set_major_formatter(_COUNTS)


CORPUS_PICTURES = (
    CorpusPicture(
        "fates", "For each source, the share of bytes kept, and dropped for each kind of reason.", _fates
    ),
    CorpusPicture("languages", "Bytes of documents by language and split.", _languages),
    CorpusPicture("models", "Documents by programming model and language.", _models),
    CorpusPicture("reasons", "Dropped files by reason, other languages left out.", _reasons),
    CorpusPicture("sizes", "Cumulative share of the documents of each language by size.", _sizes),
    CorpusPicture(
        "similarity", "Near duplicates by their similarity to the document that stayed.", _similarity
    ),
)
"""Every picture of a corpus, in the order shown."""

_SIZES = FuncFormatter(lambda value, _: size(value))
_COUNTS = FuncFormatter(lambda value, _: count(value))
