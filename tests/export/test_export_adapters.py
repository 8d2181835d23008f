"""A LoRA run's adapters in PEFT's format, and merged into the base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from runner import Runner
from safetensors.torch import load_file

from hpctrain.errors import CheckpointError, ConfigError, DataError
from hpctrain.export.adapters import WEIGHTS_NAME, export_adapters
from hpctrain.export.gguf_file import export_gguf
from hpctrain.export.hf import export_huggingface
from hpctrain.export.proof import as_trained, proof_prompt
from hpctrain.export.source import open_source


@pytest.fixture(scope="session")
def base(finished: Runner) -> Path:
    """The finished run in bf16, the base that adapters lie on."""
    export_huggingface(finished.directory / "run", finished.directory / "base", "bf16")
    return finished.directory / "base"


def test_peft_loads_them_on_the_exported_base(adapted: Path, base: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM, PeftConfig

    manifest = export_adapters(adapted, tmp_path / "out", base=base)
    assert manifest.details["proven_with"] == ["PEFT"]
    assert manifest.details["largest_logit_difference"] < 1e-4
    config = PeftConfig.from_pretrained(tmp_path / "out")
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (4, 8, str(base.resolve()))
    assert set(config.target_modules) == {"q_proj", "v_proj", "down_proj"}
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    with open_source(adapted) as source, torch.no_grad():
        tokens = proof_prompt(source)
        logits = theirs(torch.tensor([tokens])).logits[0]
        assert (logits - source.logits(tokens, as_trained)).abs().max() < 0.05  # the base is in bf16
        with theirs.disable_adapter():
            bare = theirs(torch.tensor([tokens])).logits[0]
        assert (logits - bare).abs().max() > 0.2  # the adapters say something


def test_merged_it_is_a_model_like_any_other(adapted: Path, finished: Runner, tmp_path: Path) -> None:
    manifest = export_huggingface(adapted, tmp_path / "out")
    assert manifest.details["largest_logit_difference"] < 1e-4
    export_huggingface(finished.directory / "run", tmp_path / "base")
    merged, before = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "base"))
    changed = {name.split(".")[-2] for name in merged if not torch.equal(merged[name], before[name])}
    assert changed == {"q_proj", "v_proj", "down_proj"}
    export_gguf(adapted, tmp_path / "gguf")
    assert "LoRA adapters of rank 4 that are merged here" in (tmp_path / "gguf/README.md").read_text()


def test_the_base_is_found_by_its_events(adapted: Path, base: Path, tmp_path: Path) -> None:
    export_adapters(adapted, tmp_path / "out", "bf16")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (Path(config["base_model_name_or_path"]) / "config.json").is_file()
    assert all(
        tensor.dtype == torch.bfloat16 for tensor in load_file(tmp_path / "out" / WEIGHTS_NAME).values()
    )


def test_a_base_that_is_not_theirs(adapted: Path, base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 1
    from safetensors.torch import save_file

    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="logits differ"):
        export_adapters(adapted, tmp_path / "out", base=other)
    assert not (tmp_path / "out").exists()


def test_a_base_with_another_vocabulary(adapted: Path, base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    model.save_pretrained(tmp_path / "grown")
    with pytest.raises(DataError, match="a vocabulary of 2056, the run one of 2048"):
        export_adapters(adapted, tmp_path / "out", base=tmp_path / "grown")


def test_what_is_missing_is_named(adapted: Path, finished: Runner, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trained all weights, no adapters"):
        export_adapters(finished.directory / "run", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no Hugging Face directory \(no config.json\)"):
        export_adapters(adapted, tmp_path / "out", base=tmp_path)


def test_a_base_that_was_never_exported(adapted: Path, finished: Runner, tmp_path: Path) -> None:
    shutil.copytree(finished.directory / "run", tmp_path / "start")
    (tmp_path / "start/events.jsonl").unlink()
    shutil.copytree(adapted, tmp_path / "lora")
    config = tmp_path / "lora/run.yaml"
    config.write_text(config.read_text().replace(str(finished.directory / "run"), str(tmp_path / "start")))
    with pytest.raises(ConfigError, match="exported nowhere that its events tell; export it first"):
        export_adapters(tmp_path / "lora", tmp_path / "out")
    shutil.rmtree(tmp_path / "start/checkpoints")
    with pytest.raises(CheckpointError, match="no longer has the checkpoint"):
        export_huggingface(tmp_path / "lora", tmp_path / "out")
