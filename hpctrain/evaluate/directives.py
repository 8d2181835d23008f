"""The suite `openmp`: the directive for a loop, compared with what was there, and run where it can be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from hpctrain.corpus.structure import spans
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.executed import Task, without_fence
from hpctrain.evaluate.held_back import HeldBack
from hpctrain.evaluate.judge import Judge, Unit
from hpctrain.evaluate.restored import Look, Suite, run_suite
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.sandbox.run import Sandbox
from hpctrain.tasks.config import CONTEXT_BYTES, Order
from hpctrain.tasks.directive import Directive, Item, find_directives
from hpctrain.tasks.openmp import context_start, function_bodies, loops_with_directives, parallel_for
from hpctrain.tasks.places import line_start, next_line
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.records import read_task_manifest
from hpctrain.tasks.result import Result

METRICS = ("exact match", "constructs", "clause F1")
_NO_DIRECTIVE = Directive((), frozenset())
_END = re.compile(rb"[ \t]*[!cC*]\$omp[ \t]*end[ \t]*(?:parallel[ \t]*)?(?:do|simd)\b", re.IGNORECASE)


def run_openmp(candidate: Candidate, options: SuiteOptions) -> Result:
    """Ask for each loop's directive. Raises LaunchError without a sandbox, DataError without problems.

    The kernels are asked for in the order of the task's data: after the loop, unless all of it is in place.
    """
    details = read_task_manifest(options.problems).details if options.problems else {}
    config = details.get("config", {})
    tasks = partial(
        kernel_tasks,
        order=config.get("order", "loop-first"),
        context_bytes=config.get("context_bytes", CONTEXT_BYTES),
    )
    suite = Suite("openmp", METRICS, look, tasks)
    return run_suite(suite, candidate, options, Judge(Sandbox(options.unsafe)))


@dataclass(frozen=True)
class Comparison:
    """How one answer compares with the known directive."""

    answered: Directive | None
    """None where the answer holds no OpenMP directive."""
    known: Directive

    @property
    def is_exact(self) -> bool:
        """Whether both say the same: order, blanks, lines and Fortran's case apart."""
        return self.answered == self.known

    @property
    def has_constructs(self) -> bool:
        """Whether both begin with the same constructs, such as `parallel for`."""
        return self.answered is not None and self.answered.constructs == self.known.constructs

    @property
    def clause_f1(self) -> float | None:
        """F1 of the clauses, each variable of a list by itself; None where neither has any."""
        answered = (self.answered or _NO_DIRECTIVE).clauses
        return f1(answered, self.known.clauses) if answered or self.known.clauses else None


def f1(answered: frozenset[Item], known: frozenset[Item]) -> float:
    """Harmonic mean of precision and recall; 1 where both are empty."""
    return 2 * len(answered & known) / (len(answered) + len(known)) if answered or known else 1.0


def extract_directive(answer: str, language: str) -> tuple[str, Directive] | None:
    """The lines of an answer's first OpenMP directive, and what it says."""
    content = answer.encode("utf-8", "replace")
    for (start, stop), directive in find_directives(content, language):
        return content[line_start(content, start) : stop].decode(
            "utf-8", "replace"
        ).rstrip() + "\n", directive
    return None


def compare(problem: Problem, answer: str) -> Comparison:
    """Compare an answer with the problem's reference."""
    found, known = (extract_directive(text, problem.language) for text in (answer, problem.reference))
    if known is None:
        raise ValueError(f"{problem.id}: its reference holds no OpenMP directive")
    return Comparison(found[1] if found else None, known[1])


def look(problem: Problem, answer: str) -> Look:
    """What the text of an answer shows."""
    comparison = compare(problem, answer)
    figures = {"exact match": float(comparison.is_exact), "constructs": float(comparison.has_constructs)}
    if (clause_f1 := comparison.clause_f1) is not None:
        figures["clause F1"] = clause_f1
    if comparison.answered is None:
        return Look("no answer", "no OpenMP directive in it", figures)
    detail = f"known: {comparison.known}\nanswered: {comparison.answered}"
    return Look("passed", "", figures) if comparison.is_exact else Look("wrong", detail, figures)


