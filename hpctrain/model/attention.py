"""Causal attention within documents packed into one sequence: one signature, several backends.

Shapes: B sequences of S positions; H query heads and K key/value heads of width D. Documents are given by
`boundaries`, the cumulative lengths over the flattened B*S positions: int32, first 0, last B*S, padded to a
constant size by repeating B*S (so that shapes never depend on the data). No document spans two sequences.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hpctrain.errors import ConfigError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

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

    On CPU the quickest of all by measurement. On a GPU it needs the boundaries on the host (one wait), and
    torch chooses among its kernels: FlashAttention, cuDNN, memory-efficient, plain.
    """
    shape, grouped = query.shape, query.shape[2] != key.shape[2]
    lengths = boundaries.cpu().diff()
    documents: list[int] = lengths[lengths > 0].tolist()
    # Split, not sliced: the gradient of a slice is as large as the whole.
    parts = (
        torch.split_with_sizes(tensor.flatten(0, 1).transpose(0, 1), documents, dim=1)
        for tensor in (query, key, value)
    )
    outputs = [
        F.scaled_dot_product_attention(
            query[None], key[None], value[None], is_causal=True, enable_gqa=grouped
        )[0]
        for query, key, value in zip(*parts, strict=True)
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


class FlexAttention:
    """`torch.nn.attention.flex_attention` under a block mask of the documents; compiled on GPUs.

    All blocks of a forward pass share one mask: it is kept until other boundaries come.
    """

    def __init__(self, device: str) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        self._run = torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention
        self._last: _Masked | None = None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor) -> Tensor:
        """See `Attention`."""
        batch, length, heads, _ = query.shape
        output = self._run(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
            block_mask=self.mask(boundaries, batch, length), enable_gqa=heads != key.shape[2],
        )  # fmt: skip
        assert isinstance(output, Tensor)  # a tuple only where auxiliary results are asked for
        return output.transpose(1, 2)

    def mask(self, boundaries: Tensor, batch: int, length: int) -> BlockMask:
        """The mask of these boundaries: the one made last, where they are the same memory unchanged."""
        last = self._last
        if last is None or not last.is_of(boundaries, batch, length):
            made = document_block_mask(boundaries, batch, length)
            last = self._last = _Masked(boundaries, boundaries._version, batch, length, made)
        return last.mask


class _Masked(NamedTuple):
    """A mask, and what it was made from. Keeping `boundaries` keeps their memory from being used again."""

    boundaries: Tensor
    version: int
    batch: int
    length: int
    mask: BlockMask

    def is_of(self, boundaries: Tensor, batch: int, length: int) -> bool:
        """By memory, not by object: DeepSpeed's hooks pass a detached view of the same to each layer."""
        mine = (self.boundaries.data_ptr(), self.boundaries.numel(), self.version, self.batch, self.length)
        return mine == (boundaries.data_ptr(), boundaries.numel(), boundaries._version, batch, length)


def document_block_mask(boundaries: Tensor, batch: int, length: int, size: int = 128) -> BlockMask:
    """What `create_block_mask` makes of causal attention within documents, in blocks of `size` positions.

    By arithmetic over blocks, as documents lie in order: nothing of length x length is made.
    """
    from torch.nn.attention.flex_attention import BlockMask

    documents = document_ids(boundaries, batch * length).view(batch, length)

    def allowed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents[b, q] == documents[b, k])

    starts = torch.arange(0, length, size, device=boundaries.device)
    stops = (starts + size).clamp(max=length)
    first, last = documents[:, starts], documents[:, stops - 1]
    before = starts[:, None] > starts
    meets = before & (first[:, :, None] == last[:, None, :])
    is_whole = (stops - starts == size)[:, None]  # keys before a query's block are whole anyway
    full = before & is_whole & (last[:, :, None] == first[:, None, :])
    partial = (meets & ~full) | torch.eye(len(starts), dtype=torch.bool, device=boundaries.device)
    return BlockMask.from_kv_blocks(
        *_ordered(partial[:, None]), *_ordered(full[:, None]),
        BLOCK_SIZE=size, mask_mod=allowed, seq_lengths=(length, length),
    )  # fmt: skip


def _ordered(dense: Tensor) -> tuple[Tensor, Tensor]:
    """[..., N] booleans -> how many are set, and the indices, those of the set ones first."""
    indices = dense.int().argsort(dim=-1, descending=True, stable=True)
    return dense.sum(dim=-1, dtype=torch.int32), indices.int()


def make_attention(name: str, device: str) -> Attention:
    """The backend of this name on a device type. One object serves all blocks of a model."""
    if name == "flex":
        return FlexAttention(device)
    return {"eager": eager_attention, "sdpa": sdpa_attention, "varlen": varlen_attention}[name]


def choose_attention(name: str, device: str, precision: str) -> Attention:
    """The attention for a backend name; `auto` is the one that is the quickest as a rule, unmeasured.

    Raises ConfigError naming what there is where the asked backend does not train here.
    """
    available = available_backends(device, precision)
    if name != "auto":
        check_backend(name, device, precision)
    return make_attention(available[0] if name == "auto" else name, device)


def check_backend(name: str, device: str, precision: str) -> None:
    """Raises ConfigError naming what there is where a backend does not train on a device type."""
    available = available_backends(device, precision)
    if name not in available:
        raise ConfigError(
            f"model.attention: {name} cannot train on {device} in {precision}; it has {', '.join(available)}"
        )


def available_backends(device: str, precision: str) -> list[str]:
    """The backends that train on a device type ("cpu", "cuda"), as a rule the quickest first."""
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
