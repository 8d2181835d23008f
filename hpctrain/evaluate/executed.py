"""Suites whose answers are built and run: ask, judge, and make scores of the verdicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from hpctrain.errors import DataError
from hpctrain.evaluate.candidate import Answer, Candidate
from hpctrain.evaluate.estimators import best_at_k, mean, pass_at_k
from hpctrain.evaluate.judge import Expected, Job, Judge, Judgement, Unit
from hpctrain.evaluate.models import problem_with
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.progress import progress
from hpctrain.sandbox.toolchain import versions
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Sample, Score

_KS = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Task:
    """A problem with what its answers are judged by."""

    problem: Problem
    job: Job
    unit: Callable[[str], Unit]
    """An answer's text as what is built."""


@dataclass(frozen=True)
class Judged:
    """All answers to one problem."""

    problem: Problem
    judgements: list[Judgement]
    is_run: bool = True
    """Whether answers could be run here, or were only built."""
    timings: tuple[str, ...] = ()
    """The figures that an answer which passes has, such as `speedup 4 threads`."""


def run_tasks(
    suite: str, candidate: Candidate, tasks: Sequence[Task], options: SuiteOptions, judge: Judge
) -> Result:
    """Ask the candidate for every problem, judge each answer, and score.

    A problem whose tools are missing here is skipped, with the reason. Raises DataError if a problem's own
    serial code does not build, or if nothing could be asked.
    """
    skipped = {task.problem.id: reason for task in tasks if (reason := judge.missing(task.job))}
    asked = [task for task in tasks if task.problem.id not in skipped][: options.limit]
    answers = ask(candidate, [task.problem for task in asked], options, skipped)
    judged, samples = [], []
    with progress(suite, sum(map(len, answers.values())), "answers") as bar:
        for task in asked:
            if task.problem.id not in answers:
                continue
            found = _judge_all(task, answers[task.problem.id], judge, bar.advance)
            judged.append(Judged(task.problem, found, judge.can_run(task.job), timings(task.job)))
            pairs = zip(answers[task.problem.id], found, strict=True)
            samples += [sample(task.problem, answer, judgement) for answer, judgement in pairs]
    settings = {**machine(judge), "counts": sorted({count for task in asked for count in task.job.counts})}
    return Result(
        suite=suite,
        candidate=candidate.name,
        scores=scores(judged),
        samples=samples,
        settings=settings,
        skipped=skipped,
    )


def ask(
    candidate: Candidate, problems: Sequence[Problem], options: SuiteOptions, skipped: dict[str, str]
) -> dict[str, list[Answer]]:
    """The answers by problem. What cannot be asked, such as a prompt longer than the context, is `skipped`.

    Raises DataError if nothing could be asked.
    """
    refused = {each.id: why for each in problems if (why := problem_with(candidate, each))}
    refused |= dict.fromkeys(options.left_out & {each.id for each in problems}, "the model was not asked")
    if refused and len(refused) == len(problems):
        raise DataError(next(iter(refused.values())))
    skipped |= refused
    problems = [each for each in problems if each.id not in refused]
    try:
        return dict(zip((p.id for p in problems), candidate.answer(problems, options.sampling), strict=True))
    except DataError as reason:
        if len(problems) < 2:
            raise
        first = reason
    answers = {}
    for problem in problems:  # one by one: who cannot be asked must not keep the others from it
        try:
            answers[problem.id] = candidate.answer([problem], options.sampling)[0]
        except DataError as reason:
            skipped[problem.id] = str(reason)
    if not answers:
        raise first
    return answers


def _judge_all(
    task: Task, answers: Sequence[Answer], judge: Judge, advance: Callable[[], None]
) -> list[Judgement]:
    """Judge the answers to one problem; the same text once."""
    try:
        expected: Expected = judge.expect(task.job)
    except DataError as reason:
        raise DataError(f"{task.problem.id}: {reason}") from None
    known: dict[str, Judgement] = {}
    found = []
    for answer in answers:
        text = without_fence(answer.text)
        if text not in known:
            known[text] = judge.judge(task.job, task.unit(text), expected)
        found.append(known[text])
        advance()
    return found


def without_fence(text: str) -> str:
    """The first fenced block of an answer in Markdown, as chat models write it; else all of it."""
    before, fence, rest = text.partition("```")
    if not fence or (before and not before.endswith("\n")):
        return text
    return rest.partition("\n")[2].partition("```")[0]


def timings(job: Job) -> tuple[str, ...]:
    """The names of the speedups that a passed answer has."""
    if not job.repeats or job.model not in ("openmp", "mpi", "mpi+openmp"):
        return ()
    noun = "ranks" if "mpi" in job.model else "threads"
    return tuple(f"speedup {count} {noun}" for count in job.counts)


def scores(judged: Sequence[Judged]) -> list[Score]:
    """build@k, pass@k, speedup@k, efficiency@k: all problems, then by programming model and by language."""
    found = _rates(judged, {})
    for key, field in (("model", "programming_model"), ("language", "language")):
        groups: dict[str, list[Judged]] = {}
        for one in judged:
            groups.setdefault(getattr(one.problem, field), []).append(one)
        if len(groups) > 1:
            found += [score for name in sorted(groups) for score in _rates(groups[name], {key: name})]
    for timing in sorted({name for one in judged for name in one.timings}, key=_by_count):
        found += _speedups([one for one in judged if timing in one.timings], timing)
    return found


def _by_count(timing: str) -> tuple[str, int]:
    _, count, noun = timing.split()
    return noun, int(count)


def _rates(judged: Sequence[Judged], group: dict[str, str]) -> list[Score]:
    built = [[judgement.is_built for judgement in one.judgements] for one in judged]
    passed = [[j.verdict == "passed" for j in one.judgements] for one in judged if one.is_run]
    return [
        Score(
            metric=f"{name}@{k}",
            value=mean([pass_at_k(len(row), sum(row), k) for row in rows]),
            count=len(rows),
            group=group,
        )
        for name, rows in (("build", built), ("pass", passed))
        for k in _ks(judged)
    ]


def _speedups(judged: Sequence[Judged], timing: str) -> list[Score]:
    """An answer that does not pass has a speedup of 0, as the paper has it."""
    _, count, noun = timing.split()
    figures = [
        [j.figures.get(timing, 0.0) if j.verdict == "passed" else 0.0 for j in one.judgements]
        for one in judged
    ]
    return [
        Score(
            metric=f"{name}@{k}",
            value=mean([best_at_k([figure / divisor for figure in row], k) for row in figures]),
            count=len(judged),
            group={noun: count},
        )
        for name, divisor in (("speedup", 1), ("efficiency", int(count)))
        for k in _ks(judged)
    ]


def _ks(judged: Sequence[Judged]) -> list[int]:
    fewest = min((len(one.judgements) for one in judged), default=0)
    return [k for k in _KS if k <= max(fewest, 1)]


def sample(problem: Problem, answer: Answer, judgement: Judgement) -> Sample:
    """An answer with its verdict, for the result."""
    return Sample(
        problem=problem.id,
        task=problem.task,
        language=problem.language,
        programming_model=problem.programming_model,
        prompt=problem.prompt,
        answer=answer.text,
        verdict=judgement.verdict,
        detail=judgement.detail,
        seconds=judgement.seconds,
        figures=judgement.figures,
    )


def machine(judge: Judge) -> dict[str, object]:
    """What the figures were taken with."""
    return {
        "sandbox": judge.sandbox.name,
        "limits": asdict(judge.limits),
        "compilers": versions(),
        "cores": os.cpu_count() or 1,
    }