def kernel_tasks(
    pair: HeldBack, order: Order = "loop-first", context_bytes: int = CONTEXT_BYTES
) -> list[Task]:
    """A task for each loop of a pair that threads share: its parallel form without that loop's directive.

    Other directives that make a loop parallel by themselves are taken out too, so that the program is
    parallel by the answer alone; what stands in a parallel region stays parallel by the region. The prompt is
    like that of a record of the task.
    """
    content = pair.problem.reference.encode()
    every = loops_with_directives(content, pair.problem.language)
    found = [each for each in every if set(each[2].constructs) != {"simd"}]
    tasks = []
    for number, (extent, loop, directive) in enumerate(found, 1):
        others = [
            (its_extent, its_loop) for its_extent, its_loop, other in found
            if its_extent != extent and other.starts_team_on_loop and directive.starts_team_on_loop
        ]  # fmt: skip
        parts = _without(content, extent, loop, others)
        reference = content[line_start(content, extent[0]) : extent[1]].decode().rstrip() + "\n"
        problem = replace(
            _problem(pair, parts, order, context_bytes),
            id=f"{pair.problem.id}/{number}", reference=reference,
            parallel_for=parallel_for(pair.problem.language, reference[: -len(reference.lstrip())]),
        )  # fmt: skip
        # Counted calls and threads tell whether it is parallel; a loop of many may have little of the time.
        tasks.append(
            Task(problem, replace(pair.job, repeats=0), _Insert(pair, parts[0], parts[1] + parts[2]))
        )
    return tasks


def _problem(pair: HeldBack, parts: tuple[str, str, str], order: Order, context_bytes: int) -> Problem:
    language, (before, body, _) = pair.problem.language, parts
    content = "".join(parts).encode()
    bodies = function_bodies(spans(content, language))
    start = context_start(content, language, bodies, len(before.encode()), context_bytes)
    shown = content[start : len(before.encode())].decode()
    in_place = order == "pragma-first"
    return replace(
        pair.problem, task="openmp", stop="end", serial="", prompt=shown if in_place else shown + body,
        suffix=body if in_place else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Insert:
    """Makes the unit of an answer: its directive in its place."""

    pair: HeldBack
    before: str
    after: str

    def __call__(self, answer: str) -> Unit:
        found = extract_directive(without_fence(answer), self.pair.problem.language)
        return self.pair.unit(self.before + found[0] + self.after if found else "")


Extent = tuple[int, int]


def _without(
    content: bytes, extent: Extent, loop: Extent, others: Sequence[tuple[Extent, Extent]]
) -> tuple[str, str, str]:
    """The text before a directive, its loop, and the text after that, without directives that are not wanted.

    With each goes the directive that ends it in Fortran.
    """
    cuts = [cut for e, its_loop in [(extent, loop), *others] for cut in _cuts(content, e, its_loop)]
    begin, middle, end = line_start(content, extent[0]), extent[1], next_line(content, loop[1])
    return (
        _cut(content, 0, begin, cuts),
        _cut(content, next_line(content, middle), end, cuts),
        _cut(content, end, len(content), cuts),
    )


def _cuts(content: bytes, extent: Extent, loop: Extent) -> list[Extent]:
    after = next_line(content, loop[1])
    own = (line_start(content, extent[0]), next_line(content, extent[1]))
    return [own, (after, next_line(content, after))] if _END.match(content, after) else [own]


def _cut(content: bytes, start: int, stop: int, cuts: Sequence[Extent]) -> str:
    parts, position = [], start
    for first, last in sorted(cuts):
        if start <= first < stop:
            parts.append(content[position:first])
            position = last
    return b"".join([*parts, content[position:stop]]).decode()
