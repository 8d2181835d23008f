"""The shape of the model, its presets, and the arithmetic of its size."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hpctrain.config import Section

AttentionBackend = Literal["auto", "eager", "sdpa", "varlen", "flex"]
AttentionBias = Literal["none", "qkv", "all"]
RecomputeLevel = Literal["keep", "cheap", "all"]
"""What of a block is computed again in the backward, see `hpctrain.model.recompute`."""

_SHAPES: dict[str, dict[str, int | bool]] = {
    # hidden, layers, heads, KV heads, MLP; small ones tie the embedding to the head.
    "1m": {"hidden_size": 96, "layers": 4, "heads": 4, "kv_heads": 2, "mlp_size": 256, "tied": True},
    "3m": {"hidden_size": 192, "layers": 4, "heads": 6, "kv_heads": 2, "mlp_size": 512, "tied": True},
    "10m": {"hidden_size": 320, "layers": 6, "heads": 5, "kv_heads": 5, "mlp_size": 864, "tied": True},
    "40m": {"hidden_size": 512, "layers": 10, "heads": 8, "kv_heads": 4, "mlp_size": 1408, "tied": True},
    "125m": {"hidden_size": 768, "layers": 12, "heads": 12, "kv_heads": 4, "mlp_size": 2048, "tied": True},
    "350m": {"hidden_size": 1024, "layers": 24, "heads": 16, "kv_heads": 4, "mlp_size": 2816, "tied": True},
    "1b": {"hidden_size": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "mlp_size": 8192, "tied": True},
    "3b": {"hidden_size": 3072, "layers": 28, "heads": 24, "kv_heads": 8, "mlp_size": 8192, "tied": False},
    "7b": {"hidden_size": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "mlp_size": 12288, "tied": False},
}


class RopeScaling(Section):
    """How rotary frequencies are lowered for a longer context than a model began with."""

    kind: Literal["linear", "llama3"]
    """linear: all frequencies by `factor`. llama3: by wavelength, as in Llama 3.1."""
    factor: float = Field(ge=1)
    """What low frequencies are divided by."""
    low_frequency_factor: float = Field(default=1.0, gt=0)
    """llama3: wavelengths above original_context / this are scaled in full."""
    high_frequency_factor: float = Field(default=4.0, gt=0)
    """llama3: wavelengths below original_context / this stay as they are."""
    original_context: int = Field(default=8192, gt=0)
    """llama3: tokens of context before the scaling."""

    @model_validator(mode="after")
    def _check_order(self) -> RopeScaling:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor {self.high_frequency_factor:g} is not above low_frequency_factor "
                f"{self.low_frequency_factor:g}"
            )
        return self


class ModelConfig(Section):
    """A decoder of the Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    `preset` fills every size that is not given; without a preset all sizes are required.
    """

    preset: str | None = None
    """Name of a shape: 1m, 3m, 10m, 40m, 125m, 350m, 1b, 3b, 7b."""
    hidden_size: int = Field(gt=0)
    """Width of the residual stream."""
    layers: int = Field(gt=0)
    """Number of decoder blocks."""
    heads: int = Field(gt=0)
    """Query heads of each block."""
    kv_heads: int = Field(gt=0)
    """Key and value heads; divides `heads`."""
    mlp_size: int = Field(gt=0)
    """Inner width of the SwiGLU."""
    tied: bool
    """Whether the output head shares the embedding's weight."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None = None
    """How the rotary frequencies are lowered for a longer context; none by default."""
    attention_bias: AttentionBias = "none"
    """Which projections of the attention have a bias: none, query, key and value (Qwen2), or all four."""
    head_width: int | None = Field(default=None, gt=0)
    """Width of one head, where it is not hidden_size / heads."""
    norm_epsilon: float = Field(default=1e-5, gt=0)
    """Added to the mean square in RMSNorm."""
    initial_deviation: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights; residual outputs are divided by sqrt(2 layers) besides."""
    attention: AttentionBackend = "auto"
    """Attention backend; auto takes the quickest, measured at the start of a run on a GPU."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("preset") is None:
            return values
        preset = values["preset"]
        if preset not in _SHAPES:
            raise ValueError(f"unknown preset {preset!r}; valid presets: {', '.join(_SHAPES)}")
        return {**_SHAPES[preset], **values}

    @model_validator(mode="after")
    def _check_heads(self) -> ModelConfig:
        problems = []
        if self.head_width is None and self.hidden_size % self.heads:
            problems.append(f"heads {self.heads} does not divide hidden_size {self.hidden_size}")
        elif self.head_size % 2:
            what = "head_width" if self.head_width else "hidden_size / heads"
            problems.append(f"{what} = {self.head_size} is odd; rotary positions need it even")
        if self.heads % self.kv_heads:
            problems.append(f"kv_heads {self.kv_heads} does not divide heads {self.heads}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.head_width or self.hidden_size // self.heads

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_size

    def identity(self) -> dict[str, Any]:
        """What a run must not change of its model; settings that are newer than a run count where set."""
        newer = ("rope_scaling", "attention_bias", "head_width")
        at_default = {name for name in newer if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(exclude={"preset", "attention", *at_default})

    def parameter_count(self, vocab_size: int) -> int:
        """Parameters of the model, the tied embedding counted once."""
        attention = 2 * self.hidden_size * (self.query_size + self.kv_size)
        if self.attention_bias != "none":
            attention += self.query_size + 2 * self.kv_size
        if self.attention_bias == "all":
            attention += self.hidden_size
        block = attention + 3 * self.hidden_size * self.mlp_size + 2 * self.hidden_size
        embeddings = vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.layers * block + embeddings + self.hidden_size

    def flops_per_token(self, vocab_size: int, sequence_length: int) -> int:
        """Floating-point operations of forward and backward for one token: 6P + 12 L D S.

        P counts the weights of matrix products (the head's, not the embedding look-up's); the attention term
        is not halved for causality. Source: PaLM, appendix B.
        """
        products = self.parameter_count(vocab_size) - (0 if self.tied else vocab_size * self.hidden_size)
        return 6 * products + 12 * self.layers * self.query_size * sequence_length


def presets() -> list[str]:
    """The names of the shapes that `model.preset` takes."""
    return list(_SHAPES)


def layer_costs(config: ModelConfig, vocab_size: int) -> list[int]:
    """Weights that each layer multiplies with, as its relative cost: embedding, blocks, norm, head."""
    block = config.hidden_size * (2 * config.query_size + 2 * config.kv_size + 3 * config.mlp_size)
    return [0, *[block] * config.layers, 0, vocab_size * config.hidden_size]
