"""The model in Hugging Face's names and settings: Llama, or Qwen2 where query, key and value have biases.

Both directions stand here, so that import and export cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from hpctrain.config import describe_errors
from hpctrain.errors import ConfigError
from hpctrain.model.config import AttentionBias, ModelConfig, RopeScaling
from hpctrain.tokenizer.codec import SpecialTokens

_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
_OUTER_NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
_OUR_LAYER_NAMES = {theirs: ours for ours, theirs in _LAYER_NAMES.items()}
_OUR_OUTER_NAMES = {theirs: ours for ours, theirs in _OUTER_NAMES.items()}
_THEIR_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")

_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
_DEFAULTS: dict[str, dict[str, Any]] = {  # what a config.json that leaves them out means
    "llama": {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    "qwen2": {"rms_norm_eps": 1e-6, "max_position_embeddings": 32768},
}
_SIZES = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "intermediate_size": "mlp_size",
}
_REQUIRED: dict[str, tuple[Any, ...]] = {  # values under which a setting changes nothing
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False, None),
    "attention_dropout": (0, None),
    "hidden_dropout": (0, None),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "quantization_config": (None,),
    "auto_map": (None,),
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "chunk_size_feed_forward": (0, None),
    "pruned_heads": ({}, None),
}
_READ = (
    *_SIZES, "model_type", "architectures", "vocab_size", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rms_norm_eps", "initializer_range", "rope_theta", "rope_scaling",
    "rope_parameters", "attention_bias", "tie_word_embeddings", "layer_types", "sliding_window",
)  # fmt: skip
_HARMLESS = (  # provenance, storage and classification: they do not change the logits
    "_name_or_path", "_attn_implementation_autoset", "dtype", "torch_dtype", "id2label", "label2id",
    "is_decoder", "is_llama_config", "max_window_layers", "pretraining_tp", "problem_type", "return_dict",
    "tokenizer_class", "torchscript", "transformers.js_config", "unsloth_fixed", "unsloth_version",
    "use_bfloat16", "sep_token_id", "prefix", "task_specific_params", "finetuning_task",
)  # fmt: skip
_ROPE_KEYS = {
    "default": frozenset[str](),
    "linear": frozenset({"factor"}),
    "llama3": frozenset(
        {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    ),
}


def huggingface_name(name: str) -> str:
    """Their spelling of a parameter: `model.layers.3.mlp.up_proj.weight` for `block_3.mlp.up.weight`.

    Raises KeyError for a parameter that they have no name for.
    """
    module, kind = name.rsplit(".", 1)
    if module in _OUTER_NAMES:
        return f"{_OUTER_NAMES[module]}.{kind}"
    block, rest = module.split(".", 1)
    return f"model.layers.{block.removeprefix('block_')}.{_LAYER_NAMES[rest]}.{kind}"


def hpctrain_name(name: str) -> str | None:
    """Our spelling of their parameter; None for one that we have no place for."""
    module, _, kind = name.rpartition(".")
    if module in _OUR_OUTER_NAMES:
        return f"{_OUR_OUTER_NAMES[module]}.{kind}"
    match = _THEIR_LAYER.fullmatch(module)
    if match is None or match[2] not in _OUR_LAYER_NAMES:
        return None
    return f"block_{match[1]}.{_OUR_LAYER_NAMES[match[2]]}.{kind}"


def to_huggingface_config(
    model: ModelConfig, vocab_size: int, context: int, special: SpecialTokens
) -> dict[str, Any]:
    """The content of `config.json` for fp32 weights; `context` in tokens."""
    model_type = "qwen2" if model.attention_bias == "qkv" else "llama"
    config: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[model_type]],
        "model_type": model_type,
        "vocab_size": vocab_size,
        **{theirs: getattr(model, ours) for theirs, ours in _SIZES.items()},
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "max_position_embeddings": context,
        "rms_norm_eps": model.norm_epsilon,
        "initializer_range": model.initial_deviation,
        "rope_parameters": {**_rope(model.rope_scaling), "rope_theta": model.rope_theta},
        # As older readers expect it.
        "rope_theta": model.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": model.tied,
        "bos_token_id": special.document,
        "eos_token_id": special.end,
        "pad_token_id": special.pad,
        "dtype": "float32",
    }
    if model.rope_scaling is not None:
        config["rope_scaling"] = _rope(model.rope_scaling)
    if model_type == "llama":
        config |= {"attention_bias": model.attention_bias == "all", "mlp_bias": False}
    else:
        config["use_sliding_window"] = False
    return config


def _rope(scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {"rope_type": "default"}
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def from_huggingface_config(tree: Mapping[str, Any], accept: Collection[str] = ()) -> ModelConfig:
    """The model that a `config.json` describes.

    `accept`: settings that are not known here, and that the user says change nothing. Raises ConfigError that
    names every setting that is unsupported, unknown or missing.
    """
    model_type = tree.get("model_type")
    if model_type not in _ARCHITECTURES:
        valid = ", ".join(_ARCHITECTURES)
        raise ConfigError(f"model_type: {model_type!r} is not supported; supported: {valid}")
    problems = [*_unsupported(tree, model_type), *_unknown(tree, accept)]
    scaling, rope_problems = _read_rope(tree)
    problems += rope_problems
    missing = [name for name in [*_SIZES, "vocab_size"] if not isinstance(tree.get(name), int)]
    problems += [f"{name}: missing, or not a whole number" for name in missing]
    if problems:
        raise ConfigError(problems)
    try:
        return ModelConfig.model_validate(
            {
                **{ours: tree[theirs] for theirs, ours in _SIZES.items()},
                "kv_heads": tree.get("num_key_value_heads") or tree["num_attention_heads"],
                "head_width": _head_width(tree),
                "tied": bool(tree.get("tie_word_embeddings", False)),
                "rope_theta": _rope_theta(tree),
                "rope_scaling": scaling,
                "norm_epsilon": _setting(tree, "rms_norm_eps"),
                "initial_deviation": tree.get("initializer_range", 0.02),
                "attention_bias": _attention_bias(tree),
            }
        )
    except ValidationError as error:
        raise ConfigError(describe_errors(error, ModelConfig)) from None


def context_length(tree: Mapping[str, Any]) -> int:
    """Tokens of context that a `config.json` states. Raises ConfigError for what is no positive number."""
    context = _setting(tree, "max_position_embeddings")
    if not isinstance(context, int) or context < 1:
        raise ConfigError(f"max_position_embeddings: {context!r} is no positive whole number")
    return context


def _setting(tree: Mapping[str, Any], name: str) -> Any:
    return tree.get(name, _DEFAULTS[tree["model_type"]][name])


def _attention_bias(tree: Mapping[str, Any]) -> AttentionBias:
    if tree["model_type"] == "qwen2":
        return "qkv"
    return "all" if tree.get("attention_bias") else "none"


def _head_width(tree: Mapping[str, Any]) -> int | None:
    width = tree.get("head_dim")
    heads, hidden = tree["num_attention_heads"], tree["hidden_size"]
    return None if width is None or width * heads == hidden else width


def _unsupported(tree: Mapping[str, Any], model_type: str) -> list[str]:
    """Known settings whose value asks for what this model does not have."""
    problems = [
        f"{name}: {tree[name]!r} is not supported; only {valid[0]!r} is"
        for name, valid in _REQUIRED.items()
        if name in tree and tree[name] not in valid
    ]
    architectures = tree.get("architectures")
    if architectures not in (None, [_ARCHITECTURES[model_type]]):
        problems.append(
            f"architectures: {architectures!r} is not supported; only {_ARCHITECTURES[model_type]} is"
        )
    layers = tree.get("layer_types")
    if layers is not None and set(layers) != {"full_attention"}:
        problems.append("layer_types: only full_attention is supported")
    if model_type == "llama" and tree.get("sliding_window") is not None:
        problems.append(f"sliding_window: {tree['sliding_window']!r} is not supported; only None is")
    if model_type == "qwen2" and tree.get("attention_bias", True) is not True:
        problems.append("attention_bias: False is not supported with qwen2, which has biases")
    return problems


def _unknown(tree: Mapping[str, Any], accept: Collection[str]) -> list[str]:
    from transformers import GenerationConfig  # its settings were once kept in the same file

    known = {*_READ, *_HARMLESS, *_REQUIRED, *vars(GenerationConfig()), *accept}
    return [
        f"{name}: not known here, so perhaps it changes the model; if you know it does not, accept it by name"
        for name in sorted(set(tree) - known)
        if tree[name] is not None
    ]


def _rope_tree(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rotary settings, as older writers keep them or as newer ones do."""
    found = tree.get("rope_scaling") or tree.get("rope_parameters") or {}
    return found if isinstance(found, Mapping) else {"rope_type": found}


