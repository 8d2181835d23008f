"""The head and the loss in one: the logits of all positions are never held.

Shapes: N positions of width C, V pieces of the vocabulary.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""The target that counts for nothing, as in torch's cross-entropy."""
_CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
"""Of fp32 logits at a time. Smaller pieces cost more passes over the weight's gradient."""


class Output(NamedTuple):
    """What the layer list gives: normed vectors and the weight that turns them into logits."""

    hidden: Tensor
    """[B,S,C]"""
    weight: Tensor
    """[V,C]"""

    def logits(self) -> Tensor:
        """[B,S,V]"""
        return F.linear(self.hidden, self.weight)


def next_token_loss(output: Output, targets: Tensor, counted_share: float = 1.0) -> Tensor:
    """Cross-entropy in nats: the sum over counted targets divided by the number of positions B*S.

    targets [B,S]; a target of -100 counts for nothing (torch's default). The divisor does not depend on the
    batch, so the mean over micro-batches and ranks is the global batch's, in any layout.
    `counted_share`: share of positions that count in all of the data, where that is far from all of them;
    the divisor is multiplied with it.
    """
    total = linear_cross_entropy(output.hidden.flatten(0, 1), output.weight, targets.flatten())
    return total / (targets.numel() * counted_share)


def plain_next_token_loss(logits: Tensor, targets: Tensor, counted_share: float = 1.0) -> Tensor:
    """The definition of `next_token_loss`, from logits [B,S,V]; the truth the other is tested against."""
    total = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten().long(), reduction="sum")
    return total / (targets.numel() * counted_share)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """Sum over positions of the cross-entropy of `hidden` [N,C] @ `weight` [V,C]^T: a scalar in fp32.

    Logits live for `chunk` positions at a time, and the forward computes the gradients while it has them
    (as Hsu et al., arXiv 2410.10989, do), so the head's products are not done twice. The weight's gradient is
    summed in fp32. Can be differentiated once.
    """
    if chunk is None:
        limit = _CHUNK_BYTES["cuda" if hidden.is_cuda else "cpu"]
        pieces = math.ceil(4 * weight.shape[0] * len(hidden) / limit)
        chunk = math.ceil(len(hidden) / max(1, pieces))
    learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    arguments = hidden, weight, targets.long(), chunk, learns
    loss: Tensor = _LinearCrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, learns: bool
    ) -> Tensor:
        of_hidden = torch.empty_like(hidden) if learns and ctx.needs_input_grad[0] else None
        of_weight = (
            torch.empty_like(weight, dtype=torch.float32) if learns and ctx.needs_input_grad[1] else None
        )
        loss = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            part, wanted = hidden[rows], targets[rows, None]
            counts = wanted != IGNORED
            wanted = wanted.where(counts, 0)
            chances = torch.log_softmax(F.linear(part, weight).float(), -1)
            loss -= (chances.gather(1, wanted) * counts).sum()
            if not learns:
                continue
            # The logits' gradient: softmax, less one at the target. Targets that do not count are taken out
            # of what it is multiplied with, which is narrow.
            chances.exp_().scatter_add_(1, wanted, chances.new_full(wanted.shape, -1.0))
            gradient, part = chances.to(hidden.dtype), part * counts
            del chances
            if of_hidden is not None:
                torch.mm(gradient, weight, out=of_hidden[rows]).mul_(counts)
            if of_weight is not None and weight.dtype == torch.float32:
                of_weight.addmm_(gradient.T, part, beta=float(start > 0))
            elif of_weight is not None:
                product = gradient.T @ part
                of_weight.copy_(product) if start == 0 else of_weight.add_(product)
            del gradient
        ctx.gradients = of_hidden, of_weight
        ctx.dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy can be differentiated once only")
        (of_hidden, of_weight), ctx.gradients = ctx.gradients, None
        if of_hidden is not None:
            of_hidden.mul_(upstream)
        if of_weight is not None:
            of_weight = of_weight.mul_(upstream).to(ctx.dtype)
        return of_hidden, of_weight, None, None, None
