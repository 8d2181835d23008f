"""A run becomes a Hugging Face directory that was proven before it was published."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runner import STEPS, Runner
from safetensors.torch import load_file

from hpctrain.cli.export import DType, Format, export
from hpctrain.errors import CheckpointError, ConfigError, DataError
from hpctrain.export.hf import convert, export_huggingface, plan_shards, write_weights
from hpctrain.manifest import StageWriter
from hpctrain.model import huggingface

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


def test_others_may_read_it(exported: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in exported.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_it_is_up_to_date_the_second_time_and_never_overwritten(
    finished: Runner, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_huggingface(finished.directory / "run", exported)
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(DataError, match="made from another dtype"):
        export_huggingface(finished.directory / "run", exported, "bf16")
    other = finished.directory / "two-steps"
    shutil.copytree(finished.directory / "run", other)
    for step in (4, 6):
        shutil.rmtree(other / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(DataError, match="its export was made from another checkpoint"):
        export_huggingface(other, exported)


@pytest.mark.parametrize(("dtype", "stored"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_in_several_files(
    finished: Runner, exported: Path, tmp_path: Path, dtype: str, stored: torch.dtype
) -> None:
    from transformers import AutoModelForCausalLM

    manifest = export_huggingface(finished.directory / "run", tmp_path / "out", dtype, shard_bytes=20_000)
    files = sorted((tmp_path / "out").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    halves = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 2
    assert set(index["weight_map"]) == set(halves)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in halves.values())
    for name, weight in load_file(exported / "model.safetensors").items():
        assert torch.equal(halves[name], weight.to(stored)), name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == stored
    assert manifest.details["largest_logit_difference"] < 1e-4
    assert manifest.details["largest_rounding_difference"] > manifest.details["largest_logit_difference"]


def test_a_model_larger_than_memory_is_proven_layer_by_layer(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpctrain.export import hf

    monkeypatch.setattr(hf, "fits_in_memory", lambda source: False)
    export_huggingface(finished.directory / "run", tmp_path / "out", "bf16", shard_bytes=100_000)
    assert "layer by layer" in capsys.readouterr().err


def test_what_is_not_proven_is_not_published(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(huggingface._LAYER_NAMES, "attention.key", "self_attn.v_proj")
    monkeypatch.setitem(huggingface._LAYER_NAMES, "attention.value", "self_attn.k_proj")
    with pytest.raises(DataError, match="nothing was published"):
        export_huggingface(finished.directory / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_untied_weights_from_a_pipeline(untied: Path, tmp_path: Path) -> None:
    export_huggingface(untied, tmp_path / "out")
    weights = load_file(tmp_path / "out/model.safetensors")
    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_a_directory_that_is_no_run(finished: Runner, tmp_path: Path) -> None:
    assert "not a run directory" in finished.run("export", tmp_path, "--out", tmp_path / "x", code=3).stderr


def test_a_directory_that_holds_something_else(finished: Runner, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="holds something that is no export"):
        export_huggingface(finished.directory / "run", tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_run_that_takes_no_notes(
    finished: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.directory / "run", tmp_path / "run")
    (tmp_path / "run/events.jsonl").unlink()
    (tmp_path / "run/events.jsonl").symlink_to(tmp_path / "nowhere/events.jsonl")
    export_huggingface(tmp_path / "run", tmp_path / "out")
    assert "the export is not noted in" in capsys.readouterr().err
    assert (tmp_path / "out/model.safetensors").is_file()


def test_a_config_of_another_model(finished: Runner, tmp_path: Path) -> None:
    shutil.copytree(finished.directory / "run", tmp_path / "run")
    config = tmp_path / "run/run.yaml"
    config.write_text(config.read_text().replace("mlp_size: 64", "mlp_size: 72"))
    with pytest.raises(
        CheckpointError, match=r"does not fit the model of run\.yaml: block_0\.mlp\.down\.weight"
    ):
        export_huggingface(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": DType.q8_0}, "--dtype: hf has no q8_0; valid: fp32, bf16, fp16"),
        ({"base": Path("x")}, "--base: only --format peft"),
        ({"format": Format.gguf, "shard_gb": 1.0}, "--shard-gb: only --format hf"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        export(tmp_path, tmp_path / "out", **options)


def test_the_events_tell_of_it(finished: Runner, exported: Path) -> None:
    told = [event for event in finished.events() if event.get("path") == str(exported)]
    wanted = {"event": "export", "format": "hf", "dtype": "fp32", "step": STEPS}
    assert [wanted.items() <= event.items() for event in told] == [True]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200))
def test_files_hold_every_weight_in_order_and_no_more_than_they_may(sizes: list[int], room: int) -> None:
    shapes = {f"w{number}": torch.Size([size]) for number, size in enumerate(sizes)}
    shards = plan_shards(shapes, 2, room)
    assert [name for shard in shards for name in shard] == list(shapes)
    for shard in shards:
        assert len(shard) == 1 or sum(2 * shapes[name].numel() for name in shard) <= room


def test_no_more_than_a_file_is_in_memory(tmp_path: Path) -> None:
    shapes = {f"block_{number}.mlp.up.weight": torch.Size([100, 10]) for number in range(12)}
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def read(name: str) -> torch.Tensor:
        nonlocal most
        weight = torch.ones(shapes[name])
        alive.append(weakref.ref(weight))
        most = max(most, sum(each() is not None for each in alive))
        return weight

    write_weights(shapes, read, StageWriter(tmp_path), torch.float32, shard_bytes=3 * 4000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 4
    assert most <= 3


def test_a_number_that_a_type_cannot_hold() -> None:
    weight = torch.tensor([1.0, 70_000.0])
    with pytest.raises(DataError, match=r"head\.weight: holds 7e\+04, which torch.float16 cannot"):
        convert("head.weight", weight, torch.float16)
    assert torch.equal(convert("head.weight", weight, torch.float32), weight)


def test_a_type_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hf has no int4"):
        export_huggingface(tmp_path, tmp_path / "out", "int4")
