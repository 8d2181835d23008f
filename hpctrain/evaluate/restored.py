"""Suites where a piece that was taken out of a program is asked for: compared as text, and run if possible.

Their problems are the held-back records of a task's data, and pieces of the pairs of examples/kernels, under
names that are held back. Of the latter the whole is built and run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpctrain.errors import DataError
from hpctrain.evaluate.averages import Measured, averages
from hpctrain.evaluate.candidate import Answer, Candidate, Sampling
from hpctrain.evaluate.executed import Task, ask, machine, run_tasks, without_fence
from hpctrain.evaluate.held_back import HeldBack, read_pairs
from hpctrain.evaluate.judge import Judge
from hpctrain.evaluate.kernels import default_pairs
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.progress import say
from hpctrain.tasks.generated import SOURCE
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.records import read_problems
from hpctrain.tasks.result import Result, Sample, Verdict

_SET = "set"
_KERNELS = "kernels"
_CORPUS = "corpus"


@dataclass(frozen=True)
class Look:
    """What the text of an answer shows."""

    verdict: Verdict
    detail: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Suite:
    """What is asked, and how answers are looked at."""

    name: str
    metrics: tuple[str, ...]
    """Figures of Look that are averaged."""
    look: Callable[[Problem, str], Look]
    tasks: Callable[[HeldBack], Sequence[Task]]
    """The problems that a kernel pair gives."""


def run_suite(suite: Suite, candidate: Candidate, options: SuiteOptions, judge: Judge) -> Result:
    """Ask for everything, look at the text of all answers, run those in kernels.

    `options.limit` holds for either set. Raises DataError where there is nothing to ask, or nothing that the
    candidate can be asked.
    """
    held_back = _records(suite.name, options)
    tasks = {task.problem.id: task for task in _kernel_tasks(suite, options, judge)}
    skipped = {name: reason for name, task in tasks.items() if (reason := judge.missing(task.job))}
    runnable = [task for name, task in tasks.items() if name not in skipped][: options.limit]
    problems = [*held_back, *(task.problem for task in runnable)]
    if not problems:
        raise DataError(
            f"the suite {suite.name} has nothing to ask: name the data of the task by --problems, or run "
            "from a checkout, with examples/kernels"
        )
    answers = ask(candidate, problems, options, skipped)
    looks = {
        problem.id: [suite.look(problem, without_fence(answer.text)) for answer in answers[problem.id]]
        for problem in problems
        if problem.id in answers
    }
    samples = [
        _sample(problem, answer, look)
        for problem in held_back
        if problem.id in answers
        for answer, look in zip(answers[problem.id], looks[problem.id], strict=True)
    ]
    measured = [
        Measured(problem, [look.figures for look in looks[problem.id]])
        for problem in problems
        if problem.id in looks
    ]
    scores = averages(
        measured, suite.metrics, {_SET: _set_of(tasks), "language": lambda problem: problem.language}
    )
    settings = {**machine(judge), "task problems": len(held_back), "kernel problems": len(runnable)}
    asked = [task for task in runnable if task.problem.id in answers]
    if asked:
        ran = run_tasks(suite.name, _Given(candidate.name, answers), asked, options, judge)
        scores += [
            score.model_copy(update={"group": {_SET: _KERNELS, **score.group}}) for score in ran.scores
        ]
        samples += _with_figures(ran.samples, looks)
        settings |= ran.settings
    return Result(
        suite=suite.name, candidate=candidate.name, scores=scores, samples=samples, settings=settings,
        skipped=skipped,
    )  # fmt: skip


def _records(name: str, options: SuiteOptions) -> list[Problem]:
    if options.problems is None:
        say(f"{name}: no task data (--problems): only the kernels are asked for")
        return []
    return read_problems(options.problems, name, options.limit)


def _kernel_tasks(suite: Suite, options: SuiteOptions, judge: Judge) -> list[Task]:
    root = default_pairs()
    if not root.is_dir():
        say(f"{suite.name}: {root} is not there: nothing is built and run")
        return []
    pairs = [pair for pair in read_pairs(root, options.counts) if pair.job.model == suite.name]
    return [task for pair in pairs for task in suite.tasks(pair)]


def _set_of(tasks: dict[str, Task]) -> Callable[[Problem], str]:
    def name(problem: Problem) -> str:
        if problem.id in tasks:
            return _KERNELS
        return SOURCE if problem.meta.get("source") == SOURCE else _CORPUS

    return name


@dataclass(frozen=True)
class _Given:
    """A candidate whose answers are known already."""

    name: str
    answers: dict[str, list[Answer]]

    def answer(self, problems: Sequence[Problem], sampling: Sampling) -> list[list[Answer]]:
        return [self.answers[problem.id] for problem in problems]


def _sample(problem: Problem, answer: Answer, look: Look) -> Sample:
    shown = problem.prompt if problem.suffix is None else f"{problem.prompt}[...]\n{problem.suffix}"
    return Sample(
        problem=problem.id, task=problem.task, language=problem.language,
        programming_model=problem.programming_model, prompt=shown, answer=answer.text, verdict=look.verdict,
        detail=look.detail, figures=look.figures,
    )  # fmt: skip


def _with_figures(samples: Sequence[Sample], looks: dict[str, list[Look]]) -> list[Sample]:
    """The samples of a run with what their text showed; they come in the order of the answers."""
    left = {name: iter(found) for name, found in looks.items()}
    return [
        sample.model_copy(update={"figures": {**next(left[sample.problem]).figures, **sample.figures}})
        for sample in samples
    ]
