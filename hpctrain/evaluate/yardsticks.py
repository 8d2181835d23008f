"""Candidates that every score is read against: the known solution, and answers that need no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpctrain.evaluate.candidate import Answer, Candidate, Sampling
from hpctrain.tasks.problem import Problem

_ANSWERS: dict[str, Callable[[Problem], str]] = {
    "reference": lambda problem: problem.reference,
    "floor:serial-copy": lambda problem: problem.serial,
    "floor:parallel-for": lambda problem: problem.parallel_for,
}


class Yardstick:
    """Gives the answer that stands in the problem; an empty one where the problem has none of that kind."""

    def __init__(self, name: str) -> None:
        self._name, self._answer = name, _ANSWERS[name]

    @property
    def name(self) -> str:
        """As the user gave it."""
        return self._name

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        """The same answer as often as samples are asked for."""
        return [[Answer(self._answer(problem))] * sampling.samples for problem in problems]


def yardstick_names() -> list[str]:
    """What can stand in a model's place on the command line, `floor:ngram` apart, which needs data."""
    return list(_ANSWERS)


def yardstick(name: str) -> Candidate | None:
    """The yardstick of that name, or None if it is the name of something else."""
    return Yardstick(name) if name in _ANSWERS else None
