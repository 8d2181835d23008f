"""The command `evaluate`: suites of a model and its yardsticks, what is printed and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runner import Runner

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.config import read_evaluation
from hpctrain.evaluate.evaluate import open_candidate, result_directories, save_results, table
from hpctrain.evaluate.models import ModelOptions
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.tasks.result import Result, Score


def result(candidate: str, **values: float | None) -> Result:
    scores = [
        Score(metric="pass@1", value=value, count=4, group={"language": language})
        for language, value in values.items()
    ]
    return Result(suite="kernels", candidate=candidate, scores=scores)


def test_the_table_of_one_candidate_has_a_row_for_each_group() -> None:
    one = result("run", c=0.5, cuda=None)
    one.scores.append(Score(metric="build@1", value=0.75, count=4, group={"language": "c"}))
    assert table([one]) == [
        {"language": "c", "problems": 4, "pass@1": 0.5, "build@1": 0.75},
        {"language": "cuda", "problems": 4, "pass@1": "-", "build@1": "-"},
    ]


def test_the_table_of_several_has_them_side_by_side() -> None:
    rows = table([result("run", c=0.5), result("reference", c=1.0, cpp=1.0)])
    assert rows == [
        {"language": "c", "metric": "pass@1", "problems": 4, "run": 0.5, "reference": 1.0},
        {"language": "cpp", "metric": "pass@1", "problems": 4, "run": "-", "reference": 1.0},
    ]


def test_results_are_kept_in_the_run_and_where_they_are_asked_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").touch()
    found = [result("run", c=0.5), result("reference", c=1.0)]
    save_results(found, result_directories(str(run), tmp_path / "out"))
    for place in (run / "evaluations", tmp_path / "out"):
        kept = [Result.model_validate(each) for each in json.loads((place / "kernels.json").read_text())]
        assert kept == found
    assert result_directories("http://localhost:1/v1", None) == []


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("floor:serial", ConfigError, "no such yardstick; valid: reference, .*floor:ngram"),
        ("floor:ngram", ConfigError, "--shards"),
        ("no/such/run", DataError, "no/such/run: no such directory"),
    ],
)
def test_what_is_no_model_is_said(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_candidate(name, SuiteOptions(), ModelOptions())


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"suites": ["fim", "fin", "kernel"]}, ["suites: fin, kernel: unknown; valid: bits-per-byte"]),
        ({"suites": ["fim"], "samples": 3}, ["samples: several answers only differ with a temperature"]),
        ({"suites": ["fim"], "counts": ["1", "x"], "top_p": 0}, ["top_p: ", "counts.1: "]),
        ({"suites": ["fim"], "counts": [0]}, ["counts: threads and ranks are 1 or more"]),
        ({}, ["suites: required, but not given", "name suites by --suite"]),
    ],
)
def test_all_that_is_wrong_with_what_is_asked_is_said(given: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as told:
        read_evaluation(None, given)
    assert len(told.value.problems) == len(problems)
    for found, expected in zip(told.value.problems, problems, strict=True):
        assert found.startswith(expected)


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("suites: [fim, syntax]\nsamples: 4\ntemperature: 0.8\nlimit: 7\n")
    asked = read_evaluation(path, {"limit": 3, "counts": ["1", "2"]})
    options = asked.options(unsafe=False)
    assert asked.suites == ("fim", "syntax")
    assert (options.limit, options.counts, options.sampling.samples) == (3, (1, 2), 4)


def test_yardsticks_are_candidates() -> None:
    known: Candidate = open_candidate("reference", SuiteOptions(), ModelOptions())
    assert known.name == "reference"


def test_the_command_refuses_what_cannot_be(finished: Runner) -> None:
    run = finished.directory / "run"
    for arguments, words in [
        (["--suite", "bits-per-bite", "--counts", "1,x"], "bits-per-bite: unknown; valid: bits-per-byte"),
    ]:
        assert words in finished.run("evaluate", run, *arguments, code=2).stderr


def test_the_command_prints_and_keeps_each_suite(finished: Runner, tmp_path: Path) -> None:
    run = finished.directory / "run"
    arguments: list[Any] = ["--suite", "tokens", "--suite", "fim", "--limit", 4, "--max-tokens", 8]
    out = finished.run("evaluate", run, *arguments, "--out", tmp_path, "--html", tmp_path / "a.html").stdout
    assert "floor:ngram" in out
    assert "floor:ngram" in (tmp_path / "a.html").read_text()
    for suite in ("tokens", "fim"):
        kept = json.loads((tmp_path / f"{suite}.json").read_text())
        assert kept == json.loads((run / "evaluations" / f"{suite}.json").read_text())
        assert kept[0]["candidate"] == str(run)
        assert kept[0]["settings"]["step"] == 6
    assert [each["candidate"] for each in kept] == [str(run), "floor:ngram"]
    assert kept[0]["tokens_per_second"] > 0
