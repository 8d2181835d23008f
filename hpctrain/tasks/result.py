"""What an evaluation found: scores, and every answer with its verdict."""

from __future__ import annotations

from typing import Any, Literal, get_args

from hpctrain.config import Section

Verdict = Literal[
    "passed",
    "built",
    "wrong",
    "not built",
    "not parallel",
    "race",
    "crashed",
    "too slow",
    "over limit",
    "no answer",
]
"""passed: right by the problem's judge. built: compiles, and could not be run here. wrong: ran, and gave
something else. over limit: memory, output, files or processes."""
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Score(Section):
    """One figure."""

    metric: str
    """Such as `bits per byte`, `build@1`, `pass@1`, `exact match`."""
    value: float | None
    """None where nothing could be measured."""
    count: int
    """Problems, bytes or tokens that it rests on."""
    unit: Literal["problems", "bytes", "tokens"] = "problems"
    group: dict[str, str] = {}
    """What it is restricted to, such as {language: c, model: openmp}; empty: everything."""
    lower_is_better: bool = False


class Sample(Section):
    """One answer."""

    problem: str
    task: str
    language: str
    programming_model: str
    prompt: str
    answer: str
    verdict: Verdict
    detail: str = ""
    """What the compiler or the driver said, at most some kB."""
    seconds: float = 0.0
    """Of the timed run, where there was one."""
    figures: dict[str, float] = {}
    """Such as speedup by threads: {"speedup 4 threads": 2.9}."""


class Result(Section):
    """One candidate on one suite. `RESULT.json` holds one for the model and one for each floor."""

    suite: str
    candidate: str
    scores: list[Score]
    samples: list[Sample] = []
    settings: dict[str, Any] = {}
    """Sampling, limits, versions of compilers, thread and rank counts really used."""
    tokens_per_second: float | None = None
    skipped: dict[str, str] = {}
    """Problems that were left out, each with its reason, such as a missing compiler."""
