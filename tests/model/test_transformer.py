"""The decoder: its size, its initial weights, its loss, and that it is a Llama."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from hpctrain.model.attention import eager_attention, sdpa_attention
from hpctrain.model.blocks import rotate
from hpctrain.model.config import ModelConfig, layer_costs, presets
from hpctrain.model.loss import plain_next_token_loss
from hpctrain.model.transformer import Layer, Transformer, build_layers

VOCABULARY = 61


def tiny_config(**changes: Any) -> ModelConfig:
    sizes = {"hidden_size": 32, "layers": 3, "heads": 4, "kv_heads": 2, "mlp_size": 48, "tied": True}
    return ModelConfig(**{**sizes, **changes})


def build(config: ModelConfig, seed: int = 1) -> Transformer:
    return Transformer(build_layers(config, VOCABULARY, seed, sdpa_attention))


def weights(config: ModelConfig, seed: int = 1) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in build(config, seed).named_parameters()}


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and targets [2,16], boundaries of three documents."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, VOCABULARY, (2, 16), generator=generator)
    return tokens, tokens.roll(-1, 1), torch.tensor([0, 10, 16, 32, 32], dtype=torch.int32)


def build_on_meta(layer: Layer) -> torch.nn.Module:
    """The module with its shapes, but without its weights: `normal_` draws nothing there."""
    with torch.device("meta"):
        return layer.build.args[0]()  # type: ignore[attr-defined]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("preset", presets())
def test_the_parameter_count_is_that_of_the_model(preset: str, tied: bool) -> None:
    config = ModelConfig.model_validate({"preset": preset, "tied": tied})
    layers = build_layers(config, 8192, 1, eager_attention)
    built = [build_on_meta(layer) for layer in layers if layer.shares is None]
    assert sum(p.numel() for module in built for p in module.parameters()) == config.parameter_count(8192)
    assert len(layers) == config.layers + 3


@pytest.mark.parametrize("preset", ["1m", "3m"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_parameter_count_is_that_of_a_model_with_weights(preset: str, tied: bool) -> None:
    config = ModelConfig.model_validate({"preset": preset, "tied": tied})
    assert sum(p.numel() for p in build(config).parameters()) == config.parameter_count(VOCABULARY)


@pytest.mark.parametrize(
    ("preset", "millions", "vocab_size"),
    [("1m", 0.4, 0), ("10m", 7.4, 0), ("125m", 110, 32768), ("1b", 1236, 128_256), ("7b", 7_000, 32768)],
)
def test_presets_are_about_as_large_as_their_names(preset: str, millions: float, vocab_size: int) -> None:
    config = ModelConfig.model_validate({"preset": preset})
    assert config.parameter_count(vocab_size) / 1e6 == pytest.approx(millions, rel=0.1)


def test_flops_per_token_by_hand() -> None:
    # one block: q and o 32 x 32, k and v 32 x 16, gate, up and down 32 x 48, two norms of 32
    block = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert block == 7744
    head, final_norm = 1000 * 32, 32
    attention = 12 * 3 * 32 * 64
    expected = 6 * (3 * block + final_norm + head) + attention
    assert tiny_config(tied=True).flops_per_token(1000, 64) == expected
    assert tiny_config(tied=False).flops_per_token(1000, 64) == expected, "a look-up costs no product"
    assert tiny_config().parameter_count(1000) == 3 * block + final_norm + head
    assert tiny_config(tied=False).parameter_count(1000) == 3 * block + final_norm + 2 * head


def test_layer_costs_are_the_weights_that_each_layer_multiplies_with() -> None:
    config = tiny_config(tied=False)
    built = [layer.build() for layer in build_layers(config, VOCABULARY, 1, eager_attention)]
    matrices = [sum(p.numel() for p in module.parameters() if p.dim() == 2) for module in built]
    assert layer_costs(config, VOCABULARY) == [0, *matrices[1:]]


def test_initial_weights_depend_on_the_seed_and_the_name_only() -> None:
    few, many = weights(tiny_config(layers=2)), weights(tiny_config(layers=4))
    assert set(few) < set(many)
    narrowed = ("attention.output.weight", "mlp.down.weight")
    for name, parameter in few.items():
        expected = many[name] * (2**0.5 if name.endswith(narrowed) else 1)
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=0)
    again, other = weights(tiny_config(layers=2)), weights(tiny_config(layers=2), seed=2)
    for name, parameter in few.items():
        assert torch.equal(parameter, again[name])
        assert torch.equal(parameter, other[name]) == (parameter.dim() == 1), name
    matrices = [parameter.flatten()[:8] for parameter in many.values() if parameter.dim() == 2]
    assert len({tuple(start.tolist()) for start in matrices}) == len(matrices), "two names drew the same"


def test_initial_weights_do_not_depend_on_what_was_drawn_before() -> None:
    layers = build_layers(tiny_config(tied=False), VOCABULARY, 1, eager_attention)
    forward = [layer.build().state_dict() for layer in layers]
    torch.randn(1000)
    backward = [layer.build().state_dict() for layer in reversed(layers)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_initial_deviations() -> None:
    config = tiny_config(hidden_size=256, heads=4, mlp_size=512, layers=8, initial_deviation=0.05)
    for name, parameter in weights(config).items():
        if parameter.dim() == 1:
            assert bool((parameter == 1).all()), name
            continue
        residual = name.endswith(("attention.output.weight", "mlp.down.weight"))
        expected = 0.05 / 4 if residual else 0.05  # sqrt(2 x 8 layers) = 4
        assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
        assert abs(parameter.mean().item()) < expected / 20, name


def test_parameter_names_are_the_same_tied_or_not_but_for_the_head() -> None:
    tied, untied = set(weights(tiny_config())), set(weights(tiny_config(tied=False)))
    assert untied - tied == {"head.weight"}
    assert tied < untied


def test_every_parameter_gets_a_gradient() -> None:
    tokens, targets, boundaries = batch()
    model = build(tiny_config(tied=False))
    plain_next_token_loss(model(tokens, boundaries), targets).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@given(st.lists(st.sampled_from([-100, 0, 1, 2, 6]), min_size=1, max_size=12), st.integers(0, 5))
def test_the_loss_is_the_sum_over_counted_targets_divided_by_all_positions(
    targets: list[int], seed: int
) -> None:
    logits = torch.randn(1, len(targets), 7, generator=torch.Generator().manual_seed(seed)) * 3
    total = 0.0
    for row, target in zip(logits[0].tolist(), targets, strict=True):
        if target != -100:
            total += math.log(sum(math.exp(value) for value in row)) - row[target]
    loss = plain_next_token_loss(logits, torch.tensor([targets]))
    assert loss.item() == pytest.approx(total / len(targets), abs=1e-5)


def test_ignored_targets_give_no_gradient_and_16_bit_logits_are_summed_in_32() -> None:
    logits = torch.randn(2, 8, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.full((2, 8), -100)
    targets[1, 3] = 5
    (gradient,) = torch.autograd.grad(plain_next_token_loss(logits, targets), logits)
    assert gradient.abs().sum(-1).nonzero().tolist() == [[1, 3]]
    assert plain_next_token_loss(logits.bfloat16(), targets).dtype == torch.float32


def test_micro_batches_add_up_to_the_whole_batch_whatever_is_ignored() -> None:
    """The divisor does not depend on the data: that is what makes every layout one curve."""
    logits = torch.randn(4, 8, 7, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(32).view(4, 8) % 7
    targets[0] = -100
    targets[2, :5] = -100
    parts = [plain_next_token_loss(logits[i : i + 1], targets[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(torch.stack(parts).mean(), plain_next_token_loss(logits, targets))


@settings(max_examples=30)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 50))
def test_rotary_scores_depend_on_the_distance_only(query_at: int, key_at: int, shift: int) -> None:
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def score(shift: int) -> float:
        turned = [
            rotate(heads, torch.tensor([[place + shift]]), 10_000.0)
            for heads, place in ((query, query_at), (key, key_at))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(shift) == pytest.approx(score(0), abs=1e-3)
    assert float(rotate(query, torch.tensor([[query_at]]), 1e4).norm()) == pytest.approx(
        float(query.norm()), rel=1e-5
    )


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers_llama(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from hpctrain.model.huggingface import huggingface_name

    config = tiny_config(tied=tied, initial_deviation=0.1, rope_theta=5000.0, norm_epsilon=1e-4)
    ours = build(config)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if parameter.dim() == 1:  # norms begin at one, where they could be confounded
                parameter.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-4, tie_word_embeddings=tied,
            rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
        )
    ).eval()  # fmt: skip
    named = {huggingface_name(name): parameter for name, parameter in ours.named_parameters()}
    missing, unexpected = theirs.load_state_dict(named, strict=False)
    assert unexpected == []
    assert missing == (["lm_head.weight"] if tied else [])
    theirs.tie_weights()
    tokens = torch.randint(0, VOCABULARY, (2, 40), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = theirs(tokens).logits
        found = ours(tokens, torch.tensor([0, 40, 80], dtype=torch.int32))
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"heads": 5}, "heads 5 does not divide hidden_size 32"),
        ({"hidden_size": 36, "heads": 4}, "hidden_size / heads = 9 is odd"),
        ({"kv_heads": 3}, "kv_heads 3 does not divide heads 4"),
        (
            {"heads": 5, "kv_heads": 2},
            "heads 5 does not divide hidden_size 32; kv_heads 2 does not divide heads 5",
        ),
        ({"layers": 0}, "greater than 0"),
        ({"preset": "2m"}, "unknown preset '2m'; valid presets: 1m, 3m"),
    ],
)
def test_impossible_shapes_say_why(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        tiny_config(**changes)


def test_a_preset_fills_only_what_is_not_given() -> None:
    config = ModelConfig.model_validate({"preset": "3m", "layers": 2})
    assert (config.layers, config.hidden_size) == (2, 192)
    with pytest.raises(ValidationError, match="layers"):
        ModelConfig.model_validate({"hidden_size": 32})
