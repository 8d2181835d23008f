"""The model card tells what went into a model and what came out; the chat template is that of training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runner import STEPS, Runner

from hpctrain.export.card import model_card
from hpctrain.export.hf import export_huggingface
from hpctrain.export.source import open_source
from hpctrain.tasks.template import Message, render
from hpctrain.train.metrics import METRICS_NAME

RESULTS = [
    {"suite": "openmp", "candidate": name, "scores": [
        {"metric": "pass@1", "value": value, "count": 40, "unit": "problems", "group": {"language": "c"}}],
     "settings": {"step": 6} if name == "runs/a" else {}}
    for name, value in (("runs/a", 0.125), ("reference", 1.0), ("floor:ngram", None))
]  # fmt: skip


@pytest.fixture
def run(finished: Runner, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change, without what other tests evaluated."""
    evaluations = shutil.ignore_patterns("evaluations")
    shutil.copytree(finished.directory / "run", tmp_path / "run", ignore=evaluations)
    return tmp_path / "run"


def card(run: Path) -> str:
    with open_source(run) as source:
        return model_card(source, "name", "hf", "fp32")


def test_it_tells_data_licences_and_figures(run: Path) -> None:
    text = card(run)
    for part in (
        f"| steps | {STEPS} of 8 sequences of 64 tokens |", "| fortran-free |", "| Apache-2.0 |", "100.00%",
        "bits per byte", "| energy | not measured |", "trained from scratch", "ZeRO 1, 1 pipeline stages",
        "<document><language:LANGUAGE><file_name>PATH<content>CODE", "`<fim_prefix>`",
    ):  # fmt: skip
        assert part in text


def test_evaluations_stand_beside_their_yardsticks(run: Path) -> None:
    (run / "evaluations").mkdir()
    (run / "evaluations/openmp.json").write_text(json.dumps(RESULTS))
    text = card(run)
    assert "Suite `openmp` at step 6:" in text
    assert "| score | this model | reference | floor:ngram |" in text
    row = "| pass@1 (language c) | 0.125 of 40 problems | 1.000 of 40 problems | - of 40 problems |"
    assert row in text


@pytest.mark.parametrize("content", ["not JSON", '{"suite": 1}', "[1]", '[{"candidate": "a"}]'])
def test_what_is_no_result_is_left_out_and_said(
    run: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "evaluations").mkdir()
    (run / "evaluations/broken.json").write_text(content)
    assert "Suite" not in card(run)
    assert "broken.json is not an evaluation's result" in capsys.readouterr().err


def test_energy_is_told_where_it_was_measured(run: Path) -> None:
    lines = [json.loads(line) for line in (run / METRICS_NAME).read_text().splitlines()]
    written = [json.dumps({**line, "energy_joules": 1.8e6}) for line in lines if "loss" in line]
    (run / METRICS_NAME).write_text("\n".join(written) + "\n")
    assert f"| energy | {len(written) / 2:.3f} kWh |" in card(run)


def test_shards_that_are_gone_or_others_are_not_told_of(run: Path, tmp_path: Path) -> None:
    config = (run / "run.yaml").read_text()
    with open_source(run) as source:
        shards = source.config.data.shards
    (run / "run.yaml").write_text(config.replace(str(shards), str(tmp_path / "gone")))
    assert "no longer where the run found them" in card(run)


def test_the_chat_template_gives_the_text_of_training(run: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(config.replace("template: null", "template: chat"))
    export_huggingface(run, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    turns = [
        {"role": "system", "content": 'Be "brief".\n'},
        {"role": "user", "content": "  Write axpy\n\n"},
    ]
    theirs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, language="cuda", path="axpy.cu", return_dict=False
    )
    with open_source(run) as source:
        text = render([Message.model_validate(turn) for turn in turns])
        ours = source.tokenizer.encode_document("cuda", "axpy.cu", text.encode())[:-1].tolist()
        assert theirs == ours
    assert "by the tokenizer's chat template" in card(run)
