"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from hpctrain.config import Section


class ScheduleConfig(Section):
    """The shape of the learning rate over the run: a linear warm-up, then one of two."""

    kind: Literal["cosine", "wsd"] = "cosine"
    """cosine, or warmup-stable-decay: constant, then a linear descent (Hu et al., arXiv 2404.06395)."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps of linear rise from zero."""
    decay_steps: int = Field(default=0, ge=0)
    """wsd: steps of the descent at the end; 0 takes a tenth of the run."""
    final_share: float = Field(default=0.1, ge=0, le=1)
    """The last learning rate as a share of the peak."""


def learning_rate_at(step: int, total_steps: int, peak: float, schedule: ScheduleConfig) -> float:
    """The learning rate of a step, counted from 1."""
    if step <= schedule.warmup_steps:
        return peak * step / schedule.warmup_steps
    if schedule.kind == "cosine":
        progress = (step - schedule.warmup_steps) / max(1, total_steps - schedule.warmup_steps)
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    else:
        decay = schedule.decay_steps or max(1, total_steps // 10)
        share = min(1.0, max(0.0, (total_steps - step) / decay))
    return peak * (schedule.final_share + (1 - schedule.final_share) * share)
