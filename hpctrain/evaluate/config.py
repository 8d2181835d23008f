"""What is measured, and how: a YAML file, the command line, or both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from hpctrain.config import Section, describe_errors, read_yaml
from hpctrain.errors import ConfigError
from hpctrain.evaluate.candidate import Sampling
from hpctrain.evaluate.ladder import LADDER
from hpctrain.evaluate.suites import SuiteOptions, suite_names


class EvaluationConfig(Section):
    """Suites, how answers are drawn, and how many."""

    suites: tuple[str, ...] = Field(min_length=1)
    """Names of suites; `ladder` stands for five of them, from easy to hard."""
    problems: Path | None = None
    """Directory of problems, where the suite takes one; of `ladder`, a directory with one for each suite."""
    shards: Path | None = None
    """Held-out text, instead of that of the run."""
    samples: int = Field(default=1, ge=1)
    """Answers to each problem; several need a temperature."""
    temperature: float = Field(default=0.0, ge=0)
    """0: always the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens that together have this probability are drawn from."""
    max_tokens: int = Field(default=512, ge=1)
    """Tokens of an answer, at most."""
    seed: int = Field(default=0, ge=0)
    """Decides what is drawn."""
    limit: int | None = Field(default=None, ge=1)
    """Problems of each suite (sequences of each language), at most; none: what the suite has."""
    counts: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Threads or ranks that programs are run with; none: the problem's own."""
    floors: bool = True
    """Whether the yardsticks of each suite are measured too."""

    @field_validator("suites")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [*suite_names(), LADDER]
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"{', '.join(unknown)}: unknown; valid: {', '.join(known)}")
        return names

    @field_validator("counts")
    @classmethod
    def _positive(cls, counts: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if counts is not None and min(counts) < 1:
            raise ValueError("threads and ranks are 1 or more")
        return counts

    @model_validator(mode="after")
    def _samples_differ(self) -> EvaluationConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples: several answers only differ with a temperature above 0")
        return self

    def options(self, unsafe: bool) -> SuiteOptions:
        """As suites take them; `unsafe` is never a matter of a file."""
        sampling = Sampling(self.samples, self.temperature, self.top_p, self.max_tokens, self.seed)
        return SuiteOptions(
            sampling, problems=self.problems, shards=self.shards, limit=self.limit, counts=self.counts,
            unsafe=unsafe,
        )  # fmt: skip


def read_evaluation(path: Path | None, given: Mapping[str, Any]) -> EvaluationConfig:
    """The config of a file, if any, with what the command line gives instead.

    Raises ConfigError with all that is wrong.
    """
    tree = read_yaml(path) if path else {}
    try:
        return EvaluationConfig.model_validate({**tree, **given})
    except ValidationError as error:
        problems = describe_errors(error, EvaluationConfig)
        hint = "" if "suites" in {**tree, **given} else "name suites by --suite, or a --config that does"
        raise ConfigError([*problems, *([hint] if hint else [])]) from None
