"""Causal attention within documents packed into one sequence: one signature, several backends.

Shapes: B sequences of S positions; H query heads and K key/value heads of width D. Documents are given by
`boundaries`, the cumulative lengths over the flattened B*S positions: int32, first 0, last B*S, padded to a
constant size by repeating B*S (so that shapes never depend on the data). No document spans two sequences.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hpctrain.errors import ConfigError

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(query [B,S,H,D], key [B,S,K,D], value [B,S,K,D], boundaries [M]) -> [B,S,H,D]"""


def document_ids(boundaries: Tensor, positions: int) -> Tensor:
    """The document number of each flattened position: [positions] int32, from boundaries [M]."""
    where = torch.arange(positions, device=boundaries.device, dtype=torch.int32)
    return torch.bucketize(where, boundaries, right=True, out_int32=True) - 1


def document_positions(boundaries: Tensor, positions: int) -> Tensor:
    """The position of each flattened token within its document: [positions] int32."""
    where = torch.arange(positions, device=boundaries.device, dtype=torch.int32)
    return where - boundaries[document_ids(boundaries, positions)]


def eager_attention(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
    """The definition, written out with an explicit S x S mask; the truth the others are tested against."""
    batch, length, heads, width = query.shape
    group = heads // key.shape[2]
    key, value = (tensor.repeat_interleave(group, dim=2) for tensor in (key, value))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key).float() * width**-0.5
    documents = document_ids(boundaries, batch * length).view(batch, 1, length, 1)
    causal = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    allowed = causal & (documents == documents.transpose(2, 3))
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1).to(value.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", weights, value)


def sdpa_attention(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
    """One causal `scaled_dot_product_attention` a document: no mask is ever built.

    On CPU the quickest of all by measurement. On a GPU it needs the boundaries on the host (one wait).
    """
    shape = query.shape
    query, key, value = (tensor.flatten(0, 1).transpose(0, 1) for tensor in (query, key, value))
    edges = boundaries.tolist()
    outputs = [
        F.scaled_dot_product_attention(
            query[None, :, start:stop], key[None, :, start:stop], value[None, :, start:stop],
            is_causal=True, enable_gqa=query.shape[0] != key.shape[0],
        )[0]
        for start, stop in itertools.pairwise(edges)
        if stop > start
    ]  # fmt: skip
    return torch.cat(outputs, dim=1).transpose(0, 1).reshape(shape)


def varlen_attention(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
    """FlashAttention over variable lengths (`torch.nn.attention.varlen`); GPUs, 16-bit only."""
    from torch.nn.attention.varlen import varlen_attn

    batch, length, heads, _ = query.shape
    output = varlen_attn(
        query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1),
        boundaries, boundaries, length, length,
        window_size=(-1, 0), enable_gqa=heads != key.shape[2],
    )  # fmt: skip
    assert isinstance(output, Tensor)  # a tuple only where auxiliary results are asked for
    return output.view(batch, length, heads, -1)


def make_flex_attention(device: str) -> Attention:
    """`torch.nn.attention.flex_attention` under a block mask of the documents; compiled on GPUs."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    run = torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
        batch, length, heads, _ = query.shape
        documents = document_ids(boundaries, batch * length).view(batch, length)

        def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (q >= k) & (documents[b, q] == documents[b, k])

        mask = create_block_mask(allowed, batch, None, length, length, device=device)
        output = run(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
            block_mask=mask, enable_gqa=heads != key.shape[2],
        )  # fmt: skip
        assert isinstance(output, Tensor)  # a tuple only where auxiliary results are asked for
        return output.transpose(1, 2)

    return attend


def choose_attention(name: str, device: str, precision: str) -> Attention:
    """The attention for a backend name, or for `auto` the quickest that trains on this device type.

    Raises ConfigError naming what there is where the asked backend does not train here.
    """
    available = available_backends(device, precision)
    if name != "auto" and name not in available:
        raise ConfigError(
            f"model.attention: {name} cannot train on {device} in {precision}; it has {', '.join(available)}"
        )
    chosen = available[0] if name == "auto" else name
    if chosen == "flex":
        return make_flex_attention(device)
    return {"eager": eager_attention, "sdpa": sdpa_attention, "varlen": varlen_attention}[chosen]


def available_backends(device: str, precision: str) -> list[str]:
    """The backends that train on a device type ("cpu", "cuda"), the quickest first."""
    if device != "cuda":
        return ["sdpa", "eager"]  # flex has no backward on CPUs, varlen no kernel
    varlen = ["varlen"] if precision != "fp32" and _has_varlen() else []
    return [*varlen, "flex", "sdpa", "eager"]


def _has_varlen() -> bool:
    """Whether this torch has variable-length attention with grouped queries (2.11 and newer)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return "enable_gqa" in inspect.signature(varlen_attn).parameters
