"""Gaps in held-out files: cut where the spans are, filled by whoever answers, compared as text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner import Runner

from hpctrain.errors import ConfigError
from hpctrain.evaluate.candidate import Sampling
from hpctrain.evaluate.evaluate import run_suite, settle
from hpctrain.evaluate.fim import edit_distance, figures_of, find_gaps, run_fim
from hpctrain.evaluate.heldout_files import HeldOutFile
from hpctrain.evaluate.heldout_problems import head, tail
from hpctrain.evaluate.models import ModelOptions, open_model
from hpctrain.evaluate.ngram import NgramModel
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import Yardstick

SOURCE = b"""\
#include <omp.h>
void scale(int n, double a, double *x)
{
#pragma omp parallel for
  for (int i = 0; i < n; i++)
    x[i] *= a;
}
int twice(int n) { return 2 * n; }
"""


def file(content: bytes) -> HeldOutFile:
    return HeldOutFile("c", "scale.c", content, 0, np.arange(len(content)))


def test_a_gap_and_its_surroundings_are_the_file() -> None:
    problems = list(find_gaps(file(SOURCE), 2000))
    assert [each.meta["span"] for each in problems] == ["directive", "loop_nest", "function", "function"]
    for each in problems:
        assert each.suffix is not None
        assert (each.prompt + each.reference + each.suffix).encode() == SOURCE
    assert problems[0].reference == "#pragma omp parallel for"
    assert problems[0].programming_model == "openmp"
    assert problems[1].reference.startswith("for (int i")


@pytest.mark.parametrize("size", [60, 90, 150])
def test_problems_fit_into_what_is_asked(size: int) -> None:
    problems = list(find_gaps(file(SOURCE * 5), size))
    assert problems
    for each in problems:
        whole = each.prompt + each.reference + (each.suffix or "")
        assert len(whole.encode()) <= size
        assert whole.encode() in SOURCE * 5


@given(st.text(max_size=60), st.integers(0, 80))
def test_cuts_are_at_whole_characters(text: str, size: int) -> None:
    content = text.encode()
    for part in (head(content, size), tail(content, size)):
        part.decode()
        assert len(part) <= size
    assert content.startswith(head(content, size))
    assert content.endswith(tail(content, size))


@given(st.text("abc", max_size=12), st.text("abcd", max_size=12))
def test_the_edit_distance_is_that_of_its_definition(first: str, second: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    assert edit_distance(first, second) == distance(len(first), len(second))


def test_figures() -> None:
    assert figures_of("a = b;  \n", "a = b;") == {"exact match": 1.0, "edit similarity": 1.0}
    assert figures_of("abcd", "abxx")["edit similarity"] == pytest.approx(0.5)
    assert figures_of("", "abc") == {"exact match": 0.0, "edit similarity": 0.0}


def test_the_reference_is_exact_and_the_floor_is_not(shards_directory: Path) -> None:
    options = SuiteOptions(Sampling(max_tokens=40), shards=shards_directory, limit=8, context_tokens=256)
    best = run_fim(Yardstick("reference"), options)
    assert {score.value for score in best.scores} == {1.0}
    assert {sample.verdict for sample in best.samples} == {"passed"}
    floor = run_fim(NgramModel(shards_directory), options)
    assert [each.problem for each in floor.samples] == [each.problem for each in best.samples]
    assert 0 < (floor.scores[1].value or 0) < 0.9


def test_a_run_fills_gaps_and_what_it_cannot_read_is_named(finished: Runner) -> None:
    run = open_model(str(finished.directory / "run"), ModelOptions(device="cpu"))
    options = settle("fim", run, SuiteOptions(Sampling(max_tokens=6), limit=6))
    result = run_suite("fim", run, options)
    assert result.settings["bytes of a problem, at most"] == 128
    assert len(result.samples) + len(result.skipped) == 6
    assert result.samples
    assert all("context of 64" in reason for reason in result.skipped.values())


def test_without_shards_there_are_no_problems() -> None:
    with pytest.raises(ConfigError, match=r"--suite fim: .* --shards"):
        run_fim(Yardstick("reference"), SuiteOptions())
