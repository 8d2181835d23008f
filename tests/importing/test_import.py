"""A model of another family becomes a directory that is used like a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runner import Runner
from safetensors.torch import load_file, save_file

from hpctrain.cli.main import app
from hpctrain.corpus.document import LANGUAGES
from hpctrain.errors import ConfigError, DataError
from hpctrain.generation.text import TextPrompt, prompt_ids
from hpctrain.importing.huggingface import import_huggingface
from hpctrain.shards.pack import build_shards
from hpctrain.tokenizer.foreign import ForeignTokenizer
from hpctrain.train.trained import Trained, find_origin, load_trained

sys.path.insert(0, str(Path(__file__).parent))
from foreign_models import write_model

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama3": {"family": "llama3", "rope_parameters": LLAMA3_ROPE},
    "qwen2-tied": {"family": "qwen2", "tie_word_embeddings": True, "rows": 40},
    "llama2-biases": {"family": "llama2", "attention_bias": True, "head_dim": 16, "shard_size": "20KB"},
}


def run_import(source: Path, out: Path, **options: Any) -> None:
    import_huggingface(source, out, LANGUAGES, **options)


@pytest.fixture(scope="module", params=sorted(KINDS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp(request.param) / "base", **KINDS[request.param])


@pytest.fixture(scope="module")
def imported(source: Path) -> Trained:
    run_import(source, source.parent / "imported")
    return load_trained(source.parent / "imported")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A small model to spoil."""
    return write_model(tmp_path / "base")


def spoil_config(base: Path, **changes: Any) -> None:
    tree = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**tree, **changes}))


def spoil_weights(base: Path, changes: dict[str, Any]) -> None:
    weights = {**load_file(base / "model.safetensors"), **changes}
    save_file(
        {name: weight for name, weight in weights.items() if weight is not None}, base / "model.safetensors"
    )


