"""A run becomes a Hugging Face directory that was proven before it was published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from runner import STEPS, Runner
from safetensors.torch import load_file

from hpctrain.errors import DataError

PROMPT = "subroutine axpy(n, a, x, y)\n  integer, intent(in) :: n\n"


@pytest.fixture(scope="session")
def exported(finished: Runner) -> Path:
    """The finished run, exported."""
    out = finished.directory / "export"
    err = finished.run("export", finished.directory / "run", "--format", "hf", "--out", out).stderr
    assert "greedy text is equal" in err
    return out


def test_downstream_tools_load_it_and_continue_as_we_do(
    finished: Runner, exported: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    model = AutoModelForCausalLM.from_pretrained(exported)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert isinstance(model, LlamaForCausalLM)
    text = f"<document><language:fortran-free><file_name>axpy.f90<content>{PROMPT}"
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    theirs = tokenizer.decode(output, skip_special_tokens=True)
    (tmp_path / "axpy.f90").write_text(PROMPT)
    arguments = ["--prompt-file", tmp_path / "axpy.f90", "--max-tokens", 24]
    ours = finished.run("generate", finished.directory / "run", *arguments).stdout
    assert ours.rstrip("\n") == theirs.rstrip("\n")
    assert theirs


def test_tied_weights_are_stored_once(exported: Path) -> None:
    names = set(load_file(exported / "model.safetensors"))
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert json.loads((exported / "config.json").read_text())["tie_word_embeddings"] is True


def test_the_card_tells_data_licences_and_figures(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    for part in ("fortran-free", "Apache-2.0", "bits per byte", f"in {STEPS} steps", "<fim_prefix>"):
        assert part in card


def test_it_is_up_to_date_the_second_time_and_never_overwritten(finished: Runner, exported: Path) -> None:
    again = finished.run("export", finished.directory / "run", "--out", exported)
    assert "up to date" in again.stderr
    other = finished.directory / "two-steps"
    shutil.copytree(finished.directory / "run", other)
    for step in (4, 6):
        shutil.rmtree(other / "checkpoints" / f"step-{step:08d}")
    err = finished.run("export", other, "--out", exported, code=3).stderr
    assert "its export was made from another checkpoint" in err


def test_what_is_not_proven_is_not_published(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpctrain.export import hf

    rotated = {
        "attention.query.weight": "self_attn.q_proj.weight",
        "attention.value.weight": "self_attn.v_proj.weight",
    }
    monkeypatch.setitem(hf._LAYER_NAMES, "attention.key.weight", rotated["attention.value.weight"])
    monkeypatch.setitem(hf._LAYER_NAMES, "attention.value.weight", "self_attn.k_proj.weight")
    with pytest.raises(DataError, match="nothing was published"):
        hf.export_huggingface(finished.directory / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_untied_weights_from_a_pipeline(runner: Runner) -> None:
    model = {"tied": False}
    runner.train(runner.config(model=model, parallel={"pipeline_stages": 2}, train={"steps": 2}))
    out = runner.directory / "export"
    runner.run("export", runner.directory / "run", "--out", out)
    weights = load_file(out / "model.safetensors")
    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_a_directory_that_is_no_run(finished: Runner, tmp_path: Path) -> None:
    assert "not a run directory" in finished.run("export", tmp_path, "--out", tmp_path / "x", code=3).stderr


def test_a_prompt_of_unknown_language(finished: Runner, tmp_path: Path) -> None:
    (tmp_path / "prompt.xyz").write_text("hello")
    err = finished.run(
        "generate", finished.directory / "run", "--prompt-file", tmp_path / "prompt.xyz", code=2
    ).stderr
    assert "--language" in err
    assert "fortran-free" in err
