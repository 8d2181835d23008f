"""Names and settings in Hugging Face's spelling, both ways, and the same logits for every setting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.config import fingerprint
from hpctrain.errors import ConfigError
from hpctrain.model.attention import eager_attention, sdpa_attention
from hpctrain.model.config import ModelConfig, layer_costs
from hpctrain.model.huggingface import (
    context_length,
    from_huggingface_config,
    hpctrain_name,
    huggingface_name,
    to_huggingface_config,
)
from hpctrain.model.transformer import Transformer, build_layers
from hpctrain.tokenizer.codec import SpecialTokens

VOCABULARY = 61
SPECIAL = SpecialTokens(unk=0, pad=1, document=2, end=3, file_name=4, content=5, fim_prefix=6, fim_suffix=7,
                        fim_middle=8)  # fmt: skip
SIZES = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "mlp_size": 48, "tied": False}
LLAMA3 = {"kind": "llama3", "factor": 8.0, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0,
          "original_context": 32}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tied": True},
    "qkv": {"attention_bias": "qkv"},
    "all": {"attention_bias": "all"},
    "wide-heads": {"head_width": 16, "attention_bias": "all"},
    "linear": {"rope_scaling": {"kind": "linear", "factor": 4.0}, "rope_theta": 5000.0},
    "llama3": {"rope_scaling": LLAMA3, "rope_theta": 500_000.0},
    "qwen2-llama3": {"rope_scaling": LLAMA3, "attention_bias": "qkv", "tied": True},
}


def tiny(**changes: Any) -> ModelConfig:
    return ModelConfig.model_validate({**SIZES, **changes})


configs = st.builds(
    tiny,
    layers=st.integers(1, 5),
    tied=st.booleans(),
    rope_theta=st.floats(100, 1e7),
    norm_epsilon=st.floats(1e-7, 1e-3),
    initial_deviation=st.floats(0.001, 1),
    attention_bias=st.sampled_from(["none", "qkv", "all"]),
    head_width=st.sampled_from([None, 4, 16]),
    rope_scaling=st.sampled_from([None, LLAMA3, {"kind": "linear", "factor": 2.5}]),
)


@given(configs)
def test_settings_come_back(config: ModelConfig) -> None:
    tree = json.loads(json.dumps(to_huggingface_config(config, VOCABULARY, 128, SPECIAL)))
    back = from_huggingface_config(tree)
    assert back.identity() == config.identity()
    assert context_length(tree) == 128
    old = {key: value for key, value in tree.items() if key != "rope_parameters"}  # as older writers do
    assert from_huggingface_config(old).identity() == config.identity()


@given(configs)
def test_names_come_back(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(build_layers(config, VOCABULARY, 1, eager_attention))
    theirs = {name: huggingface_name(name) for name, _ in model.named_parameters()}
    assert len(set(theirs.values())) == len(theirs)
    assert {name: hpctrain_name(their) for name, their in theirs.items()} == {name: name for name in theirs}
    assert sum(p.numel() for p in model.parameters()) == config.parameter_count(VOCABULARY)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_norm.weight", "norm.weight", "model.layers.x.mlp"]
)
def test_a_name_that_we_have_no_place_for(name: str) -> None:
    assert hpctrain_name(name) is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers(variant: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = tiny(initial_deviation=0.2, **VARIANTS[variant])
    ours = Transformer(build_layers(config, VOCABULARY, 1, sdpa_attention))
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if parameter.dim() == 1:  # norms begin at one and biases at zero, where they could be confounded
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    tree = to_huggingface_config(config, VOCABULARY, 128, SPECIAL)
    settings = {key: value for key, value in tree.items() if key not in ("architectures", "dtype")}
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).eval()
    named = {huggingface_name(name): parameter for name, parameter in ours.named_parameters()}
    missing, unexpected = theirs.load_state_dict(named, strict=False)
    assert unexpected == []
    assert missing == (["lm_head.weight"] if config.tied else [])
    theirs.tie_weights()
    tokens = torch.randint(0, VOCABULARY, (2, 100), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = theirs(tokens).logits
        found = ours(tokens, torch.tensor([0, 100, 200], dtype=torch.int32))
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 2e-5 * max(1.0, float(expected.abs().max()))


def test_biases_begin_at_zero_whoever_builds_them() -> None:
    model = Transformer(build_layers(tiny(attention_bias="all"), VOCABULARY, 1, eager_attention))
    biases = {name: p for name, p in model.named_parameters() if name.endswith("bias")}
    assert len(biases) == 2 * 4
    assert all(not bool(bias.any()) for bias in biases.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_layer_costs_are_the_weights_that_each_layer_multiplies_with(variant: str) -> None:
    config = tiny(**{**VARIANTS[variant], "tied": False})
    built = [layer.build() for layer in build_layers(config, VOCABULARY, 1, eager_attention)]
    matrices = [sum(p.numel() for p in module.parameters() if p.dim() == 2) for module in built]
    assert layer_costs(config, VOCABULARY) == [0, *matrices[1:]]


def test_runs_from_before_the_newer_settings_are_still_the_same_model() -> None:
    """The fingerprint that a run of this shape wrote into its checkpoints then."""
    then = {
        **SIZES, "rope_theta": 10_000.0, "norm_epsilon": 1e-5, "initial_deviation": 0.02,
    }  # fmt: skip
    assert fingerprint(tiny().identity()) == fingerprint(then)
    identities = {fingerprint(tiny(**{**changes, "tied": False}).identity()) for changes in VARIANTS.values()}
    assert len(identities) == 7, "each newer setting makes another model"


QWEN25 = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
    "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
    "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
    "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": True, "use_mrope": False,
    "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
LLAMA32 = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
    "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip


def test_settings_as_public_models_state_them() -> None:
    qwen, llama = from_huggingface_config(QWEN25), from_huggingface_config(LLAMA32)
    assert (qwen.attention_bias, qwen.rope_theta, qwen.tied, qwen.head_width) == ("qkv", 1e6, True, None)
    assert qwen.parameter_count(151_936) == 494_032_768  # as its card says: 0.49B
    assert llama.rope_scaling is not None
    assert (llama.rope_scaling.kind, llama.rope_scaling.factor) == ("llama3", 32.0)
    assert llama.parameter_count(128_256) == 1_235_814_400
    assert context_length(LLAMA32) == 131_072


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sliding_window": True}, "use_sliding_window: True is not supported"),
        ({"layer_types": ["sliding_attention"]}, "layer_types: only full_attention"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling: 'dynamic' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "beta": 1}}, "beta is not supported with linear"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5 is not supported"),
        ({"attention_dropout": 0.1}, "attention_dropout: 0.1 is not supported"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures: "),
        ({"hidden_size": "big"}, "hidden_size: missing, or not a whole number"),
        ({"num_key_value_heads": 3}, "kv_heads 3 does not divide heads 14"),
        ({"auto_map": {"AutoModel": "code.py"}}, "auto_map: "),
        ({"max_position_embeddings": 0}, "max_position_embeddings: 0 is no positive"),
    ],
)
def test_settings_that_are_not_supported(changes: dict[str, Any], message: str) -> None:
    tree = {**QWEN25, **changes}
    with pytest.raises(ConfigError, match=message):
        context_length(tree) if from_huggingface_config(tree) else None


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    tree = {**LLAMA32, "hidden_act": "relu", "sliding_window": 4096, "vocab_size": None, "strange": 1}
    with pytest.raises(ConfigError) as caught:
        from_huggingface_config(tree)
    assert len(caught.value.problems) == 4
    assert from_huggingface_config({**LLAMA32, "strange": 1}, accept=["strange"])
