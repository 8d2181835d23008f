"""A LoRA run's adapters in PEFT's format, beside the base that they change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpctrain.checkpoint.weights import MergedWeights
from hpctrain.errors import ConfigError, DataError
from hpctrain.export.card import model_card
from hpctrain.export.hf import DTYPES, check_dtype, convert, rounding, save_safetensors, write_tokenizer
from hpctrain.export.proof import Proof, prove
from hpctrain.export.publish import EXPORT_FORMAT, EXPORT_KIND, publish
from hpctrain.export.source import Source, open_source
from hpctrain.manifest import Manifest, StageWriter, is_finished, read_manifest
from hpctrain.model.adapter import AdapterConfig
from hpctrain.model.huggingface import huggingface_name
from hpctrain.model.lora import adapted_weight, adapter_names, merge
from hpctrain.model.quiet import quiet_imports
from hpctrain.train.metrics import EVENTS_NAME, read_events

WEIGHTS_NAME = "adapter_model.safetensors"
_BITS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def export_adapters(run: Path, out: Path, dtype: str = "fp32", base: Path | None = None) -> Manifest:
    """Write the adapters of a run's newest whole checkpoint, for `PeftModel.from_pretrained`.

    `dtype` is one of DTYPES. `base` is the Hugging Face directory of the model that they change; by default
    the newest export of the run's `run.start_from`. Base and adapters are loaded with PEFT and compared
    with the merged model. Raises ConfigError if the run has no adapters or the base is not known,
    DataError, and publishes nothing, if the comparison fails.
    """
    check_dtype("peft", dtype, DTYPES)
    with open_source(run) as source:
        weights, adapter = source.weights, source.config.adapter
        if adapter is None or not isinstance(weights, MergedWeights):
            raise ConfigError(
                f"--format peft: {run} trained all weights, no adapters; export it with --format hf"
            )
        place = (base or _exported_base(source)).resolve()
        if not (place / "config.json").is_file():
            raise ConfigError(f"--base: {place} is no Hugging Face directory (no config.json)")
        options = {"format": "peft", "dtype": dtype, "base": str(place)}

        def write(stage: StageWriter) -> Proof:
            _write_adapters(weights, adapter, stage, DTYPES[dtype], place)
            write_tokenizer(source, stage)
            proof = _prove(source, weights, stage.directory, dtype, place)
            card = model_card(source, out.name, "peft", dtype, {"base": str(place)})
            stage.path("README.md").write_text(card, encoding="utf-8")
            return proof

        return publish(source, out, options, write)


def _exported_base(source: Source) -> Path:
    """The newest export of the run that this one began with. Raises ConfigError if there is none any more."""
    start = source.config.run.start_from
    assert start is not None  # a config with an adapter has one
    events = read_events(start) if (start / EVENTS_NAME).is_file() else []
    for event in reversed(events):
        if event.get("event") == "export" and event.get("format", "hf") == "hf":
            place = Path(event["path"])
            if is_finished(place) and _is_of(place, source):
                return place
    raise ConfigError(
        f"--format peft: the base {start} is exported nowhere that its events tell; export it first "
        f"(hpctrain export {start} --out DIR) or name its Hugging Face directory with --base"
    )


def _is_of(export: Path, source: Source) -> bool:
    """Whether an export was made from the checkpoint that the run's adapters change."""
    from hpctrain.train.config import BASE_INPUT

    try:
        inputs = read_manifest(export, EXPORT_KIND, EXPORT_FORMAT).inputs
    except DataError:
        return False
    return inputs.get("checkpoint") == source.whole.manifest.inputs.get(BASE_INPUT)


def _write_adapters(
    weights: MergedWeights, adapter: AdapterConfig, stage: StageWriter, dtype: torch.dtype, base: Path
) -> None:
    with quiet_imports():
        from peft import LoraConfig

    content = {}
    for name in weights.adapters.shapes:
        content[peft_name(name)] = convert(name, weights.adapters.read(name), dtype)
    save_safetensors(content, stage.path(WEIGHTS_NAME))
    targets = sorted({name.split(".")[-3] for name in content})
    LoraConfig(
        r=adapter.rank, lora_alpha=_whole(adapter.alpha), lora_dropout=adapter.dropout,
        target_modules=targets, bias="none", task_type="CAUSAL_LM",
        base_model_name_or_path=str(base), inference_mode=True,
    ).save_pretrained(stage.directory)  # fmt: skip


def _whole(alpha: float) -> float:
    """As PEFT has it: a whole number where it is one."""
    return int(alpha) if alpha == int(alpha) else alpha


def peft_name(name: str) -> str:
    """PEFT's spelling of an adapter's matrix, such as `base_model.model.….q_proj.lora_A.weight`."""
    module = huggingface_name(adapted_weight(name)).removesuffix(".weight")
    matrix = "lora_A" if ".lora_A." in name else "lora_B"
    return f"base_model.model.{module}.{matrix}.weight"


def _prove(source: Source, weights: MergedWeights, directory: Path, dtype: str, base: Path) -> Proof:
    """Load base and adapters with PEFT and compare with the merged model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    theirs = PeftModel.from_pretrained(model, directory)
    of_base, of_adapters = rounding(_dtype_of(base)), rounding(dtype)

    def stored(name: str, weight: Tensor) -> Tensor:
        first, second = adapter_names(name)
        value = of_base(name, weights.base.read(name))
        if first not in weights.adapters.shapes:
            return value
        down, up = (of_adapters(each, weights.adapters.read(each)) for each in (first, second))
        return merge(value, down, up, weights.scale)

    return replace(prove(theirs.eval(), source, stored, directory), tools=("PEFT",))


def _dtype_of(base: Path) -> str:
    """The type of numbers that a Hugging Face directory says it holds."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if named not in _BITS:
        raise ConfigError(f"--base: {base} is in {named}; valid: {', '.join(_BITS)}")
    return _BITS[named]
