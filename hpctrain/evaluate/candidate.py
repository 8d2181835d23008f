"""Who answers problems: a run, an export, an endpoint, or a yardstick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hpctrain.tasks.problem import Problem


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    samples: int = 1
    """Answers for each problem."""
    temperature: float = 0.0
    """0: always the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability are drawn from."""
    max_tokens: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What follows a prompt."""

    text: str
    is_cut: bool = False
    """Whether the answer ended at the limit of tokens, not by itself."""
    tokens: int = 0
    """Tokens drawn; 0 where it is not known."""


class Candidate(Protocol):
    """Answers problems."""

    @property
    def name(self) -> str:
        """As the user gave it."""

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        """For each problem `sampling.samples` answers (a yardstick that knows one gives it as often).

        Raises DataError for a prompt that is longer than the context allows.
        """