def _rope_theta(tree: Mapping[str, Any]) -> Any:
    for place in (_rope_tree(tree), tree.get("rope_parameters") or {}, tree):
        if place.get("rope_theta") is not None:
            return place["rope_theta"]
    return 10_000.0


def _read_rope(tree: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The scaling as ModelConfig takes it, and what is wrong with it."""
    rope = _rope_tree(tree)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPE_KEYS:
        return None, [f"rope_scaling: {kind!r} is not supported; supported: {', '.join(_ROPE_KEYS)}"]
    general = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    problems = [
        f"rope_scaling: {name} is not supported with {kind}"
        for name in sorted(set(rope) - general - _ROPE_KEYS[kind])
        if rope[name] is not None
    ]
    if rope.get("partial_rotary_factor", 1) not in (1, None):
        problems.append(f"partial_rotary_factor: {rope['partial_rotary_factor']} is not supported; only 1 is")
    if kind == "default":
        return None, problems
    names = {
        "factor": "factor",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "original_max_position_embeddings": "original_context",
    }
    values = {"original_max_position_embeddings": tree.get("max_position_embeddings"), **rope}
    wanted = [name for name in names if name in _ROPE_KEYS[kind]]
    problems += [f"rope_scaling: {name} is missing" for name in wanted if values.get(name) is None]
    return {"kind": kind, **{names[name]: values.get(name) for name in wanted}}, problems
