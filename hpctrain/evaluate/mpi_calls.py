"""The suite `mpi`: the MPI calls of a program and their places, compared with what was there, and built."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.executed import Task, without_fence
from hpctrain.evaluate.held_back import HeldBack
from hpctrain.evaluate.judge import Judge, Unit
from hpctrain.evaluate.restored import Look, Suite, run_suite
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.progress import say
from hpctrain.sandbox.run import Outcome, Sandbox
from hpctrain.sandbox.toolchain import build, why_missing
from hpctrain.tasks.mpi import Call, parse_calls, restore, shown_lines, strip_calls
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Verdict

NEAR_LINES = 1
"""So many lines may lie between a call and the place where it was, as in MPIrigen's measure."""
METRICS = ("exact match", "calls F1", "places F1", "statements F1", "build rate")


def run_mpi(candidate: Candidate, options: SuiteOptions) -> Result:
    """Ask for each program's MPI calls. Raises LaunchError without a sandbox, DataError without problems."""
    sandbox = Sandbox(options.unsafe)
    suite = Suite("mpi", METRICS, Looker(sandbox), kernel_tasks)
    return run_suite(suite, candidate, options, Judge(sandbox))


def compare_calls(problem: Problem, answer: str) -> dict[str, float]:
    """The metrics of one answer.

    exact match: every statement, each at its place. calls F1: the names of the routines, wherever they stand.
    places F1: names at most one line from where they were. statements F1: with all arguments, at the place.
    """
    language = problem.language
    answered, known = parse_calls(answer, language), parse_calls(problem.reference, language)
    placed = [[(call.place, call.statement(language)) for call in calls] for calls in (answered, known)]
    names = Counter(call.name() for call in answered) & Counter(call.name() for call in known)
    statements = Counter(placed[0]) & Counter(placed[1])
    total = len(answered) + len(known)
    return {
        "exact match": float(placed[0] == placed[1]),
        "calls F1": _f1(names.total(), total),
        "places F1": _f1(_near(answered, known), total),
        "statements F1": _f1(statements.total(), total),
    }


def _f1(shared: int, total: int) -> float:
    return 2 * shared / total if total else 1.0


def _near(answered: Sequence[Call], known: Sequence[Call]) -> int:
    """How many calls can be paired by name with one near enough; the first that fits is the best choice."""
    free = sorted(answered, key=lambda call: call.place)
    pairs = 0
    for call in sorted(known, key=lambda call: call.place):
        for candidate in free:
            if candidate.name() == call.name() and abs(candidate.place - call.place) <= NEAR_LINES:
                free.remove(candidate)
                pairs += 1
                break
    return pairs


class Looker:
    """Compares answers, and builds whole programs whose known form can be built here."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._builds: dict[str, bool] = {}
        """Whether the known form of a problem builds."""
        self._lacking: set[str] = set()

    def __call__(self, problem: Problem, answer: str) -> Look:
        """What the text of an answer shows."""
        figures = compare_calls(problem, answer)
        verdict: Verdict = "passed" if figures["exact match"] else "wrong"
        if not parse_calls(answer, problem.language):
            verdict = "no answer"
        detail = ""
        if self._can_build(problem):
            done = self._build(problem, answer)
            figures["build rate"] = float(done.status == "ok")
            detail = done.message if done.status != "ok" else ""
            verdict = "not built" if verdict == "wrong" and detail else verdict
        return Look(verdict, detail, figures)

    def _can_build(self, problem: Problem) -> bool:
        if not problem.meta.get("is_whole"):
            return False
        if lacking := why_missing(problem.language, "mpi"):
            if lacking not in self._lacking:
                say(f"mpi: not part of the build rate: {lacking}")
            self._lacking.add(lacking)
            return False
        if problem.id not in self._builds:
            self._builds[problem.id] = self._build(problem, problem.reference).status == "ok"
        return self._builds[problem.id]

    def _build(self, problem: Problem, answer: str) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, problem.path).write_text(put_back(problem, answer), encoding="utf-8")
            return build(
                self.sandbox, Path(folder), [problem.path], "code.o", problem.language, "mpi", ["-c"]
            )


def put_back(problem: Problem, answer: str) -> str:
    """The program with the calls of an answer at their places."""
    return restore(shown_lines(problem.prompt), parse_calls(answer, problem.language))


def kernel_tasks(pair: HeldBack) -> list[Task]:
    """The parallel form of a pair without its MPI calls, as one task."""
    stripped = strip_calls(pair.problem.reference.encode(), pair.problem.language)
    if stripped is None or not stripped.calls:
        return []
    problem = replace(
        pair.problem, task="mpi", prompt=stripped.prompt(), reference=stripped.response(), stop="end",
        serial="", parallel_for="",
    )  # fmt: skip
    return [Task(problem, replace(pair.job, repeats=0), _PutBack(pair, problem))]


@dataclass(frozen=True)
class _PutBack:
    """Makes the unit of an answer: the program with its calls."""

    pair: HeldBack
    problem: Problem

    def __call__(self, answer: str) -> Unit:
        return self.pair.unit(put_back(self.problem, without_fence(answer)))
