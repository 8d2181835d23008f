"""What is computed again changes no bit, and what is kept is what the arithmetic says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpctrain.model.adapter import AdapterConfig
from hpctrain.model.attention import sdpa_attention
from hpctrain.model.config import ModelConfig, RecomputeLevel
from hpctrain.model.lora import adapt_layers
from hpctrain.model.recompute import recompute_layers
from hpctrain.model.transformer import Transformer, build_layers
from hpctrain.train.activations import block_bytes

VOCABULARY, LENGTH = 61, 64
LEVELS: tuple[RecomputeLevel, ...] = ("keep", "cheap", "all")


def shape(**changes: Any) -> ModelConfig:
    sizes = {"hidden_size": 64, "layers": 3, "heads": 4, "kv_heads": 2, "mlp_size": 96, "tied": False}
    return ModelConfig(**{**sizes, **changes})


def build(levels: Sequence[RecomputeLevel], **changes: Any) -> Transformer:
    config = shape(layers=len(levels), **changes)
    return Transformer(recompute_layers(build_layers(config, VOCABULARY, 1, sdpa_attention), levels))


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and boundaries of two sequences, one of them of two documents, and targets."""
    tokens = torch.randint(0, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    return tokens, torch.tensor([0, 20, LENGTH, 2 * LENGTH], dtype=torch.int32), tokens.roll(-1, 1)


@pytest.mark.parametrize("bias", ["none", "all"])
@pytest.mark.parametrize(
    "levels",
    [
        ("cheap",) * 3,
        ("all",) * 3,
        ("cheap", "keep", "keep"),
        ("all", "cheap", "keep"),
        ("keep", "all", "cheap"),
    ],
)
def test_gradients_are_those_of_keeping_all_bit_for_bit(levels: Sequence[RecomputeLevel], bias: str) -> None:
    found = []
    for each in (("keep",) * 3, levels):
        model = build(each, attention_bias=bias)
        loss = model(*batch())
        loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
    (loss, gradients), (again, others) = found
    assert torch.equal(loss, again)
    for name, gradient in gradients.items():
        assert gradient is not None
        assert torch.equal(gradient, others[name]), name


def test_adapters_with_dropout_get_the_same_gradients() -> None:
    """What is dropped is the same when it is drawn again."""
    found = []
    for level in LEVELS:
        layers = build_layers(shape(), VOCABULARY, 1, sdpa_attention)
        adapted = adapt_layers(layers, AdapterConfig(rank=3, dropout=0.5), 1, lambda name, target: None)
        model = Transformer(recompute_layers(adapted, (level,) * 3))
        torch.manual_seed(4)
        model(*batch()).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        assert gradient is not None
        assert all(torch.equal(gradient, other[name]) for other in found[1:]), name


class Counting(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[operation.name()] = self.counts.get(operation.name(), 0) + 1
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("level", "products", "attentions"), [("keep", 0, 0), ("cheap", 0, 0), ("all", 6, 3)]
)
def test_only_the_highest_level_runs_products_and_attention_again(
    level: RecomputeLevel, products: int, attentions: int
) -> None:
    """A block has 7 products; the last one's result is needed by nothing that is computed again."""
    model = build((level,))
    with Counting() as forward:
        loss = model(*batch())
    with Counting() as backward:
        loss.backward()
    attention = next(name for name in forward.counts if "_attention" in name)
    assert backward.counts.get(attention, 0) == attentions
    assert forward.counts["aten::mm"] == 7 + 1  # and the one of the loss
    assert backward.counts["aten::mm"] == 2 * 7 + products


class Alive(TorchDispatchMode):
    """The bytes of what operations made, besides what was known, and that still lives."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.known = {each.untyped_storage()._cdata for each in known}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.known:
                    self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        return result

    def bytes(self) -> int:
        return sum(size for reference, size in self.made.values() if not reference.expired())


def kept_bytes(levels: Sequence[RecomputeLevel], dtype: torch.dtype, **changes: Any) -> int:
    """What lives between forward and backward."""
    model, arguments = build(levels, **changes).to(dtype), batch()
    with Alive(model.parameters()) as alive:
        loss = model(*arguments)
        assert loss.requires_grad
        return alive.bytes()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"hidden_size": 96, "heads": 6, "kv_heads": 6, "mlp_size": 352}, {"head_width": 32, "mlp_size": 48}],
)
def test_a_block_keeps_what_the_arithmetic_says(
    level: RecomputeLevel, precision: str, changes: dict[str, int]
) -> None:
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    few, many = (kept_bytes((level,) * blocks, dtype, **changes) for blocks in (1, 3))
    predicted = block_bytes(shape(**changes), precision, level)
    assert (many - few) / 2 / (2 * LENGTH) == pytest.approx(predicted, rel=0.1)


def test_levels_are_given_for_each_block() -> None:
    layers = build_layers(shape(), VOCABULARY, 1, sdpa_attention)
    with pytest.raises(ValueError, match="4 levels for 3 blocks"):
        recompute_layers(layers, ("keep",) * 4)
    with pytest.raises(ValueError, match="2 levels for 3 blocks"):
        recompute_layers(layers, ("keep",) * 2)
