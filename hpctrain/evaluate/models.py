"""Who can be evaluated, by the name that the user gives: runs, exports, endpoints, yardsticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Answer, Candidate, Sampling
from hpctrain.generation.generate import MOST_ROWS
from hpctrain.generation.text import TextGenerator, TextPrompt, text_generator
from hpctrain.tasks.problem import Problem
from hpctrain.train.rundir import CONFIG_NAME
from hpctrain.train.trained import Trained, load_trained

HUGGING_FACE_CONFIG = "config.json"


@dataclass(frozen=True)
class ModelOptions:
    """How a model is reached and run."""

    device: str = "auto"
    """auto, cpu or cuda."""
    rows: int = MOST_ROWS
    """Answers that a local model writes at once."""
    served_model: str = ""
    """Of an endpoint: the name of the model there."""
    chat: bool = False
    """Of an endpoint: ask by chat messages, not by text to complete."""
    key_variable: str = ""
    """Of an endpoint: the environment variable that holds its key."""
    timeout_seconds: float = 120.0
    """Of an endpoint: for each request."""


class RunModel:
    """A run, or what load_trained takes like one."""

    def __init__(self, name: str, trained: Trained, options: ModelOptions) -> None:
        self.name, self.trained = name, trained
        self.generator: TextGenerator = text_generator(trained, options.device, options.rows)

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.generator.context

    @property
    def spent(self) -> tuple[int, float]:
        """Tokens drawn so far, and the seconds that it took."""
        return self.generator.tokens, self.generator.seconds

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        """See Candidate."""
        done = self.generator.complete(
            [text_prompt(problem) for problem in problems],
            max_tokens=sampling.max_tokens, samples=sampling.samples, temperature=sampling.temperature,
            top_p=sampling.top_p, seed=sampling.seed,
        )  # fmt: skip
        return [
            [Answer(as_text(each.text), each.is_cut, each.tokens) for each in answers] for answers in done
        ]

    def problem_with(self, problem: Problem) -> str:
        """Why this problem cannot be answered, or ""."""
        return self.generator.problem_with(text_prompt(problem))


def text_prompt(problem: Problem) -> TextPrompt:
    """A problem in bytes."""
    suffix = None if problem.suffix is None else problem.suffix.encode()
    return TextPrompt(problem.prompt.encode(), problem.language, problem.path, suffix, problem.stop)


def as_text(content: bytes) -> str:
    """Bytes of a model as text; what is not UTF-8 becomes U+FFFD."""
    return content.decode("utf-8", "replace")


def open_model(name: str, options: ModelOptions) -> Candidate:
    """The model of a name: an http(s) URL, a directory of a run, import or export.

    Raises DataError for a directory that is neither, ConfigError for options that an endpoint lacks.
    """
    if name.startswith(("http://", "https://")):
        from hpctrain.evaluate.endpoint import Endpoint

        return Endpoint(name, options)
    place = Path(name)
    if not place.is_dir():
        raise DataError(
            f"{name}: no such directory; give a run, an import, an export or the URL of an endpoint"
        )
    if (place / HUGGING_FACE_CONFIG).is_file() and not (place / CONFIG_NAME).is_file():
        from hpctrain.evaluate.hugging_face import HuggingFaceModel

        return HuggingFaceModel(name, options)
    return RunModel(name, load_trained(place), options)


def require_trained(candidate: Candidate, suite: str) -> Trained:
    """The model itself of a candidate that is a run. Raises ConfigError for any other."""
    if not isinstance(candidate, RunModel):
        raise ConfigError(
            f"--suite {suite}: needs the probabilities of a run or import; {candidate.name} is none"
        )
    return candidate.trained


def problem_with(candidate: Candidate, problem: Problem) -> str:
    """Why a candidate that knows beforehand cannot answer this problem, or ""."""
    return candidate.problem_with(problem) if isinstance(candidate, RunModel) else ""
