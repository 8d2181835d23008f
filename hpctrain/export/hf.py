"""A Hugging Face directory, written shard by shard, that downstream tools load as a Llama or Qwen2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hpctrain.errors import ConfigError, DataError
from hpctrain.export.card import model_card
from hpctrain.export.chat import chat_template
from hpctrain.export.proof import Proof, as_trained, check_tokenizer, fits_in_memory, prove
from hpctrain.export.publish import publish
from hpctrain.export.source import Source, Stored, open_source
from hpctrain.manifest import Manifest, StageWriter
from hpctrain.model.huggingface import huggingface_name, to_huggingface_config
from hpctrain.progress import progress, say
from hpctrain.tokenizer.huggingface import to_tokenizer_json, tokenizer_config

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SHARD_BYTES = 5_000_000_000


def export_huggingface(run: Path, out: Path, dtype: str = "fp32", shard_bytes: int = SHARD_BYTES) -> Manifest:
    """Write a run's newest whole checkpoint with tokenizer and model card, in the memory of one shard.

    `dtype` is one of DTYPES. The written directory is loaded with transformers and compared: logits, the
    tokenizer's ids and greedy text. Raises ConfigError for another type; DataError, and publishes nothing, if
    the comparison fails or the type cannot hold a weight.
    """
    check_dtype("hf", dtype, DTYPES)
    with open_source(run) as source:
        options = {"format": "hf", "dtype": dtype, "shard_bytes": str(shard_bytes)}
        return publish(
            source, out, options, lambda stage: _write(source, stage, out.name, dtype, shard_bytes)
        )


def check_dtype(format: str, dtype: str, valid: Iterable[str]) -> None:
    """Raise ConfigError for a type that a format does not have."""
    if dtype not in valid:
        raise ConfigError(f"--dtype: {format} has no {dtype}; valid: {', '.join(valid)}")


def _write(source: Source, stage: StageWriter, name: str, dtype: str, shard_bytes: int) -> Proof:
    write_weights(source.shapes, source.weights.read, stage, DTYPES[dtype], shard_bytes)
    write_tokenizer(source, stage)
    torch_name = str(DTYPES[dtype]).removeprefix("torch.")
    stage.write_json("config.json", huggingface_config(source) | {"dtype": torch_name})
    stage.write_json("generation_config.json", _generation_config(source))
    proof = _prove(source, stage.directory, dtype)
    stage.path("README.md").write_text(model_card(source, name, "hf", dtype), encoding="utf-8")
    return proof


def huggingface_config(source: Source) -> dict[str, Any]:
    """The content of `config.json`."""
    tokenizer = source.tokenizer
    return to_huggingface_config(source.config.model, tokenizer.vocab_size, source.context, tokenizer.special)


def _generation_config(source: Source) -> dict[str, Any]:
    special = source.tokenizer.special
    return {"bos_token_id": special.document, "eos_token_id": special.end, "pad_token_id": special.pad}


def write_tokenizer(source: Source, stage: StageWriter) -> None:
    """Write the files with which AutoTokenizer loads the directory."""
    stage.path("tokenizer.json").write_text(to_tokenizer_json(source.tokenizer), encoding="utf-8")
    config = tokenizer_config(source.tokenizer) | {"model_max_length": source.context}
    if source.config.data.template == "chat":
        config["chat_template"] = chat_template(source.tokenizer)
    stage.write_json("tokenizer_config.json", config)


def write_weights(
    shapes: Mapping[str, torch.Size],
    read: Callable[[str], Tensor],
    stage: StageWriter,
    dtype: torch.dtype,
    shard_bytes: int,
) -> None:
    """Write safetensors files of at most `shard_bytes` (a larger weight stands alone), and their index.

    No more than one file's weights are in memory. Raises DataError for a weight that `dtype` cannot hold.
    """
    shards = plan_shards(shapes, dtype.itemsize, shard_bytes)
    places: dict[str, str] = {}
    with progress("export", sum(map(len, shards)), "weights") as bar:
        for number, names in enumerate(shards, 1):
            file = (
                f"model-{number:05d}-of-{len(shards):05d}.safetensors"
                if len(shards) > 1
                else "model.safetensors"
            )
            content = {huggingface_name(name): convert(name, read(name), dtype) for name in names}
            save_safetensors(content, stage.path(file))
            places |= dict.fromkeys(content, file)
            del content
            stage.seal(file)
            bar.advance(len(names))
    if len(shards) > 1:
        elements = sum(shape.numel() for shape in shapes.values())
        sizes = {"total_parameters": elements, "total_size": elements * dtype.itemsize}
        stage.write_json("model.safetensors.index.json", {"metadata": sizes, "weight_map": places})


def save_safetensors(content: Mapping[str, Tensor], path: Path) -> None:
    """Write a file that those may read who may read its directory."""
    save_file(dict(content), path, metadata={"format": "pt"})
    path.chmod(path.parent.stat().st_mode & 0o666)  # the library leaves it to its owner


def plan_shards(shapes: Mapping[str, torch.Size], item_bytes: int, shard_bytes: int) -> list[list[str]]:
    """Names of the weights of each file, in order."""
    shards: list[list[str]] = []
    room = 0
    for name, shape in shapes.items():
        size = shape.numel() * item_bytes
        if not shards or size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def convert(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in `dtype`. Raises DataError if a number of it is not finite there."""
    converted = weight.to(dtype)
    if not bool(converted.isfinite().all()):
        largest = float(weight.abs().max())
        raise DataError(f"{name}: holds {largest:.3g}, which {dtype} cannot; export with another --dtype")
    return converted.contiguous()


def _prove(source: Source, directory: Path, dtype: str) -> Proof:
    """Load what was written with transformers and compare."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    theirs = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    check_tokenizer(lambda text: theirs.encode(text, add_special_tokens=False), source, directory)
    place: dict[str, Any] = {}
    if not fits_in_memory(source):
        say(f"{directory}: larger than half of the free memory, so the proof reads it layer by layer")
        place = {"device_map": {"": "disk"}, "offload_folder": directory.parent}
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, **place
    )
    return prove(model.eval(), source, rounding(dtype), directory)


def rounding(dtype: str) -> Stored:
    """What becomes of a weight that is stored in `dtype`."""
    return as_trained if dtype == "fp32" else lambda name, weight: weight.to(DTYPES[dtype]).float()
