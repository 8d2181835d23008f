"""Evaluation of a run, alone, against what the run measured itself."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from runner import Runner

from hpctrain.corpus.document import Document, read_documents
from hpctrain.corpus.models import programming_models
from hpctrain.errors import ConfigError
from hpctrain.evaluate.evaluate import evaluate, run_suite, table
from hpctrain.evaluate.models import ModelOptions
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import Yardstick
from hpctrain.tasks.result import Result


def scores(results: list[dict[str, Any]], metric: str, key: str) -> dict[str, dict[str, Any]]:
    """The scores of a metric by the value of one group key; `all` for everything."""
    [result] = results
    return {
        score["group"].get(key, "all"): score
        for score in result["scores"]
        if score["metric"] == metric and score["group"].keys() <= {key}
    }


def measure(finished: Runner, limit: int) -> list[Result]:
    """The suite in this process."""
    run = str(finished.directory / "run")
    return next(evaluate(run, ["bits-per-byte"], SuiteOptions(limit=limit), ModelOptions("cpu")))


def test_it_equals_what_two_ranks_measured_in_training(finished: Runner, tmp_path: Path) -> None:
    run = finished.directory / "run"
    out = finished.run(
        "evaluate", run, "--suite", "bits-per-byte", "--limit", 4, "--out", tmp_path, "--json"
    ).stdout
    results = json.loads(out)
    assert json.loads((tmp_path / "bits-per-byte.json").read_text()) == results
    assert json.loads((run / "evaluations" / "bits-per-byte.json").read_text()) == results
    measured = finished.metrics()[-1]
    bits, nats = (scores(results, metric, "language") for metric in ("bits per byte", "nats per token"))
    assert bits.keys() == nats.keys() == {*measured["loss_by_language"], "all"}
    for language, expected in measured["bits_per_byte_by_language"].items():
        assert bits[language]["value"] == pytest.approx(expected, rel=1e-5)
        assert nats[language]["value"] == pytest.approx(measured["loss_by_language"][language], rel=1e-5)
    total = sum(score["value"] * score["count"] for language, score in nats.items() if language != "all")
    content = sum(score["count"] for language, score in bits.items() if language != "all")
    assert bits["all"]["value"] == pytest.approx(total / math.log(2) / content)


def test_by_programming_model_every_byte_counts_where_it_belongs(
    finished: Runner, documents: list[Document]
) -> None:
    [result] = measure(finished, limit=10_000)
    found = scores([result.model_dump()], "bits per byte", "model")
    content: dict[str, int] = {}
    for document in documents:
        if document.split == "validation":
            for model in programming_models(document.content, document.language) or {"serial"}:
                content[model] = content.get(model, 0) + len(document.content)
    whole = found.pop("all")
    assert {model: score["count"] for model, score in found.items()} == content
    assert whole["count"] == sum(len(each.content) for each in documents if each.split == "validation")


def test_the_table_is_by_language_and_model(finished: Runner) -> None:
    rows = table(measure(finished, limit=2))
    assert list(rows[0]) == ["language", "model", "bytes", "tokens", "bits per byte", "nats per token"]
    assert {row["language"] for row in rows} >= {"c", "cpp", "fortran-free", "all"}
    assert rows[-1]["language"] == rows[-1]["model"] == "all"
    assert {row["model"] for row in rows} >= {"serial", "all"}


def test_shards_of_another_tokenizer_are_refused(
    finished: Runner, tmp_path: Path, corpus_directory: Path
) -> None:
    from hpctrain.corpus.document import LANGUAGES
    from hpctrain.shards.pack import build_shards
    from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

    documents = (
        (document.language, document.content) for document in read_documents(corpus_directory, "train")
    )
    train_tokenizer(TokenizerConfig(vocab_size=1200), documents, LANGUAGES, {}, tmp_path / "tokenizer")
    build_shards(corpus_directory, tmp_path / "tokenizer", tmp_path / "shards")
    run = finished.directory / "run"
    err = finished.run(
        "evaluate", run, "--suite", "bits-per-byte", "--shards", tmp_path / "shards", code=3
    ).stderr
    assert "made with another tokenizer" in err


def test_a_candidate_without_probabilities_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs the probabilities of a run or import; reference is none"):
        run_suite("bits-per-byte", Yardstick("reference"), SuiteOptions())
