"""The shape of a low-rank adapter, and the arithmetic of its size."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from hpctrain.config import Section
from hpctrain.model.config import ModelConfig

Target = Literal["query", "key", "value", "output", "gate", "up", "down"]
TARGETS: tuple[Target, ...] = ("query", "key", "value", "output", "gate", "up", "down")


class AdapterConfig(Section):
    """LoRA (Hu et al., arXiv 2106.09685): two thin matrices beside each chosen one are trained."""

    rank: int = Field(default=8, ge=1)
    """Inner width of the two matrices."""
    alpha: float = Field(default=16.0, gt=0)
    """What they add is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of their inputs left out in training; drawn anew each step from the run's seed."""
    targets: tuple[Target, ...] = TARGETS
    """The matrices of each block that get an adapter."""

    @field_validator("targets")
    @classmethod
    def _each_once(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        if not targets or len(set(targets)) < len(targets):
            raise ValueError(f"name at least one of {', '.join(TARGETS)}, each once")
        return targets

    @property
    def scale(self) -> float:
        """Factor of what the adapter adds."""
        return self.alpha / self.rank

    def parameter_count(self, model: ModelConfig) -> int:
        """Trained parameters."""
        heads, keys = model.query_size, model.kv_size
        hidden, inner = model.hidden_size, model.mlp_size
        sizes = {
            "query": hidden + heads, "key": hidden + keys, "value": hidden + keys, "output": heads + hidden,
            "gate": hidden + inner, "up": hidden + inner, "down": inner + hidden,
        }  # fmt: skip
        return model.layers * self.rank * sum(sizes[target] for target in self.targets)
