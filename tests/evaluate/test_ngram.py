"""The n-gram floor: counts of a plain dictionary, and text that was seen comes again."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.evaluate.candidate import Sampling
from hpctrain.evaluate.ngram import NgramModel, NgramTable
from hpctrain.tasks.problem import Problem


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.lists(st.integers(0, 5), max_size=6),
    st.integers(1, 4),
)
@settings(max_examples=100)
def test_it_is_the_longest_context_that_was_seen(text: list[int], context: list[int], order: int) -> None:
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for place, token in enumerate(text):
        for length in range(min(order - 1, place) + 1):
            counts[tuple(text[place - length : place])][token] += 1
    known = [length for length in range(min(order, len(context) + 1)) if _end(context, length) in counts]
    tokens, found = NgramTable(np.array(text, np.uint16), order).following(context)
    assert dict(zip(tokens.tolist(), found.tolist(), strict=True)) == counts[_end(context, max(known))]


def _end(context: list[int], length: int) -> tuple[int, ...]:
    return tuple(context[len(context) - length :])


def problem(language: str = "fortran-fixed") -> Problem:
    return Problem("p", "syntax", language, "serial", "axpy.f", "C     FIXED FORM: LABELS IN COLUMNS", "")


def test_text_that_was_seen_comes_again(shards_directory: Path) -> None:
    model = NgramModel(shards_directory)
    [[answer]] = model.answer([problem()], Sampling(max_tokens=12))
    assert answer.text.startswith(" 1-5, CONTINUATI")
    assert answer.is_cut
    assert answer.tokens == 12


def test_what_is_drawn_varies_and_can_be_drawn_again(shards_directory: Path) -> None:
    model = NgramModel(shards_directory)
    problems = [Problem("p", "syntax", "cpp", "serial", "a.cc", "  return ", "")]
    sampling = Sampling(samples=6, temperature=1.0, max_tokens=20)
    [answers] = model.answer(problems, sampling)
    assert len({answer.text for answer in answers}) > 3
    assert model.answer(problems, sampling) == [answers]


def test_a_language_that_was_never_seen_is_said(
    shards_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = NgramModel(shards_directory)
    model._streams.pop("c")
    largest = max(model._streams, key=lambda name: len(model._streams[name]))
    assert model.answer([problem("c")], Sampling(max_tokens=3))
    assert f"has no c to train on; {largest} stands in for it" in capsys.readouterr().err
