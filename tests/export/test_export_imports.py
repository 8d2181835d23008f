"""Imported models with tokenizers of their own become GGUF files; llama.cpp says the same of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import pytest

from hpctrain.corpus.document import LANGUAGES
from hpctrain.errors import ConfigError
from hpctrain.export.gguf_file import export_gguf
from hpctrain.export.hf import export_huggingface
from hpctrain.export.source import open_source
from hpctrain.importing.huggingface import import_huggingface

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = {
    "llama3": CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,
    "qwen2": CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST,
}
SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64, "rope_theta": 10_000.0,
}  # fmt: skip
CASES = {
    "llama2": ("llama2", {}, "llama", "default"),
    "llama3-scaled": ("llama3", {"rope_parameters": SCALING}, "gpt2", "llama-bpe"),
    "llama3-biases": ("llama3", {"attention_bias": True}, "gpt2", "llama-bpe"),
    "qwen2": ("qwen2", {}, "gpt2", "qwen2"),
}
TEXTS = [
    b"  do i = 1, n\n\ty(i) = a*x(i) ! \xc3\xa9\xe2\x82\xac\n",
    b"#pragma omp parallel for\r\nfor (int i = 0; i < 1024; ++i) {\n",
    b"It's DON'T  x\n\n\n  y 12345",
    b" ",
]


@pytest.fixture(scope="module")
def foreign() -> ModuleType:
    """The small models that the tests of imports make."""
    path = Path(__file__).parents[1] / "importing/foreign_models.py"
    spec = importlib.util.spec_from_file_location("foreign_models_of_imports", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported(foreign: ModuleType, directory: Path, family: str, settings: dict[str, Any]) -> Path:
    (directory / "hf").mkdir()
    foreign.write_model(directory / "hf", family, **settings)
    import_huggingface(directory / "hf", directory / "imported", LANGUAGES)
    return directory / "imported"


@pytest.mark.parametrize("case", CASES)
def test_an_imported_model_is_written_and_proven(
    foreign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    family, settings, kind, words = CASES[case]
    monkeypatch.setattr(foreign, "SPLIT", WORDS.get(family, ""))
    run = imported(foreign, tmp_path, family, settings)
    manifest = export_gguf(run, tmp_path / "out")
    assert manifest.details["largest_logit_difference"] < 1e-4
    [path] = (tmp_path / "out").glob("*.gguf")
    reader = gguf.GGUFReader(path)
    found = {name: field.contents() for name, field in reader.fields.items()}
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == (kind, words)
    assert found["general.architecture"] == ("qwen2" if family == "qwen2" else "llama")
    names = {tensor.name for tensor in reader.tensors}
    assert ("rope_freqs.weight" in names) == ("rope_parameters" in settings)
    assert ("blk.0.attn_q.bias" in names) == (family == "qwen2" or "attention_bias" in settings)


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_cuts_text_as_the_model_s_own_tokenizer(
    foreign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    family, settings, _, _ = CASES[case]
    monkeypatch.setattr(foreign, "SPLIT", WORDS.get(family, ""))
    run = imported(foreign, tmp_path, family, settings)
    assert export_gguf(run, tmp_path / "out").details["proven_with"] == ["transformers", "llama.cpp"]
    [path] = (tmp_path / "out").glob("*.gguf")
    model = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    with open_source(run) as source:
        for text in TEXTS:
            ids = source.tokenizer.encode(text)
            assert model.tokenize(text, add_bos=False, special=False) == ids
            model.reset()
            model.eval(ids)
            ours = source.logits(ids, lambda name, weight: weight).numpy()
            assert np.abs(model.scores[: len(ids)] - ours).max() < 0.05 * np.abs(ours).max()


def test_the_hugging_face_export_of_an_import_is_loaded_again(foreign: ModuleType, tmp_path: Path) -> None:
    run = imported(foreign, tmp_path, "qwen2", {})
    manifest = export_huggingface(run, tmp_path / "out", "bf16")
    assert manifest.details["largest_logit_difference"] < 1e-4
    card = (tmp_path / "out/README.md").read_text()
    assert "`hf` as it was imported" in card
    assert "`<|fim_prefix|>`" in card


def test_a_way_to_cut_words_that_llama_cpp_does_not_know(foreign: ModuleType, tmp_path: Path) -> None:
    run = imported(foreign, tmp_path, "llama3", {})  # without contractions, as no model has it
    with pytest.raises(ConfigError, match=r"cuts text into words .*known: llama-bpe, qwen2"):
        export_gguf(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
