"""Evaluation of a run, alone, against what the run measured itself."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from runner import Runner


def test_it_equals_what_two_ranks_measured_in_training(finished: Runner, tmp_path: Path) -> None:
    run = finished.directory / "run"
    out = finished.run(
        "evaluate", run, "--suite", "bits-per-byte", "--sequences", 4, "--out", tmp_path, "--json"
    ).stdout
    rows = {row["language"]: row for row in json.loads(out)}
    assert json.loads((tmp_path / "bits-per-byte.json").read_text()) == json.loads(out)
    measured = finished.metrics()[-1]
    assert set(rows) == {*measured["loss_by_language"], "all"}
    for language, bits in measured["bits_per_byte_by_language"].items():
        assert rows[language]["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
        assert rows[language]["loss"] == pytest.approx(measured["loss_by_language"][language], rel=1e-5)
    parts = [row for language, row in rows.items() if language != "all"]
    nats = sum(row["loss"] * row["tokens"] for row in parts)
    assert rows["all"]["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / sum(row["bytes"] for row in parts)
    )


def test_shards_of_another_tokenizer_are_refused(
    finished: Runner, tmp_path: Path, corpus_directory: Path
) -> None:
    from hpctrain.corpus.document import LANGUAGES, read_documents
    from hpctrain.shards.pack import build_shards
    from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

    documents = (
        (document.language, document.content) for document in read_documents(corpus_directory, "train")
    )
    train_tokenizer(TokenizerConfig(vocab_size=1200), documents, LANGUAGES, {}, tmp_path / "tokenizer")
    build_shards(corpus_directory, tmp_path / "tokenizer", tmp_path / "shards")
    run = finished.directory / "run"
    err = finished.run("evaluate", run, "--shards", tmp_path / "shards", code=3).stderr
    assert "made with another tokenizer" in err
