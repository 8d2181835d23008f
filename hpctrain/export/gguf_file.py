"""GGUF files for llama.cpp and what builds on it, written one weight at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from hpctrain.errors import ConfigError, DataError
from hpctrain.export.card import model_card
from hpctrain.export.chat import chat_template
from hpctrain.export.gguf_tokenizer import add_tokenizer
from hpctrain.export.hf import check_dtype, convert, huggingface_config
from hpctrain.export.proof import Proof, check_tokenizer, fits_in_memory, proof_prompt, prove
from hpctrain.export.publish import publish
from hpctrain.export.source import Source, Stored, open_source
from hpctrain.manifest import Manifest, StageWriter
from hpctrain.model.blocks import rotary_frequencies
from hpctrain.model.config import ModelConfig
from hpctrain.model.huggingface import huggingface_name
from hpctrain.progress import progress, say

TYPES: dict[str, tuple[Type, gguf.LlamaFileType]] = {
    "fp32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "bf16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "fp16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_UNREAD = ("rope_parameters", "attention_bias")
"""Settings that the file holds for llama.cpp, and that transformers takes from no file of its kind."""
_LLAMA_CPP_TOLERANCE = 0.05  # of the largest logit; a wrong rotation is off by more than all of it
_Array = npt.NDArray[Any]


def export_gguf(run: Path, out: Path, dtype: str = "fp16") -> Manifest:
    """Write a run's newest whole checkpoint as one GGUF file, with tokenizer and model card.

    `dtype` is that of the matrices, one of TYPES; norms and biases stay in fp32. The file is loaded with
    transformers and compared: logits and greedy text. Raises DataError, and publishes nothing, if they
    differ; ConfigError for another type, or if this machine has no memory for the comparison.
    """
    check_dtype("gguf", dtype, TYPES)
    with open_source(run) as source:
        if not fits_in_memory(source):
            raise ConfigError(
                f"--format gguf: to compare what is written, {8 * source.parameters / 1e9:.0f} GB of free "
                "memory are wanted; use a machine that has them"
            )
        options = {"format": "gguf", "dtype": dtype}
        return publish(source, out, options, lambda stage: _write(source, stage, out.name, dtype))


def _write(source: Source, stage: StageWriter, name: str, dtype: str) -> Proof:
    file = f"{source.config.run.name}-{TYPES[dtype][0].name}.gguf"
    write_gguf(source, stage.path(file), name, dtype)
    stage.seal(file)
    proof = _prove(source, stage.directory / file, dtype)
    facts = {"file": file}
    stage.path("README.md").write_text(model_card(source, name, "gguf", dtype, facts), encoding="utf-8")
    return proof


def write_gguf(source: Source, path: Path, name: str, dtype: str) -> None:
    """Write the file; never more than one weight is in memory."""
    config = huggingface_config(source)
    writer = gguf.GGUFWriter(path, config["model_type"])
    _add_settings(writer, config, source, name, dtype)
    add_tokenizer(writer, source.tokenizer)
    if source.config.data.template == "chat":
        writer.add_chat_template(chat_template(source.tokenizer))
    plan = list(_plan(source, config, dtype))
    for tensor_name, _, shape, kind in plan:
        stored = gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(tensor_name, stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with progress("export", len(plan), "weights") as bar:
        for _, parameter, _, kind in plan:
            weight = (
                rope_factors(source.config.model)
                if parameter is None
                else _arranged(source, config, parameter)
            )
            assert weight is not None  # planned only where there are some
            if kind is Type.F16:
                convert(parameter or "", torch.from_numpy(weight), torch.float16)
            writer.write_tensor_data(gguf.quants.quantize(weight, kind).view(np.uint8))
            bar.advance()
    writer.close()


def _add_settings(
    writer: gguf.GGUFWriter, config: dict[str, Any], source: Source, name: str, dtype: str
) -> None:
    """What llama.cpp must know of the model besides its weights."""
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(TYPES[dtype][1])
    if dtype == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


_Planned = tuple[str, str | None, tuple[int, ...], Type]
"""Name in the file, our name (None: the factors of the rotary frequencies), shape, type."""


def _plan(source: Source, config: dict[str, Any], dtype: str) -> Iterator[_Planned]:
    """Every tensor of the file in order."""
    architecture = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[config["model_type"]]
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    if (factors := rope_factors(source.config.model)) is not None:
        yield "rope_freqs.weight", None, factors.shape, Type.F32
    for name, shape in source.shapes.items():
        module, kind = huggingface_name(name).rsplit(".", 1)
        yield f"{names.get_name(module)}.{kind}", name, tuple(shape), _type_of(shape, dtype)
    narrow = [name for name, shape in source.shapes.items() if _is_too_narrow(shape, dtype)]
    if narrow:
        say(f"{len(narrow)} weights have rows that no Q8_0 block divides, and stay in F16: {narrow[0]} …")


def _type_of(shape: torch.Size, dtype: str) -> Type:
    """Norms and biases stay in fp32, as llama.cpp wants them."""
    if len(shape) < 2:
        return Type.F32
    return Type.F16 if _is_too_narrow(shape, dtype) else TYPES[dtype][0]


def _is_too_narrow(shape: torch.Size, dtype: str) -> bool:
    block: int = gguf.GGML_QUANT_SIZES[TYPES[dtype][0]][0]
    return len(shape) > 1 and shape[-1] % block != 0


def _arranged(source: Source, config: dict[str, Any], name: str) -> _Array:
    """A weight as llama.cpp wants it: for the architecture llama, rotary pairs are neighbours."""
    weight = source.weights.read(name)
    heads = {"query": "num_attention_heads", "key": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is not None and config["model_type"] == "llama":
        weight = weight.reshape(config[heads], 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
    return weight.contiguous().numpy()


def rope_factors(model: ModelConfig) -> _Array | None:
    """By what llama.cpp shall divide each rotary frequency under Llama 3.1's scaling; None without it."""
    if model.rope_scaling is None or model.rope_scaling.kind != "llama3":
        return None
    plain, scaled = (
        rotary_frequencies(model.head_size, model.rope_theta, scaling, torch.device("cpu"))
        for scaling in (None, model.rope_scaling)
    )
    factors: _Array = (plain / scaled).numpy()
    return factors