def test_logits_are_those_of_transformers(source: Path, imported: Trained) -> None:
    from transformers import AutoModelForCausalLM

    assert isinstance(imported.tokenizer, ForeignTokenizer)
    known = imported.tokenizer.marks.known
    theirs = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokens = torch.randint(known, (1, 200), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = theirs(tokens).logits[..., :known]
        found = imported.model(tokens, torch.tensor([0, 200], dtype=torch.int32))[..., :known]
    assert float(expected.std()) > 0.5
    assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_rows_that_the_model_never_saw_are_the_mean_of_the_others(imported: Trained) -> None:
    assert isinstance(imported.tokenizer, ForeignTokenizer)
    marks = imported.tokenizer.marks
    embedding = imported.model.get_parameter("embedding.weight").detach()
    assert marks.added
    for id_ in marks.added:
        torch.testing.assert_close(embedding[id_], embedding[: marks.known].mean(0))
    assert not torch.equal(embedding[0], embedding[1])


def test_prompts_are_of_what_the_model_knows(imported: Trained) -> None:
    """Until it is trained here, the head of our documents is no text that it has met."""
    tokenizer, special = imported.tokenizer, imported.tokenizer.special
    ids = prompt_ids(tokenizer, TextPrompt(b"int i;", "c", "a.c"), imported.unseen)
    own = [special.document] if special.document not in imported.unseen else []
    assert ids == [*own, *tokenizer.encode(b"int i;")]
    gap = TextPrompt(b"int i", "c", "a.c", suffix=b";")
    if special.fim_middle in imported.unseen:
        with pytest.raises(DataError, match="no tokens to fill a gap with"):
            prompt_ids(tokenizer, gap, imported.unseen)
    else:
        assert prompt_ids(tokenizer, gap, imported.unseen)[-1] == special.fim_middle
    assert special.content in prompt_ids(tokenizer, gap), "once it is trained, as any run"


def test_the_second_time_it_is_up_to_date_and_never_overwritten(
    source: Path, imported: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import(source, imported.run)
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(DataError, match="made from another context"):
        run_import(source, imported.run, context=64)


def command(*arguments: object) -> None:
    """Run a command in this process: starting one takes longer than most commands."""
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.ranks
def test_the_whole_way_to_an_export(
    tmp_path: Path, corpus_directory: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Import, shards, fine-tuning on two ranks, evaluation, generation, export, and import of that."""
    source = write_model(tmp_path / "base", "qwen2", rope_parameters=None, tie_word_embeddings=True)
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    runner, imported = Runner(tmp_path, tmp_path / "shards"), tmp_path / "imported"
    command("import", "hf", source, "--out", imported, "--context", 128)
    assert b"12 tokens were added" in capfdbinary.readouterr().err
    build_shards(corpus_directory, imported / "tokenizer", runner.shards)
    model = yaml.safe_load((imported / "run.yaml").read_text())["model"]
    config = runner.config(
        model=model, run={"start_from": str(imported)}, train={"steps": 2},
        data={"sequence_length": 128, "fim": {"rate": 0.5}},
    )  # fmt: skip
    assert "beginning with the weights of" in runner.run("finetune", config, "--ranks", 2).stderr
    origin = find_origin(tmp_path / "run")
    assert origin is not None
    assert (origin.name, origin.licence) == ("base", "apache-2.0")
    for place in (imported, tmp_path / "run"):
        command("evaluate", place, "--suite", "bits-per-byte", "--shards", runner.shards, "--limit", 2)
    assert b"fortran-free" in capfdbinary.readouterr().out
    (tmp_path / "axpy.f90").write_text("do i = 1, n\n")
    command("generate", imported, "--prompt-file", tmp_path / "axpy.f90", "--max-tokens", 8)
    assert len(capfdbinary.readouterr().out) > 1
    command("export", tmp_path / "run", "--format", "hf", "--out", tmp_path / "export")
    assert json.loads((tmp_path / "export" / "config.json").read_text())["model_type"] == "qwen2"
    command("import", "hf", tmp_path / "export", "--out", tmp_path / "again")
    assert b"tokens were added" not in capfdbinary.readouterr().err
    again, trained = load_trained(tmp_path / "again"), load_trained(tmp_path / "run")
    assert trained.unseen == frozenset()
    assert again.tokenizer.special == trained.tokenizer.special
    for name, weight in trained.model.named_parameters():
        torch.testing.assert_close(again.model.get_parameter(name), weight, rtol=0, atol=0)


def test_every_setting_that_is_not_supported_is_named(base: Path, tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0}
    odd = {"hidden_act": "gelu", "mlp_bias": True, "sliding_window": 64, "quantization_config": {"bits": 4}}
    spoil_config(base, rope_scaling=yarn, new_idea=3, **odd)
    with pytest.raises(ConfigError) as caught:
        run_import(base, tmp_path / "out")
    for name in ("hidden_act", "mlp_bias", "quantization_config", "yarn", "sliding_window", "new_idea"):
        assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_setting_that_is_not_known_can_be_accepted_by_name(base: Path, tmp_path: Path) -> None:
    spoil_config(base, new_idea=3)
    with pytest.raises(ConfigError, match="new_idea: not known here"):
        run_import(base, tmp_path / "out")
    run_import(base, tmp_path / "out", accept=["new_idea"])


def test_other_families_are_refused(base: Path, tmp_path: Path) -> None:
    spoil_config(base, model_type="gpt_neox")
    with pytest.raises(ConfigError, match="'gpt_neox' is not supported; supported: llama, qwen2"):
        run_import(base, tmp_path / "out")


def test_a_context_that_the_model_does_not_have(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--context: 512 is more than the 256"):
        run_import(base, tmp_path / "out", context=512)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.norm.weight": None}, "lacks model.norm.weight"),
        ({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}, "has no place for: model.layers.0"),
        ({"model.norm.weight": torch.ones(31)}, "model.norm.weight is 31, config.json says 32"),
        ({"model.norm.weight": torch.full((32,), float("nan"))}, "values that are not finite"),
        ({"model.norm.weight": torch.ones(32, dtype=torch.int8)}, "quantised weights are not read"),
    ],
)
def test_weights_that_do_not_fit(base: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    spoil_weights(base, changes)
    with pytest.raises(DataError, match=message):
        run_import(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_that_is_tied_by_word_only(base: Path, tmp_path: Path) -> None:
    spoil_config(base, tie_word_embeddings=True)
    with pytest.raises(DataError, match=r"differs from model\.embed_tokens\.weight"):
        run_import(base, tmp_path / "out")


def damage_truncate(base: Path) -> None:
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[:-100])


def damage_header(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"\xff" * 200)


def damage_missing(base: Path) -> None:
    (base / "model.safetensors").unlink()


def damage_pickle(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def damage_index(base: Path) -> None:
    (base / "model.safetensors.index.json").write_text('{"weight_map": 3}')


def damage_index_elsewhere(base: Path) -> None:
    places = {"model.norm.weight": "../model.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def damage_index_name(base: Path) -> None:
    places = {"model.norm.bias": "model.safetensors"}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "not a readable safetensors file"),
        (damage_header, "not a readable safetensors file"),
        (damage_missing, "has no model.safetensors"),
        (damage_pickle, "pickled weights, which are not read"),
        (damage_index, "not a readable index"),
        (damage_index_elsewhere, "names files elsewhere"),
        (damage_index_name, "names tensors that are not in their files: model.norm.bias"),
    ],
)
def test_damaged_or_foreign_files(base: Path, tmp_path: Path, damage: Any, message: str) -> None:
    damage(base)
    with pytest.raises(DataError, match=message):
        run_import(base, tmp_path / "out")


def test_a_shard_that_is_missing(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", shard_size="20KB")
    (base / "model-00002-of-00007.safetensors").unlink(missing_ok=True)
    next(iter(sorted(base.glob("model-*.safetensors")))).unlink()
    with pytest.raises(DataError, match=r"lacks model-0000.*which model.safetensors.index.json names"):
        run_import(base, tmp_path / "out")


def test_a_tokenizer_of_another_model(base: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", "llama2")
    for path in other.glob("tokenizer*"):
        shutil.copy(path, base)
    with pytest.raises(DataError, match="it is the tokenizer of another model"):
        run_import(base, tmp_path / "out")


def test_an_end_that_differs_is_told(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil_config(base, eos_token_id=[5, 6])
    run_import(base, tmp_path / "out")
    assert "config.json ends text by id [5, 6], its tokenizer by" in capsys.readouterr().err


def test_what_is_not_proven_is_not_published(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpctrain.model import huggingface

    swapped = {"attention.key": "self_attn.v_proj", "attention.value": "self_attn.k_proj"}
    monkeypatch.setattr(huggingface, "_LAYER_NAMES", {**huggingface._LAYER_NAMES, **swapped})
    with pytest.raises(DataError, match="nothing was published"):
        run_import(base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong(runner: Runner, tmp_path: Path) -> None:
    err = runner.run("import", "hf", tmp_path / "none", "--out", tmp_path / "out", code=3).stderr
    assert "no such directory; download the model first" in err
