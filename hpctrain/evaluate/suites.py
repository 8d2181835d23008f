"""The suites by name, and where each is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from hpctrain.evaluate.candidate import Candidate, Sampling
from hpctrain.tasks.result import Result


@dataclass(frozen=True)
class SuiteOptions:
    """What the user asked for."""

    sampling: Sampling = field(default_factory=Sampling)
    problems: Path | None = None
    """Directory of problems, where the suite takes one."""
    shards: Path | None = None
    """Held-out text, where the suite takes some; by default the run's own."""
    limit: int | None = None
    """Problems (sequences a language) at most."""
    counts: tuple[int, ...] | None = None
    """Thread and rank counts to run with; by default the problem's own."""
    unsafe: bool = False
    """Run generated code without a sandbox."""
    left_out: frozenset[str] = frozenset()
    """Problems that the model could not be asked: its floors are not asked them either."""
    context_tokens: int | None = None
    """Context of the model that is evaluated: what is cut to fit it is cut so for its floors too."""


Suite = Callable[[Candidate, SuiteOptions], Result]

_SUITES = {
    "bits-per-byte": "hpctrain.evaluate.bits_per_byte",
    "tokens": "hpctrain.evaluate.token_accuracy",
    "fim": "hpctrain.evaluate.fim",
    "syntax": "hpctrain.evaluate.syntax",
    "openmp": "hpctrain.evaluate.directives",
    "mpi": "hpctrain.evaluate.mpi_calls",
    "kernels": "hpctrain.evaluate.kernels",
    "pareval": "hpctrain.evaluate.pareval",
    "serial-to-parallel": "hpctrain.evaluate.programs",
    "translate": "hpctrain.evaluate.programs",
    "race": "hpctrain.evaluate.programs",
    "instruct": "hpctrain.evaluate.programs",
}
FLOORS: dict[str, tuple[str, ...]] = {
    "fim": ("floor:ngram",),
    "syntax": ("floor:ngram",),
    "openmp": ("reference", "floor:parallel-for", "floor:ngram"),
    "mpi": ("reference", "floor:ngram"),
    "kernels": ("reference", "floor:serial-copy", "floor:parallel-for", "floor:ngram"),
    "pareval": ("reference", "floor:ngram"),
    "serial-to-parallel": ("reference", "floor:serial-copy", "floor:parallel-for", "floor:ngram"),
    "translate": ("reference", "floor:ngram"),
    "race": ("reference", "floor:ngram"),
    "instruct": ("reference", "floor:ngram"),
}
"""The yardsticks that stand beside a model's score on each suite."""


def suite_names() -> list[str]:
    """What `--suite` takes."""
    return list(_SUITES)


def load_suite(name: str) -> Suite:
    """The function that runs a suite, `run_<name>` of its module."""
    run: Suite = getattr(import_module(_SUITES[name]), f"run_{name.replace('-', '_')}")
    return run