def _prove(source: Source, path: Path, dtype: str) -> Proof:
    """Load what was written with transformers, and with llama.cpp where it is installed, and compare."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    for name in _UNREAD:
        wanted = huggingface_config(source).get(name)
        if wanted is not None and getattr(config, name, None) != wanted:
            say(f"{path.name}: transformers does not read {name} from such a file, and was told of it")
            setattr(config, name, wanted)
    theirs = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=config, dtype=torch.float32, local_files_only=True
    )

    def stored(name: str, weight: Tensor) -> Tensor:
        kind = _type_of(weight.shape, dtype)
        values = gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)
        return torch.from_numpy(values.reshape(weight.shape))

    proof = prove(theirs.eval(), source, stored, path)
    if find_spec("llama_cpp") is None:
        say(f"{path.name}: llama-cpp-python is not installed, so the tokenizer in the file was not compared")
        return proof
    _compare_with_llama_cpp(source, path, stored)
    return replace(proof, tools=("transformers", "llama.cpp"))


def _compare_with_llama_cpp(source: Source, path: Path, stored: Stored) -> None:
    """Compare ids and, within its own arithmetic in 16 bits and fewer, logits. Raises DataError."""
    tokens = proof_prompt(source)
    llama_cpp = import_module("llama_cpp")
    model = llama_cpp.Llama(str(path), n_ctx=len(tokens), logits_all=True, verbose=False)
    check_tokenizer(lambda text: model.tokenize(text.encode(), add_bos=False), source, path)
    model.eval(tokens)
    ours = source.logits(tokens, stored)
    difference = float((torch.tensor(model.scores[: len(tokens)]) - ours).abs().max())
    if not difference <= _LLAMA_CPP_TOLERANCE * float(ours.abs().max()):
        raise DataError(f"{path}: llama.cpp's logits differ by {difference:.1e}; nothing was published")
