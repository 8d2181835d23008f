"""A step back to its files: the same sequences, by the digest of the run, and the documents' own bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runner import Runner

from hpctrain.corpus.document import read_documents
from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.batches import SampleReader
from hpctrain.loader.component import Component, Part
from hpctrain.loader.fim import FimConfig
from hpctrain.loader.order import SampleOrder
from hpctrain.loader.trace import trace
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.data import fim_tokens
from hpctrain.verify.trace import trace_step


def test_traced_bytes_and_lines_are_those_of_the_documents(
    shards_directory: Path, corpus_directory: Path
) -> None:
    """Together, the sequences of an epoch cover every document, byte by byte, each in its place."""
    tokenizer = Tokenizer.load(shards_directory / TOKENIZER_DIRECTORY)
    documents = list(read_documents(corpus_directory))
    streams = open_streams(shards_directory, "train")
    component = Component([Part(stream, 0, len(stream)) for stream in streams.values()], 200)
    order = SampleOrder((len(component),), (1.0,), 3)
    reader = SampleReader(order, [component], FimConfig(), fim_tokens(tokenizer))
    covered: dict[int, list[tuple[int, int]]] = {}
    tokens = 0
    for one in trace(reader, np.arange(len(component), dtype=np.int64), tokenizer):
        document = documents[one.document]
        assert (one.source, one.path, one.language) == (document.source, document.path, document.language)
        covered.setdefault(one.document, []).append((one.byte_start, one.byte_stop))
        assert one.first_line == document.content[: one.byte_start].count(b"\n") + 1
        last = max(one.byte_start, one.byte_stop - 1)
        assert one.last_line == document.content[:last].count(b"\n") + 1
        tokens += one.tokens
    assert tokens == len(component) * 201
    whole = 0
    for number, extents in covered.items():
        at = 0
        for start, stop in sorted(extents):
            assert start <= at, "without a gap"
            at = max(at, stop)
        whole += at == len(documents[number].content)
    assert whole >= len(covered) - 1  # the rest after the last sequence
    assert len(covered) >= sum(document.split == "train" for document in documents) - 3


def test_every_step_of_a_run_is_proven_by_its_digest(finished: Runner) -> None:
    digests = {step: digest for step, (_, _, digest) in finished.curve().items()}
    seen = []
    for step, digest in digests.items():
        found = trace_step(finished.directory / "run", step)
        assert found.digest == digest
        assert found.samples == 8
        seen += [found.first_sample + n for n in range(found.samples)]
        assert sum(one.tokens for one in found.documents) == 8 * 65
    assert seen == list(range(8 * len(digests)))


@pytest.mark.slow
@pytest.mark.ranks
def test_a_packed_run_with_a_mixture_and_spans_trains_on_any_ranks_and_is_traced(runner: Runner) -> None:
    data = {
        "mixture": {"c": 1, "any/installed": 2},
        "packing": "best_fit",
        "packing_plans": str(runner.directory / "plans"),
        "fim": {"rate": 0.8, "spans": 0.7, "cuts": "character"},
    }
    bad = runner.train(runner.config("bad", data=data), code=2)
    assert "c and any/installed both name c/installed" in bad.stderr
    data["mixture"] = {"c/installed": 1, "any/installed": 2}
    for ranks, name in ((1, "one"), (2, "two")):
        run = runner.train(runner.config(name, data=data), "--ranks", ranks)
        assert "epochs of the whole run: any/installed 0.0" in run.stderr
        assert ", c/installed 0.0" in run.stderr
        assert "; by source: installed " in run.stderr
    assert [d for _, _, d in runner.curve("one").values()] == [d for _, _, d in runner.curve("two").values()]
    losses = [[loss for loss, _, _ in runner.curve(name).values()] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    shutil.rmtree(runner.directory / "plans")
    out = runner.run("shards", "trace", runner.directory / "two", "--step", 2, "--json").stdout
    found = json.loads(out)
    assert found["digest"] == runner.curve("two")[2][2]
    assert {one["source"] for one in found["documents"]} == {"installed"}
    assert "epochs" in runner.run("report", runner.directory / "two").stdout


def test_a_step_that_was_not_done_and_shards_that_are_others(
    finished: Runner, shards_directory: Path, tmp_path: Path
) -> None:
    run = finished.directory / "run"
    for step in (0, 7):
        with pytest.raises(ConfigError, match=rf"--step: .* has steps 1 to 6, not {step}"):
            trace_step(run, step)
    with pytest.raises(DataError, match="not a run directory"):
        trace_step(tmp_path, 1)
    moved = Path(shutil.copytree(shards_directory, tmp_path / "shards"))
    assert trace_step(run, 1, moved).documents == trace_step(run, 1).documents
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    text = (copy / "run.yaml").read_text()
    (copy / "run.yaml").write_text(text.replace("seed: 1", "seed: 2"))
    with pytest.raises(DataError, match=r"step 1 saw a batch of digest .* they are not those"):
        trace_step(copy, 1)
