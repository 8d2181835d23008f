"""A key/value cache for the layer list: the model's own blocks run, with an attention that remembers.

Rows of different lengths stand in one batch, filled up on the right: a row's keys lie at their positions,
and what fills it up is overwritten by what is generated. Shapes: B rows of S tokens; K key/value heads of
width D; T positions at most; vocabulary V.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpctrain.model.blocks import Activations, SelfAttention
from hpctrain.model.transformer import Transformer


class CachedModel:
    """A model that is fed prompts once, and then a token a row at a time."""

    def __init__(self, model: Transformer, capacity: int) -> None:
        """`capacity`: positions that a row may come to, T."""
        self.model, self.capacity = model, capacity
        self._keys: dict[int, Tensor] = {}  # by block: [B,K,T,D]
        self._values: dict[int, Tensor] = {}
        self._positions: Tensor | None = None  # [B] of the tokens that are fed; None while prompts are
        self._mask: Tensor | None = None

    def prefill(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Feed prompts [B,S], of which row b has `lengths[b]` tokens; the logits [B,V] after each."""
        self._positions = None
        return self._run(tokens, None, lengths - 1)

    def step(self, tokens: Tensor, positions: Sequence[int]) -> Tensor:
        """Feed one token a row, [B], each at its position; the logits [B,V] after it."""
        places = torch.tensor(positions, device=tokens.device)
        self._positions = places
        self._mask = (torch.arange(max(positions) + 1, device=tokens.device) <= places[:, None])[
            :, None, None
        ]
        return self._run(tokens[:, None], places[:, None], torch.zeros_like(places))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order; a row may be taken several times."""
        for store in (self._keys, self._values):
            for number, tensor in store.items():
                store[number] = tensor[rows]

    def attend(self, number: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The attention of block `number`: [B,S,H,D] from query [B,S,H,D], key and value [B,S,K,D]."""
        grouped = query.shape[2] != key.shape[2]
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        if self._positions is None:
            self._keys[number], self._values[number] = self._reserve(key), self._reserve(value)
            attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
            return attended.transpose(1, 2)
        assert self._mask is not None
        keys, values = self._keys[number], self._values[number]
        rows = torch.arange(len(keys), device=keys.device)
        keys[rows, :, self._positions], values[rows, :, self._positions] = key[:, :, 0], value[:, :, 0]
        seen = self._mask.shape[-1]
        attended = F.scaled_dot_product_attention(
            query, keys[:, :, :seen], values[:, :, :seen], attn_mask=self._mask, enable_gqa=grouped
        )
        return attended.transpose(1, 2)

    def _reserve(self, part: Tensor) -> Tensor:
        rows, heads, length, width = part.shape
        whole = part.new_zeros(rows, heads, max(self.capacity, length), width)
        whole[:, :, :length] = part
        return whole

    def _run(self, tokens: Tensor, positions: Tensor | None, last: Tensor) -> Tensor:
        """The layer list in turn; the head sees position `last[b]` of each row only."""
        rows, length = tokens.shape
        boundaries = torch.arange(rows + 1, device=tokens.device, dtype=torch.int32) * length
        state: Any = (tokens, boundaries)
        for layer in self.model.layers:
            module = self.model.get_submodule(layer.shares or layer.name)
            if layer is self.model.layers[-1]:
                state = _only(state, last)
            state = layer.forward(module, state) if layer.forward else module(state)
            if layer is self.model.layers[0] and positions is not None:
                state = state._replace(positions=positions.to(state.positions.dtype))
        logits: Tensor = state.logits()[:, 0]
        return logits


def _only(state: Activations, last: Tensor) -> Activations:
    rows = torch.arange(len(last), device=last.device)
    return state._replace(hidden=state.hidden[rows, last][:, None])


@contextmanager
def cached(model: Transformer, capacity: int) -> Iterator[CachedModel]:
    """Within, the model's blocks attend through a cache; afterwards the model is as before."""
    remembering = CachedModel(model, capacity)
    attentions = [module for module in model.modules() if isinstance(module, SelfAttention)]
    before = [module.attention for module in attentions]
    try:
        for number, module in enumerate(attentions):
            module.attention = _of_block(remembering, number)
        with torch.inference_mode():
            yield remembering
    finally:
        for module, attention in zip(attentions, before, strict=True):
            module.attention = attention


def _of_block(remembering: CachedModel, number: int) -> Any:
    def attend(query: Tensor, key: Tensor, value: Tensor, _boundaries: Tensor) -> Tensor:
        return remembering.attend(number, query, key, value)

    return attend
