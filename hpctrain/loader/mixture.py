"""From shard directories to components: the addressable pools that the sample order draws from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from hpctrain.config import Section
from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.fim import FimConfig


class DataConfig(Section):
    """What the model is trained on."""

    shards: Path
    """Directory of token shards."""
    sequence_length: int = Field(default=1024, gt=1)
    """Positions of one training sequence, in tokens."""
    mixture: dict[str, float] = {}
    """Weight of each language, relative to the others; empty: as they occur, each sequence once an epoch."""
    fim: FimConfig = FimConfig()
    """Fill in the middle."""

    @field_validator("mixture")
    @classmethod
    def _positive(cls, mixture: dict[str, float]) -> dict[str, float]:
        wrong = [f"{language}: {weight}" for language, weight in mixture.items() if weight <= 0]
        if wrong:
            raise ValueError(
                f"weights must be positive (leave a language out to skip it); {', '.join(wrong)}"
            )
        return mixture


class Stream(Protocol):
    """Tokens of one language, addressable by position."""

    def __len__(self) -> int: ...
    def read(self, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]: ...  # noqa: D102


class Component:
    """Streams laid end to end and cut into sequences of S + 1 tokens that overlap by one."""

    def __init__(self, streams: Sequence[Stream], sequence_length: int) -> None:
        self.streams, self.sequence_length = list(streams), sequence_length
        self.ends = np.cumsum([len(stream) for stream in streams])

    def __len__(self) -> int:
        """Number of whole sequences."""
        return max(0, (int(self.ends[-1]) - 1) // self.sequence_length)

    def sequence(self, number: int) -> npt.NDArray[np.int64]:
        """Tokens [S + 1] of one sequence; its last is the first of the next."""
        start = number * self.sequence_length
        return self._read(start, start + self.sequence_length + 1)

    def _read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        parts = []
        index = int(np.searchsorted(self.ends, start, side="right"))
        while start < stop:
            stream = self.streams[index]
            base = int(self.ends[index]) - len(stream)
            upto = min(stop, int(self.ends[index]))
            parts.append(stream.read(start - base, upto - base).astype(np.int64))
            start, index = upto, index + 1
        return np.concatenate(parts)


def build_components(
    streams: Mapping[str, Stream], config: DataConfig
) -> tuple[list[Component], tuple[float, ...]]:
    """The components of a mixture and their weights: one a language, or all streams as one without weights.

    Raises ConfigError for languages that the shards lack, DataError if there is less than one sequence.
    """
    missing = sorted(set(config.mixture) - set(streams))
    if missing:
        raise ConfigError(
            f"data.mixture: {config.shards} has no {', '.join(missing)}; it has {', '.join(sorted(streams))}"
        )
    pools = [[streams[name]] for name in config.mixture] or [list(streams.values())]
    components = [Component(pool, config.sequence_length) for pool in pools]
    names = list(config.mixture) or ["the training split"]
    for name, component in zip(names, components, strict=True):
        if not len(component):
            raise DataError(
                f"{config.shards}: {name} holds fewer tokens than one sequence of {config.sequence_length}; "
                "shorten data.sequence_length or leave it out of data.mixture"
            )
    return components, tuple(config.mixture.values()) or (1.0,)
