from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hpctrain.model.loss import (
    IGNORED,
    Output,
    linear_cross_entropy,
    next_token_loss,
    plain_next_token_loss,
)


class Watcher(TorchDispatchMode):
    """Notes the most elements that any operation gave, and counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def draw(positions: int, vocabulary: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(1, positions, 12, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, 12, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, vocabulary, (1, positions), generator=generator)
    targets[torch.rand(1, positions, generator=generator) < 0.2] = IGNORED
    return hidden, weight, targets


@settings(max_examples=40, deadline=None)
@given(
    positions=st.integers(1, 40), vocabulary=st.integers(1, 50), chunk=st.integers(1, 50),
    seed=st.integers(0, 9), share=st.sampled_from([1.0, 0.25]),
)  # fmt: skip
def test_it_equals_the_definition_forward_and_backward(
    positions: int, vocabulary: int, chunk: int, seed: int, share: float
) -> None:
    hidden, weight, targets = draw(positions, vocabulary, seed)
    truth = plain_next_token_loss(hidden @ weight.T, targets, share)
    expected = torch.autograd.grad(truth, (hidden, weight))
    loss = linear_cross_entropy(hidden[0], weight, targets[0], chunk) / (positions * share)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    torch.testing.assert_close(loss, truth)
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_in_bf16_the_loss_is_in_fp32_and_as_near_to_the_truth_as_the_definition() -> None:
    hidden, weight, targets = draw(96, 64, dtype=torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    truth = torch.autograd.grad(plain_next_token_loss(exact[0] @ exact[1].T, targets), exact)
    plain = torch.autograd.grad(plain_next_token_loss(hidden @ weight.T, targets), (hidden, weight))
    loss = linear_cross_entropy(hidden[0], weight, targets[0], 16) / targets.numel()
    mine = torch.autograd.grad(loss, (hidden, weight))
    assert loss.dtype == torch.float32
    for ours, theirs, right in zip(mine, plain, truth, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - right).norm() <= 1.2 * (theirs - right).norm()


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(frozen: int) -> None:
    hidden, weight, targets = draw(8, 7)
    tensors = [hidden, weight]
    tensors[frozen].requires_grad_(False)
    next_token_loss(Output(hidden, weight), targets).backward()
    assert tensors[frozen].grad is None
    assert tensors[1 - frozen].grad.abs().sum() > 0


def test_without_gradients_none_are_computed() -> None:
    hidden, weight, targets = draw(64, 100)
    with torch.no_grad(), Watcher() as watcher:
        loss = linear_cross_entropy(hidden[0], weight, targets[0], 2)
    assert not loss.requires_grad
    alone = watcher.products
    with Watcher() as watcher:
        linear_cross_entropy(hidden[0], weight, targets[0], 2)
    assert (alone, watcher.products) == (32, 3 * 32)


def test_logits_of_all_positions_are_never_held() -> None:
    hidden, weight, targets = draw(512, 300)
    with Watcher() as watcher:
        linear_cross_entropy(hidden[0], weight, targets[0], 32).backward()
    assert watcher.elements == max(32 * 300, 512 * 12)
    with Watcher() as watcher:
        plain_next_token_loss(hidden @ weight.T, targets).backward()
    assert watcher.elements == 512 * 300


def test_it_cannot_be_differentiated_twice() -> None:
    hidden, weight, targets = draw(8, 7)
    loss = next_token_loss(Output(hidden, weight), targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        loss.backward()
