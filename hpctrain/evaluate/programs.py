"""The suites of generated programs: serial-to-parallel, translate and instruct by running, race by its word.

Problems are the test records of a task's data: program shapes that were not in training. Inputs are drawn
when the suite runs, so they are in no prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Answer, Candidate
from hpctrain.evaluate.driver import Argument, Interface, c_driver
from hpctrain.evaluate.estimators import mean
from hpctrain.evaluate.executed import Task, ask, run_tasks
from hpctrain.evaluate.judge import Job, Judge, Unit
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.sandbox.run import Sandbox
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.records import read_problems
from hpctrain.tasks.result import Result, Sample, Score, Verdict

TOLERANCE = 1e-9
"""Largest difference that passes, relative to max(1, |serial value|): sums may be made in another order."""
COUNTS = (1, 2, 4)
_TIMED_CALLS = 3
_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_DATA_CLAUSE = re.compile(r"\b(?:reduction|private)\b|\batomic\b", re.IGNORECASE)
_VARIABLE = re.compile(r"\W*yes\W+(?:in\W+)?(\w+)", re.IGNORECASE)


def run_serial_to_parallel(candidate: Candidate, options: SuiteOptions) -> Result:
    """Serial code in, the same with OpenMP, MPI or CUDA out: built, run, compared, timed."""
    return _run("serial-to-parallel", candidate, options)


def run_translate(candidate: Candidate, options: SuiteOptions) -> Result:
    """Fortran in, C or C++ out, and back: built, run, compared."""
    return _run("translate", candidate, options)


def run_instruct(candidate: Candidate, options: SuiteOptions) -> Result:
    """A request in English, code out: built, run, compared."""
    return _run("instruct", candidate, options)


def run_race(candidate: Candidate, options: SuiteOptions) -> Result:
    """Whether a loop has a data race: the answer's first word, against what is known of the program."""
    problems = read_problems(_directory("race", options), "race", options.limit)
    skipped: dict[str, str] = {}
    answers = ask(candidate, problems, options, skipped)
    judged = [Heard(p, answer) for p in problems if p.id in answers for answer in answers[p.id]]
    return Result(
        suite="race", candidate=candidate.name, scores=race_scores(judged),
        samples=[heard.sample() for heard in judged], skipped=skipped,
    )  # fmt: skip


@dataclass(frozen=True)
class Heard:
    """An answer about a race beside the truth."""

    problem: Problem
    answer: Answer

    @property
    def truth(self) -> str:
        """yes or no."""
        return first_word(self.problem.reference)

    @property
    def is_right(self) -> bool:
        """Whether the answer begins with the right word."""
        return first_word(self.answer.text) == self.truth

    @property
    def rule_is_right(self) -> bool:
        """Whether it would be right to say yes wherever the directive has no clause about data."""
        return ("no" if _DATA_CLAUSE.search(self.problem.prompt) else "yes") == self.truth

    @property
    def names_variable(self) -> bool:
        """Whether the answer names the variable that is raced for."""
        named, known = _VARIABLE.match(self.answer.text), _VARIABLE.match(self.problem.reference)
        return named is not None and known is not None and named[1].lower() == known[1].lower()

    def sample(self) -> Sample:
        """For the result."""
        verdict: Verdict = (
            "passed" if self.is_right else "wrong" if first_word(self.answer.text) else "no answer"
        )
        return Sample(
            problem=self.problem.id, task="race", language=self.problem.language,
            programming_model=self.problem.programming_model, prompt=self.problem.prompt,
            answer=self.answer.text, verdict=verdict,
            detail="" if self.is_right else f"known: {self.problem.reference.strip()}",
        )  # fmt: skip


def first_word(answer: str) -> str:
    """yes or no, where an answer begins with that; else empty."""
    found = _WORD.match(answer)
    return found[1].lower() if found else ""


def race_scores(judged: Sequence[Heard]) -> list[Score]:
    """Accuracy, the same balanced over both truths, that of two rules that read no code, and variables named.

    The rules: the better constant answer, and yes wherever there is no clause about data.
    """
    by_truth = {truth: [h for h in judged if h.truth == truth] for truth in ("yes", "no")}
    rates = [mean([float(h.is_right) for h in group]) for group in by_truth.values()]
    balanced = mean(rates) if all(rate is not None for rate in rates) else None
    most = max(map(len, by_truth.values()), default=0)
    racy, rule = by_truth["yes"], mean([float(h.rule_is_right) for h in judged])
    found = [
        Score(metric="accuracy", value=mean([float(h.is_right) for h in judged]), count=len(judged)),
        Score(metric="balanced accuracy", value=balanced, count=len(judged)),
        Score(metric="majority's accuracy", value=most / len(judged) if judged else None, count=len(judged)),
        Score(metric="clause rule's accuracy", value=rule, count=len(judged)),
        Score(metric="variable named", value=mean([float(h.names_variable) for h in racy]), count=len(racy)),
    ]
    languages = sorted({h.problem.language for h in judged})
    for language in languages if len(languages) > 1 else ():
        own = [float(h.is_right) for h in judged if h.problem.language == language]
        found.append(Score(metric="accuracy", value=mean(own), count=len(own), group={"language": language}))
    return found


def _run(suite: str, candidate: Candidate, options: SuiteOptions) -> Result:
    judge = Judge(Sandbox(options.unsafe))
    problems = read_problems(_directory(suite, options), suite)
    tasks = [_task(problem, options.counts) for problem in problems]
    return run_tasks(suite, candidate, tasks, options, judge)


def _directory(suite: str, options: SuiteOptions) -> Path:
    if options.problems is None:
        raise ConfigError(
            f"--problems: the suite {suite} needs the directory of the task's data; make it with "
            f"`hpctrain tasks build configs/finetune/{suite}.yaml`"
        )
    return options.problems


def _task(problem: Problem, counts: tuple[int, ...] | None) -> Task:
    """A problem with the serial code and the driver that its record describes. Raises DataError."""
    try:
        called = problem.meta["calling"]
        serial, entry = str(problem.meta["serial_code"]), str(called["entry"])
        interface = Interface(
            returns=called["returns"], arguments=tuple(Argument.parse(text) for text in called["arguments"]),
            cases=tuple(called["cases"]), timed=called["timed"], by_reference=called["by_reference"],
        )  # fmt: skip
    except (KeyError, TypeError) as reason:
        raise DataError(f"{problem.id}: its record does not say how the answer is called: {reason}") from None
    language = problem.language
    job = Job(
        serial=Unit(serial, language, entry, problem.path),
        model="" if problem.programming_model == "serial" else problem.programming_model,
        driver=Unit(c_driver(interface), language if language in ("cpp", "cuda") else "c"),
        counts=counts or COUNTS,
        tolerance=TOLERANCE,
        repeats=_TIMED_CALLS,
    )
    return Task(problem, job, lambda text: Unit(text, language, entry, problem.path))
