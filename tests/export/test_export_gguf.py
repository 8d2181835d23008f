"""A run becomes a GGUF file that transformers and llama.cpp load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from runner import Runner

from hpctrain.errors import ConfigError, DataError
from hpctrain.export import gguf_file
from hpctrain.export.gguf_file import export_gguf, rope_factors
from hpctrain.export.proof import as_trained, proof_prompt
from hpctrain.export.source import open_source
from hpctrain.model.config import ModelConfig, RopeScaling
from hpctrain.tokenizer.codec import Tokenizer

TEXTS = [
    b"  do i = 1, n\n\ty(i) = a*x(i) ! \xc3\xa9\xe2\x82\xac\n",
    b"#pragma omp parallel for\r\nfor (int i = 0; i < 1024; ++i) {\n",
    b" ",
    b"",
]


@pytest.fixture(scope="session", params=["fp16", "q8_0"])
def written(request: pytest.FixtureRequest, finished: Runner) -> Path:
    """The finished run as a GGUF file."""
    out = finished.directory / f"gguf-{request.param}"
    export_gguf(finished.directory / "run", out, request.param)
    [path] = out.glob("*.gguf")
    return path


def fields(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file."""
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def test_metadata_say_what_the_model_is(written: Path, finished: Runner) -> None:
    tokenizer = Tokenizer.load(finished.directory / "run/tokenizer")
    found = fields(written)
    assert {
        "general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 32,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 8,
        "llama.feed_forward_length": 64, "llama.context_length": 64, "llama.rope.freq_base": 10_000.0,
        "tokenizer.ggml.eos_token_id": tokenizer.special.end,
        "tokenizer.ggml.fim_mid_token_id": tokenizer.special.fim_middle,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False,
    }.items() <= found.items()  # fmt: skip
    kinds = np.array(found["tokenizer.ggml.token_type"])
    assert kinds[tokenizer.special.document] == gguf.TokenType.CONTROL
    assert (kinds == gguf.TokenType.BYTE).sum() == 256
    assert len(found["tokenizer.ggml.tokens"]) == tokenizer.vocab_size


def test_matrices_have_the_type_and_norms_stay_exact(written: Path, finished: Runner) -> None:
    wanted = gguf.GGMLQuantizationType.Q8_0 if "Q8_0" in written.name else gguf.GGMLQuantizationType.F16
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(written).tensors}
    assert {tensor.tensor_type for tensor in tensors.values()} == {wanted, gguf.GGMLQuantizationType.F32}
    with open_source(finished.directory / "run") as source:
        assert np.array_equal(tensors["output_norm.weight"].data, source.weights.read("norm.weight").numpy())
    assert "output.weight" not in tensors  # tied


def test_llama_cpp_loads_it_and_says_the_same(written: Path, finished: Runner) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(written), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    with open_source(finished.directory / "run") as source:
        head = b"<document><language:fortran-free><file_name>axpy.f90<content>"
        for text in TEXTS:
            assert model.tokenize(text, add_bos=False, special=False) == source.tokenizer.encode(text)
            document = source.tokenizer.encode_document("fortran-free", "axpy.f90", text)[:-1].tolist()
            assert model.tokenize(head + text, add_bos=False, special=True) == document
        tokens = proof_prompt(source)
        for _ in range(16):  # greedily, by llama.cpp
            model.reset()
            model.eval(tokens)
            tokens.append(int(np.argmax(model.scores[len(tokens) - 1])))
        theirs, ours = (
            np.array(model.scores[: len(tokens) - 1]),
            source.logits(tokens[:-1], as_trained).numpy(),
        )
    assert np.abs(theirs - ours).max() < 0.05 * np.abs(ours).max()
    start = len(tokens) - 17
    behind = (
        ours[start:].max(-1)
        - np.take_along_axis(ours[start:], np.array(tokens[start + 1 :])[:, None], 1)[:, 0]
    )
    assert behind.max() < 0.02 * np.abs(ours).max()  # what it chose is what we choose, but for near ties


def test_a_pipeline_s_untied_model_with_narrow_rows(
    untied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = export_gguf(untied, tmp_path / "out", "q8_0")
    assert "no Q8_0 block divides, and stay in F16" in capsys.readouterr().err
    [path] = (tmp_path / "out").glob("*.gguf")
    types = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.ffn_down.weight"] == gguf.GGMLQuantizationType.F16
    assert types["output.weight"] == gguf.GGMLQuantizationType.Q8_0
    assert manifest.details["largest_logit_difference"] < 1e-4


def test_rotary_pairs_that_are_not_neighbours_are_found_out(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unchanged(source: Any, config: Any, name: str) -> Any:
        return source.weights.read(name).numpy()

    monkeypatch.setattr(gguf_file, "_arranged", unchanged)
    with pytest.raises(DataError, match="nothing was published"):
        export_gguf(finished.directory / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_little_memory_for_the_comparison(
    finished: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "fits_in_memory", lambda source: False)
    with pytest.raises(ConfigError, match="GB of free memory"):
        export_gguf(finished.directory / "run", tmp_path / "out")


def test_factors_of_llama_3_1() -> None:
    scaling = RopeScaling(kind="llama3", factor=8.0, original_context=8192)
    shape = {"hidden_size": 64, "layers": 1, "heads": 1, "kv_heads": 1, "mlp_size": 8, "tied": True}
    model = ModelConfig(**shape, rope_theta=500_000.0, rope_scaling=scaling)
    factors = rope_factors(model)
    assert factors is not None
    assert factors[0] == 1.0  # the quickest is left alone
    assert factors[-1] == pytest.approx(8.0)  # the slowest is divided by the factor
    assert (np.diff(factors) >= 0).all()
    wavelength = 2 * np.pi * 500_000.0 ** (torch.arange(32) / 32)
    between = ((wavelength > 8192 / 4) & (wavelength < 8192)).numpy()
    assert ((factors[between] > 1) & (factors[between] < 8)).all()
    assert rope_factors(model.model_copy(update={"rope_scaling": None})) is None
