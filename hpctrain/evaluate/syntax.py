"""Syntax: functions of held-out files written anew, compiled in their place without making code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from hpctrain.corpus.models import programming_models
from hpctrain.corpus.structure import SpanKind, spans
from hpctrain.evaluate.averages import Measured, averages
from hpctrain.evaluate.candidate import Answer, Candidate
from hpctrain.evaluate.executed import ask
from hpctrain.evaluate.heldout_files import HeldOutFile
from hpctrain.evaluate.heldout_problems import collect, is_text, require_shards, tail, window_bytes
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.generation.stops import find_end
from hpctrain.progress import progress
from hpctrain.sandbox.run import Sandbox
from hpctrain.sandbox.toolchain import syntax_check, versions, why_missing
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Sample, Verdict

PROBLEMS = 50
"""Problems, at most, where the user sets no limit."""
TRIED = 10
"""Held-out functions that are tried for each problem that is wanted, at most."""

_SHORTEST_BYTES = 20
_DETAIL_CHARS = 2000
_BUILT_WITH = ("mpi", "openmp", "openacc")
_SUFFIXES = re.compile(r"\.(?:[ch]|cc|cpp|cxx|hh|hpp|hxx|cu|f|for|f90|f95|f03|f08|F|FOR|F90|F95|F03|F08)")
"""Of files that a compiler knows how to take; others get the one of their language."""


def run_syntax(candidate: Candidate, options: SuiteOptions) -> Result:
    """The share of functions that still compile in their file when a candidate has written them anew.

    Only functions whose file compiles as it is, by itself, are problems: what compiles says nothing of files
    that lack their headers. How many do is in the settings. Raises ConfigError where there are no shards,
    LaunchError where there is no sandbox.
    """
    shards, size = require_shards(options, "syntax"), window_bytes(options)
    sandbox, limit = Sandbox(options.unsafe), options.limit or PROBLEMS
    tried = collect(shards, partial(find_functions, size=size), limit * TRIED)
    problems, compiled, skipped = _that_compile(sandbox, tried, limit)
    answers = ask(candidate, problems, options, skipped)
    measured, samples = [], []
    with progress("compile", len(problems), "problems") as bar:
        for problem in problems:
            found = [_judge(sandbox, problem, answer) for answer in answers.get(problem.id, ())]
            samples += found
            figures = [{"syntax": float(sample.verdict == "passed")} for sample in found]
            measured.append(Measured(problem, figures))
            bar.advance()
    return Result(
        suite="syntax", candidate=candidate.name, samples=samples,
        scores=averages(measured, ("syntax",), {"language": lambda problem: problem.language}),
        settings={
            "shards": str(shards), "split": "validation", "bytes of a problem, at most": size,
            "files that compile as they are": compiled, "compilers": versions(), "sandbox": sandbox.name,
        },
        skipped=skipped,
    )  # fmt: skip


def find_functions(file: HeldOutFile, size: int) -> Iterator[Problem]:
    """The functions of a file as problems: what stands before the body, and the body with its end.

    The prompt and the body have at most `size` bytes together; the whole file is kept for the compiler.
    """
    models = programming_models(file.content, file.language)
    flagged = "+".join(model for model in _BUILT_WITH if model in models)
    if not is_text(file.content):
        return
    for span in spans(file.content, file.language):
        if span.kind not in (SpanKind.FUNCTION, SpanKind.KERNEL):
            continue
        before = file.content[: span.start]
        length = find_end("function", file.language, before, file.content[span.start :])
        if length is None or not _SHORTEST_BYTES <= length <= size // 2:
            continue
        body, after = file.content[span.start : span.start + length], file.content[span.start + length :]
        yield Problem(
            id=f"{file.path}:{span.start}", task="syntax", language=file.language,
            programming_model="+".join(sorted(models)) or "serial", path=file.path,
            prompt=tail(before, size - length).decode(), reference=body.decode(), stop="function",
            meta={"before": before.decode(), "after": after.decode(), "flags": flagged},
        )  # fmt: skip


def _that_compile(
    sandbox: Sandbox, problems: Iterable[Problem], limit: int
) -> tuple[list[Problem], dict[str, list[int]], dict[str, str]]:
    """The problems whose file compiles as it is; by language [those, tried]; why others were not tried."""
    found: list[Problem] = []
    counts: dict[str, list[int]] = {}
    skipped: dict[str, str] = {}
    verdicts: dict[tuple[str, str], bool] = {}
    for problem in problems:
        if len(found) >= limit:
            break
        if missing := why_missing(problem.language, problem.meta["flags"]):
            skipped[problem.id] = missing
            continue
        key = (problem.language, problem.path)
        if key not in verdicts:
            message = _compiler_message(sandbox, problem, problem.reference)
            verdicts[key] = message is None
            counted = counts.setdefault(problem.language, [0, 0])
            counted[0] += verdicts[key]
            counted[1] += 1
        if verdicts[key]:
            found.append(problem)
    return found, counts, skipped


def _judge(sandbox: Sandbox, problem: Problem, answer: Answer) -> Sample:
    message = _compiler_message(sandbox, problem, answer.text) if answer.text.strip() else ""
    verdict: Verdict = "passed" if message is None else "not built" if answer.text.strip() else "no answer"
    cut = " (cut at the limit of tokens)" if answer.is_cut else ""
    return Sample(
        problem=problem.id, task="syntax", language=problem.language,
        programming_model=problem.programming_model, prompt=problem.prompt, answer=answer.text,
        verdict=verdict, detail=((message or "")[:_DETAIL_CHARS] + cut).strip(),
    )  # fmt: skip


def _compiler_message(sandbox: Sandbox, problem: Problem, body: str) -> str | None:
    """What the compiler says against the file with this body; None if nothing."""
    content = problem.meta["before"] + body + problem.meta["after"]
    suffix = Path(problem.path).suffix
    name = f"code{suffix}" if _SUFFIXES.fullmatch(suffix) else ""
    outcome = syntax_check(sandbox, content, problem.language, problem.meta["flags"], name)
    return None if outcome.status == "ok" else outcome.message
