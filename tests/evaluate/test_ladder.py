"""The ladder: its suites, and one figure of each."""

from __future__ import annotations

from pathlib import Path

from hpctrain.evaluate.ladder import RUNGS, expand, ladder_rows, of_suite
from hpctrain.evaluate.suites import SuiteOptions, suite_names
from hpctrain.tasks.result import Result, Score


def test_rungs_are_suites() -> None:
    assert {rung.suite for rung in RUNGS} <= set(suite_names())


def test_the_ladder_is_its_suites_each_once() -> None:
    rungs = [rung.suite for rung in RUNGS]
    assert expand(["ladder"]) == rungs
    assert expand(["kernels", "ladder", "race"]) == ["kernels", *rungs[:-1], "race"]
    assert expand(["race", "fim"]) == ["race", "fim"]


def test_each_suite_gets_its_own_problems(tmp_path: Path) -> None:
    (tmp_path / "openmp").mkdir()
    assert of_suite("openmp", SuiteOptions(problems=tmp_path)).problems == tmp_path / "openmp"
    assert of_suite("kernels", SuiteOptions(problems=tmp_path)).problems is None
    assert of_suite("kernels", SuiteOptions()).problems is None


def test_one_figure_of_each_rung_beside_the_yardsticks() -> None:
    model = [
        Score(metric="pass@1", value=0.5, count=2, group={"language": "c"}),
        Score(metric="build@1", value=1, count=4),
    ]
    results = {
        "kernels": [
            Result(
                suite="kernels", candidate="run", scores=[*model, Score(metric="pass@1", value=0.25, count=4)]
            ),
            Result(suite="kernels", candidate="reference", scores=[Score(metric="pass@1", value=1, count=4)]),
        ],
        "syntax": [
            Result(suite="syntax", candidate="run", scores=[Score(metric="syntax", value=None, count=0)])
        ],
    }
    rows = {row["suite"]: row for row in ladder_rows(results)}
    assert [row["rung"] for row in rows.values()] == [1, 2, 3, 4, 5]
    assert (rows["kernels"]["run"], rows["kernels"]["reference"]) == (0.25, 1)
    assert (rows["syntax"]["run"], rows["syntax"]["reference"]) == ("-", "-")
    assert rows["translate"]["run"] == "-"
