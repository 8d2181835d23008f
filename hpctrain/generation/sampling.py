"""From logits to tokens. What is drawn for a row depends on its key and step, not on its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hpctrain.loader.order import keyed_hash


def uniform(keys: Sequence[int], step: int) -> list[float]:
    """A number in [0, 1) for each key, at this step."""
    counter = np.array([step + 1], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return [float(keyed_hash(counter, key)[0] >> np.uint64(11)) / 2.0**53 for key in keys]


def choose(logits: Tensor, draws: Sequence[float], temperature: float, top_p: float) -> Tensor:
    """A token for each row of logits [B,V], given a number in [0, 1) a row: [B] int64.

    Temperature 0 takes the likeliest. Otherwise the likeliest tokens that together have probability `top_p`
    are drawn from (Holtzman et al., arXiv 1904.09751), the first of them always among them.
    """
    if temperature <= 0:
        return logits.argmax(-1)
    chances, order = torch.softmax(logits.float() / temperature, -1).sort(-1, descending=True)
    before = chances.cumsum(-1) - chances
    kept = torch.where((before < top_p) | (before == 0), chances, torch.zeros_like(chances))
    heights = kept.cumsum(-1)
    aims = torch.tensor(draws, device=logits.device, dtype=heights.dtype)[:, None] * heights[:, -1:]
    places = torch.searchsorted(heights, aims, right=True).clamp(max=logits.shape[-1] - 1)
    last = (kept > 0).sum(-1, keepdim=True) - 1  # rounding must not lead past what may be drawn
    return order.gather(-1, torch.minimum(places, last))[:, 0]
