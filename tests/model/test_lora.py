"""Adapters: where they go, how they begin, and that merging them changes nothing of what the model says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from hpctrain.checkpoint.weights import MergedWeights
from hpctrain.errors import CheckpointError
from hpctrain.model.adapter import TARGETS, AdapterConfig
from hpctrain.model.attention import sdpa_attention
from hpctrain.model.config import ModelConfig
from hpctrain.model.lora import adapt_layers
from hpctrain.model.transformer import Layer, Transformer, build_layers

MODEL = ModelConfig(hidden_size=16, layers=2, heads=4, kv_heads=2, mlp_size=24, tied=True)
VOCABULARY = 40
TOKENS = torch.arange(12).view(1, 12)
BOUNDARIES = torch.tensor([0, 7, 12])


class InMemory:
    """Weights that tests made up."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].clone()

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        target.copy_(self.tensors[name].flatten()[start : start + target.numel()])


def base_layers(seed: int = 1) -> list[Layer]:
    return build_layers(MODEL, VOCABULARY, seed, sdpa_attention)


def adapted(adapter: AdapterConfig, base: Transformer, seed: int = 1) -> Transformer:
    weights = dict(base.named_parameters())
    return Transformer(
        adapt_layers(base_layers(seed=99), adapter, seed, lambda name, to: to.copy_(weights[name]))
    )


def trained_parameters(model: Transformer) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def test_only_adapters_are_trained_and_they_begin_as_nothing() -> None:
    base, adapter = Transformer(base_layers()), AdapterConfig(rank=3)
    model = adapted(adapter, base)
    trained = trained_parameters(model)
    assert sum(tensor.numel() for tensor in trained.values()) == adapter.parameter_count(MODEL)
    assert len(trained) == 2 * len(TARGETS) * MODEL.layers
    assert torch.equal(model(TOKENS, BOUNDARIES), base(TOKENS, BOUNDARIES))


def test_the_targets_alone_get_adapters() -> None:
    names = trained_parameters(adapted(AdapterConfig(targets=("query", "down")), Transformer(base_layers())))
    assert {name.partition(".lora_")[0] for name in names} == {
        f"block_{block}.{target}" for block in (0, 1) for target in ("attention.query", "mlp.down")
    }


def test_the_start_is_decided_by_seed_and_name() -> None:
    base = Transformer(base_layers())
    one, same, other = (trained_parameters(adapted(AdapterConfig(), base, seed)) for seed in (1, 1, 2))
    firsts = [name for name in one if ".lora_A." in name]
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in firsts)
    alike = {name.split(".", 1)[1] for name in firsts}
    assert not any(torch.equal(one[f"block_0.{name}"], one[f"block_1.{name}"]) for name in alike)


def test_a_merged_adapter_says_what_the_adapted_model_says() -> None:
    base, adapter = Transformer(base_layers()), AdapterConfig(rank=2, alpha=6, dropout=0.5)
    model = adapted(adapter, base).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in trained_parameters(model).values():
            tensor.normal_(0, 0.3, generator=generator)
    changed = InMemory(trained_parameters(model))
    merged = MergedWeights(
        InMemory({n: p.detach() for n, p in base.named_parameters()}), changed, adapter.scale
    )
    again = Transformer(base_layers(seed=5))
    with torch.no_grad():
        for name, parameter in again.named_parameters():
            parameter.copy_(merged.read(name))
        said = [each(TOKENS, BOUNDARIES) for each in (model, again, base)]
    assert float((said[0] - said[1]).abs().max()) < 1e-5
    assert float((said[0] - said[2]).abs().max()) > 1e-2


@given(start=st.integers(0, 34), length=st.integers(0, 35))
def test_any_range_of_a_merged_weight_is_that_of_the_whole(start: int, length: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight, first, second = (torch.randn(shape, generator=generator) for shape in ((5, 7), (2, 7), (5, 2)))
    names = ["a.weight", "a.lora_A.default.weight", "a.lora_B.default.weight"]
    merged = MergedWeights(
        InMemory({names[0]: weight}), InMemory({names[1]: first, names[2]: second}), scale=3.0
    )
    target = torch.empty(min(length, 35 - start))
    merged.read_into(target, "a.weight", start)
    whole = merged.read("a.weight")
    assert torch.allclose(target, whole.flatten()[start : start + len(target)])
    assert torch.allclose(whole, weight + 3 * second @ first)


def test_adapters_of_another_model_are_refused() -> None:
    adapters = InMemory(
        {"b.lora_A.default.weight": torch.zeros(2, 7), "b.lora_B.default.weight": torch.zeros(5, 2)}
    )
    for weight in ({"a.weight": torch.zeros(5, 7)}, {"b.weight": torch.zeros(6, 7)}):
        with pytest.raises(CheckpointError, match=r"does not fit the base's b\.weight"):
            MergedWeights(InMemory(weight), adapters, 1.0)


@pytest.mark.parametrize("targets", [[], ["query", "query"], ["embedding"]])
def test_wrong_targets_are_refused(targets: list[str]) -> None:
    with pytest.raises(ValidationError, match=r"query"):
        AdapterConfig.model_validate({"targets": targets})
