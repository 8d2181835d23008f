"""Run suites for a model, and for the yardsticks that stand beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.ladder import LADDER, expand, of_suite
from hpctrain.evaluate.models import ModelOptions, RunModel, open_model
from hpctrain.evaluate.suites import FLOORS, SuiteOptions, load_suite
from hpctrain.evaluate.yardsticks import yardstick, yardstick_names
from hpctrain.manifest import disk_errors, write_atomically
from hpctrain.progress import say
from hpctrain.tasks.result import Result
from hpctrain.train.rundir import CONFIG_NAME

EVALUATIONS = "evaluations"
"""Directory in a run's that keeps its newest result of each suite."""
NGRAM = "floor:ngram"


def evaluate(
    model: str,
    suites: Sequence[str],
    options: SuiteOptions,
    model_options: ModelOptions,
    floors: bool = True,
) -> Iterator[list[Result]]:
    """For each suite the result of the model, and with `floors` that of each of the suite's yardsticks.

    `model`: a name as `open_candidate` takes it. A yardstick that cannot be had is left out, and said.
    """
    candidate = open_candidate(model, options, model_options)
    for suite in expand(suites):
        own = of_suite(suite, options) if LADDER in suites else options
        settled = settle(suite, candidate, own)
        results = [run_suite(suite, candidate, settled)]
        for line in left_out(results[0]):
            say(line)
        settled = replace(settled, left_out=frozenset(results[0].skipped))
        for name in FLOORS.get(suite, ()) if floors else ():
            if name == candidate.name:
                continue
            try:
                floor = open_candidate(name, settled, model_options)
                results.append(run_suite(suite, floor, settled))
            except (ConfigError, DataError) as reason:
                say(f"{suite}: {name} is left out: {reason}")
        yield results


def open_candidate(name: str, options: SuiteOptions, model_options: ModelOptions) -> Candidate:
    """A yardstick by its name, or a model by its directory or URL. Raises ConfigError, DataError."""
    if name == NGRAM:
        from hpctrain.evaluate.ngram import NgramModel

        if options.shards is None:
            raise ConfigError("floor:ngram is trained on shards; name some by --shards")
        return NgramModel(options.shards)
    if found := yardstick(name):
        return found
    if name.startswith("floor:"):
        raise ConfigError(f"{name}: no such yardstick; valid: {', '.join([*yardstick_names(), NGRAM])}")
    return open_model(name, model_options)


def settle(suite: str, candidate: Candidate, options: SuiteOptions) -> SuiteOptions:
    """The options with what a run knows filled in, so that its floors get the same problems.

    A run's own shards, its context, and the data of its task where the suite is of that task.
    """
    if not isinstance(candidate, RunModel):
        return options
    config = candidate.trained.config
    problems = config.task.data if config.task is not None and config.task.name == suite else None
    return replace(
        options,
        shards=options.shards or config.data.shards,
        problems=options.problems or problems,
        context_tokens=candidate.context_tokens,
    )


def run_suite(suite: str, candidate: Candidate, options: SuiteOptions) -> Result:
    """One candidate on one suite, with the sampling and the speed noted in the result."""
    before = _spent(candidate)
    result = load_suite(suite)(candidate, options)
    tokens, seconds = (after - start for after, start in zip(_spent(candidate), before, strict=True))
    noted = {"step": _step(candidate), "sampling": vars(options.sampling) if seconds else None}
    settings = {**{name: value for name, value in noted.items() if value is not None}, **result.settings}
    speed = tokens / seconds if tokens and seconds else None
    return result.model_copy(update={"settings": settings, "tokens_per_second": speed})


def _spent(candidate: Candidate) -> tuple[float, float]:
    """Tokens and seconds of a candidate that counts them."""
    tokens, seconds = getattr(candidate, "spent", (0, 0.0))
    return float(tokens), float(seconds)


def _step(candidate: Candidate) -> int | None:
    return candidate.trained.checkpoint.state.step if isinstance(candidate, RunModel) else None


def left_out(result: Result) -> list[str]:
    """A line for each reason for which problems were left out, with their number."""
    reasons = Counter(result.skipped.values())
    example = {reason: name for name, reason in reversed(result.skipped.items())}
    return [
        f"{result.suite}: {count} problems left out, such as {example[reason]}: {reason}"
        for reason, count in reasons.most_common(5)
    ]


def save_results(results: Sequence[Result], directories: Sequence[Path]) -> None:
    """Write the results of one suite to each directory as `<suite>.json`. Raises DataError."""
    text = json.dumps([result.model_dump(mode="json") for result in results], indent=1) + "\n"
    for directory in directories:
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            write_atomically(directory / f"{results[0].suite}.json", text)


def result_directories(model: str, out: Path | None) -> list[Path]:
    """Where results belong: the directory that was asked for, and a run's own."""
    own = [Path(model) / EVALUATIONS] if (Path(model) / CONFIG_NAME).is_file() else []
    return [*([out] if out else []), *own]


def table(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The scores of one suite: a row for each group, and for each metric if there are several candidates."""
    keys = sorted({key for result in results for score in result.scores for key in score.group})
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    several = len(results) > 1
    columns = [
        *(result.candidate for result in results if several),
        *dict.fromkeys(s.metric for s in results[0].scores if not several),
    ]
    for result in results:
        for score in result.scores:
            group = [score.group.get(key, "all") for key in keys]
            name = (*group, score.metric) if several else (*group, "")
            row = rows.setdefault(name, {**dict(zip(keys, group, strict=True))})
            if several:
                row["metric"] = score.metric
            row.setdefault(score.unit, score.count)
            row[result.candidate if several else score.metric] = score.value
    heads = [*keys, *(["metric"] if several else []), "problems", "bytes", "tokens"]
    shown = [head for head in heads if any(head in row for row in rows.values())]
    return [{head: _cell(row.get(head)) for head in [*shown, *columns]} for row in rows.values()]


def _cell(value: Any) -> Any:
    return "-" if value is None else value
