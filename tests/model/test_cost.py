"""What a step costs, counted: operations and the elements they write, the same on every machine."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hpctrain.model.attention import sdpa_attention
from hpctrain.model.config import ModelConfig
from hpctrain.model.transformer import Transformer, build_layers

LENGTH, WIDTH, VOCABULARY = 128, 64, 100


class Cost(TorchDispatchMode):
    """Counts operations that write, and the elements of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        aliases = [each.alias_info for each in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):  # no view
            name = func.overloadpacket.__name__
            self.operations[name] += 1
            outputs = result if isinstance(result, tuple | list) else [result]
            self.written[name] += sum(each.numel() for each in outputs if isinstance(each, Tensor))
        return result


def cost_of_a_step(layers: int, documents: int = 1) -> Cost:
    config = ModelConfig(hidden_size=WIDTH, layers=layers, heads=4, kv_heads=2, mlp_size=176, tied=True)
    model = Transformer(build_layers(config, VOCABULARY, 1, sdpa_attention))
    tokens = torch.arange(2 * LENGTH).view(2, LENGTH) % VOCABULARY
    edges = torch.arange(0, 2 * LENGTH, LENGTH // documents, dtype=torch.int32)
    boundaries = torch.full((2 * LENGTH + 1,), 2 * LENGTH, dtype=torch.int32)
    boundaries[: len(edges)] = edges
    with Cost() as cost:
        model(tokens, boundaries, tokens).backward()
    return cost


def test_a_block_takes_no_more_operations_than_it_did() -> None:
    """Where a change makes it fewer, lower the bound; where it makes it more, show by bench that it pays."""
    fewer, more = cost_of_a_step(2), cost_of_a_step(3)
    assert more.operations["mm"] - fewer.operations["mm"] == 7 * 3
    assert more.operations.total() - fewer.operations.total() <= 143
    widths = (more.written.total() - fewer.written.total()) / (2 * LENGTH * WIDTH)
    assert widths <= 101


def test_more_documents_in_a_sequence_do_not_cost_more_memory_traffic() -> None:
    """The gradient of a slice is as large as the whole: one a document would cost documents x positions."""
    one, many = cost_of_a_step(2), cost_of_a_step(2, documents=32)
    assert many.written.total() <= 1.02 * one.written.total()
