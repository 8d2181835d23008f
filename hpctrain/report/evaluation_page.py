"""What an evaluation found, as one self-contained HTML page: scores, pictures, and answers to browse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from hpctrain import __version__
from hpctrain.errors import ConfigError
from hpctrain.manifest import disk_errors
from hpctrain.report import words
from hpctrain.report.evaluation_pictures import EVALUATION_PICTURES, draw_evaluation
from hpctrain.report.evaluation_template import EVALUATION_PAGE
from hpctrain.report.page import data_uri, page_environment, publish
from hpctrain.report.pictures import DARK, LIGHT, png
from hpctrain.tasks.result import VERDICTS, Result, Sample, Score

_SHOWN_OF_A_VERDICT = 40
_SHOWN_CHARACTERS = 6000


@dataclass(frozen=True)
class ScoreRow:
    """One score of all candidates."""

    name: str
    count: int
    unit: str
    values: list[str]


@dataclass(frozen=True)
class ShownSample:
    """One answer, cut to what a page can hold."""

    problem: str
    language: str
    programming_model: str
    prompt: str
    answer: str
    detail: str
    told: str
    """Time and figures."""


def write_evaluation_page(suites: Sequence[Sequence[Result]], path: Path) -> None:
    """Write the page of some suites, each with the model's result first and then the yardsticks'.

    The page appears whole or not at all. Raises ConfigError if `path` is a directory, DataError if it cannot
    be written.
    """
    if path.is_dir():
        raise ConfigError(f"--html: {path} is a directory; give the name of a file, such as scores.html")
    page = render_evaluation(suites)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, page.encode("utf-8", "replace"))


def render_evaluation(suites: Sequence[Sequence[Result]]) -> str:
    """The HTML text of the page; everything that comes from models and compilers is escaped."""
    return page_environment().from_string(EVALUATION_PAGE).render(
        title=suites[0][0].candidate,
        subtitle="  ·  ".join(results[0].suite for results in suites),
        suites=[_suite(results) for results in suites],
        version=__version__,
    )  # fmt: skip


def _suite(results: Sequence[Result]) -> dict[str, Any]:
    model = results[0]
    pictures = [picture for picture in EVALUATION_PICTURES if picture.applies(results)]
    return {
        "name": model.suite,
        "candidates": [result.candidate for result in results],
        "rows": [_row(score, results) for score in model.scores],
        "pictures": [
            {
                "text": picture.text,
                "light": data_uri(png(draw_evaluation(picture, results, LIGHT))),
                "dark": data_uri(png(draw_evaluation(picture, results, DARK))),
            }
            for picture in pictures
        ],
        "tokens_per_second": model.tokens_per_second,
        "settings": model.settings,
        "skipped": model.skipped,
        "samples": [
            (verdict, len(found), [_shown(sample) for sample in _pick(found)])
            for verdict in VERDICTS
            if (found := [sample for sample in model.samples if sample.verdict == verdict])
        ],
    }


def _row(score: Score, results: Sequence[Result]) -> ScoreRow:
    where = ", ".join(score.group.values())
    values = []
    for result in results:
        same = [each for each in result.scores if (each.metric, each.group) == (score.metric, score.group)]
        values.append(words.decimal(same[0].value if same else None))
    return ScoreRow(f"{score.metric}, {where}" if where else score.metric, score.count, score.unit, values)


def _pick(samples: Sequence[Sample]) -> list[Sample]:
    """An even choice over the problems, in their order."""
    ranked = sorted(
        range(len(samples)), key=lambda n: xxhash.xxh3_64_intdigest(f"{samples[n].problem}/{n}".encode())
    )
    return [samples[number] for number in sorted(ranked[:_SHOWN_OF_A_VERDICT])]


def _shown(sample: Sample) -> ShownSample:
    figures = [f"{sample.seconds:.2f} s"] if sample.seconds else []
    figures += [f"{name} {value:.2f}" for name, value in sample.figures.items()]
    return ShownSample(
        sample.problem, sample.language, sample.programming_model, _cut(sample.prompt), _cut(sample.answer),
        _cut(sample.detail), "".join(f", {figure}" for figure in figures),
    )  # fmt: skip


def _cut(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    half = _SHOWN_CHARACTERS // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
