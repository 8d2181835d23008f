"""Fine-tuning on instructions, as a user does it: build, train, measure; and what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from runner import Runner, environment
from stages import write_corpus

from hpctrain.config import load_config
from hpctrain.corpus.document import Document
from hpctrain.errors import ConfigError
from hpctrain.manifest import is_finished
from hpctrain.train.config import RunConfig

LOOP = """\
void scale_%(n)d(int n, double *x)
{
#pragma omp parallel for schedule(static, %(n)d)
    for (int i = 0; i < n; ++i)
        x[i] *= %(n)d;
}
"""
DATA = {"sequence_length": 192, "packing": "best_fit", "fim": {"rate": 0}}


def from_finished(runner: Runner, finished: Runner, name: str, **sections: Any) -> Path:
    """The config of a run that begins with the weights of the finished one."""
    path = runner.config(name, **sections)
    tree = yaml.safe_load(path.read_text())
    tree["run"]["start_from"] = str(finished.directory / "run")
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_shape_is_that_of_the_run_it_starts_from(runner: Runner, finished: Runner) -> None:
    path = from_finished(runner, finished, "shapeless")
    tree = yaml.safe_load(path.read_text())
    shape = load_config(finished.directory / "run" / "run.yaml", [], RunConfig).model
    for model in ("left out", None):
        tree.pop("model", None)
        if model is None:
            tree["model"] = None
        path.write_text(yaml.safe_dump(tree))
        assert load_config(path, [], RunConfig).model == shape
    with pytest.raises(ConfigError, match="model"):
        load_config(path, ["run.start_from=nowhere"], RunConfig)


@pytest.fixture
def instructions(runner: Runner, finished: Runner) -> Path:
    """Shards of 80 requests, built by the command."""
    lines = [
        {"prompt": f"Write loop {n}.", "response": f"for (int i = 0; i < {n}; ++i) x[i] = {n % 3};\n"}
        for n in range(80)
    ]
    file, out = runner.directory / "loops.jsonl", runner.directory / "loops"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = finished.directory / "run" / "tokenizer"
    told = runner.run(
        "instructions", "build", file, "--tokenizer", tokenizer, "--out", out,
        "--language", "c", "--validation", "0.2",
    )  # fmt: skip
    assert "validation" in told.stdout
    return out


@pytest.mark.ranks
def test_instructions_are_learnt_by_their_responses(
    runner: Runner, finished: Runner, instructions: Path
) -> None:
    config = from_finished(
        runner, finished, "tuned", data={**DATA, "shards": str(instructions)},
        train={"steps": 6, "evaluate_every_steps": 6, "evaluate_sequences": 4},
        optimizer={"learning_rate": 0.01},
    )  # fmt: skip
    runner.run("finetune", config, "--ranks", 1)
    settled = load_config(runner.directory / "tuned" / "run.yaml", [], RunConfig).data
    assert (settled.loss, settled.template) == ("response", "chat")
    lines = runner.metrics("tuned")
    held_out = [line["loss_by_language"]["c"] for line in lines if "loss_by_language" in line]
    # before the first step all figures are those of the finished run, in nats per token of a response
    assert 4 < held_out[0] < math.log(2048) + 1
    first = next(line["loss"] for line in lines if line.get("step") == 1)
    assert first == pytest.approx(held_out[0], rel=0.15)
    assert held_out[-1] < held_out[0] - 0.5
    # the same run again goes on, and finds nothing left to do
    assert runner.run("finetune", config, "--ranks", 1).returncode == 0


@pytest.mark.ranks
@pytest.mark.slow
def test_every_layout_learns_the_same_of_responses_and_adapters(
    runner: Runner, finished: Runner, instructions: Path
) -> None:
    config = from_finished(
        runner, finished, "tuned", data={**DATA, "shards": str(instructions)},
        adapter={"rank": 2}, train={"micro_batch_size": 1},
    )  # fmt: skip
    out = runner.run("verify", "layouts", config, "--ranks", "2", "--steps", 2, "--json").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert set(rows) == {"zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1"}
    assert all(row["verdict"] == "agrees" and row["restores"] == "4 of 4" for row in rows.values())


@pytest.mark.ranks
def test_a_task_is_built_before_the_run_but_not_under_a_launcher(runner: Runner, finished: Runner) -> None:
    splits = ["train"] * 40 + ["validation"] * 4 + ["test"] * 4
    documents = [
        Document("tree", f"{n}.c", "c", "MIT", f"family{n}", split, (LOOP % {"n": n}).encode(), "openmp")
        for n, split in enumerate(splits)
    ]
    corpus = write_corpus(runner.directory / "corpus", documents)
    data = {"name": "openmp", "corpus": str(corpus), "data": str(runner.directory / "data")}
    shards = runner.directory / "examples"
    config = from_finished(
        runner, finished, "tuned", task=data, data={**DATA, "shards": str(shards)}, train={"steps": 2}
    )
    variables = {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost", "MASTER_PORT": "29999",
    }  # fmt: skip
    command = [sys.executable, "-m", "hpctrain", "finetune", str(config)]
    placed = subprocess.run(
        command, env={**environment(), **variables}, text=True, capture_output=True, check=False
    )
    assert placed.returncode == 3, placed.stderr
    assert f"first run `hpctrain tasks build {config}`" in placed.stderr
    assert not shards.exists()
    err = runner.run("finetune", config, "--ranks", 1).stderr
    assert "task openmp: 40 examples to train on" in err
    assert is_finished(shards)
    assert not (shards / "test").exists()
    assert load_config(runner.directory / "tuned" / "run.yaml", [], RunConfig).data.template == "plain"


def test_broken_lines_end_the_build_with_their_numbers(runner: Runner, tokenizer_directory: Path) -> None:
    file = runner.directory / "x.jsonl"
    file.write_text('{"prompt": "p", "response": "r"}\n{"prompt": "p"}\nnonsense\n')
    err = runner.run(
        "instructions", "build", file, "--tokenizer", tokenizer_directory, "--out", runner.directory / "out",
        "--language", "c", code=3,
    ).stderr  # fmt: skip
    assert f"{file}:2: response: required, but not given" in err
    assert f"{file}:3: not JSON" in err
    assert "Traceback" not in err
    assert not os.path.lexists(runner.directory / "out")
