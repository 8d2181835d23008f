"""The parts of the decoder. Shapes: B sequences, S positions, C hidden width, H heads of width D."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpctrain.model.attention import Attention, document_positions
from hpctrain.model.config import ModelConfig, RopeScaling
from hpctrain.model.loss import Output


class Activations(NamedTuple):
    """What flows from layer to layer (and, as a plain tuple, from pipeline stage to stage)."""

    hidden: Tensor
    """[B,S,C]"""
    positions: Tensor
    """[B,S] int32, counted from the start of each document."""
    boundaries: Tensor
    """[M] int32, see `attention`."""


class Embedding(nn.Module):
    """Token ids to vectors; where tied, also vectors to logits."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, config.hidden_size))

    def forward(self, batch: tuple[Tensor, Tensor]) -> Activations:
        """(tokens [B,S], boundaries [M]) -> activations."""
        tokens, boundaries = batch
        positions = document_positions(boundaries, tokens.numel()).view_as(tokens)
        return Activations(F.embedding(tokens, self.weight), positions, boundaries)

    def output(self, activations: Activations) -> Output:
        """Normed activations -> what logits are made of."""
        return Output(activations[0], self.weight)


class Head(nn.Module):
    """Vectors to logits, where the embedding's weight is not shared."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, config.hidden_size))

    def forward(self, activations: Activations) -> Output:
        """Normed activations -> what logits are made of."""
        return Output(activations[0], self.weight)


class RMSNorm(nn.Module):
    """Root-mean-square norm in fp32 (Zhang and Sennrich, arXiv 1910.07467)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """[...,C] -> [...,C], in the dtype of `hidden`."""
        return self.normalize(hidden, self.weight)

    def normalize(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """The arithmetic, with the weight given."""
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return weight * (wide * scale).to(hidden.dtype)


class FinalNorm(RMSNorm):
    """The norm before the head."""

    def forward(self, activations: Activations) -> Activations:  # type: ignore[override]
        """Normalises `hidden` and passes the rest on."""
        hidden, positions, boundaries = activations
        return Activations(super().forward(hidden), positions, boundaries)


def rotary_frequencies(width: int, theta: float, scaling: RopeScaling | None, device: torch.device) -> Tensor:
    """Angle per position of each pair of a head of `width`: [width / 2] fp32.

    Scaling by wavelength as in Llama 3.1 (Grattafiori et al., arXiv 2407.21783).
    """
    half = width // 2
    frequencies = theta ** -(torch.arange(half, device=device, dtype=torch.float32) / half)
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns = scaling.original_context * frequencies / (2 * math.pi)  # within the original context
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def rotate(heads: Tensor, positions: Tensor, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Rotary position embedding, halves paired as in Llama (Su et al., arXiv 2104.09864).

    `heads` [B,S,H,D], `positions` [B,S]; computed in fp32.
    """
    frequencies = rotary_frequencies(heads.shape[-1], theta, scaling, heads.device)
    angles = positions.float()[..., None, None] * frequencies
    cosine, sine = angles.cos(), angles.sin()
    first, second = heads.float().chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.to(heads.dtype)


class SelfAttention(nn.Module):
    """Grouped-query attention within documents (Ainslie et al., arXiv 2305.13245)."""

    def __init__(self, config: ModelConfig, attention: Attention) -> None:
        super().__init__()
        inputs, output = config.attention_bias != "none", config.attention_bias == "all"
        self.query = _projection(config.hidden_size, config.query_size, inputs)
        self.key = _projection(config.hidden_size, config.kv_size, inputs)
        self.value = _projection(config.hidden_size, config.kv_size, inputs)
        self.output = _projection(config.query_size, config.hidden_size, output)
        self.head_size, self.attention = config.head_size, attention
        self.theta, self.scaling = config.rope_theta, config.rope_scaling

    def project(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B,S,C] -> query, key, value [B,S,heads,D], the first two rotated."""
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_size))
            for projection in (self.query, self.key, self.value)
        )
        return *self.rotate_both(query, key, positions), value

    def rotate_both(self, query: Tensor, key: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary positions for query and key [B,S,heads,D]."""
        return (
            rotate(query, positions, self.theta, self.scaling),
            rotate(key, positions, self.theta, self.scaling),
        )


def _projection(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    """A linear map whose bias, if it has one, begins at zero: the draw must not depend on who builds it."""
    linear = nn.Linear(inputs, outputs, bias=bias)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.mlp_size, bias=False)
        self.up = nn.Linear(config.hidden_size, config.mlp_size, bias=False)
        self.down = nn.Linear(config.mlp_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B,S,C] -> [B,S,C]."""
        output: Tensor = self.down(self.activate(self.gate(hidden), self.up(hidden)))
        return output

    def activate(self, gate: Tensor, up: Tensor) -> Tensor:
        """What lies between the products: SiLU of one, times the other."""
        return F.silu(gate) * up


class Block(nn.Module):
    """One decoder block: pre-norm attention and feed-forward, each added to the residual stream.

    What lies before and after the attention are methods, so that each can be compiled whole.
    """

    def __init__(self, config: ModelConfig, attention: Attention) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.attention = SelfAttention(config, attention)
        self.mlp_norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.mlp = FeedForward(config)

    def forward(self, activations: Activations) -> Activations:
        """Activations -> activations, `hidden` replaced."""
        hidden, positions, boundaries = activations
        query, key, value = self.before(hidden, positions)
        attended = self.attention.attention(query, key, value, boundaries)
        return Activations(self.after(hidden, attended), positions, boundaries)

    def before(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B,S,C] -> query, key, value [B,S,heads,D]."""
        return self.attention.project(self.attention_norm(hidden), positions)

    def after(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Residual stream [B,S,C] and what was attended to [B,S,H,D] -> [B,S,C]."""
        hidden = hidden + self.attention.output(attended.flatten(2))
        output: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return output
