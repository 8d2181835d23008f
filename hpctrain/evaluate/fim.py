"""Fill in the middle: loop nests, directives, kernels and bodies of functions cut out of held-out files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpctrain.corpus.models import programming_models
from hpctrain.corpus.structure import SpanKind, spans
from hpctrain.evaluate.averages import Measured, averages
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.executed import ask
from hpctrain.evaluate.heldout_files import HeldOutFile
from hpctrain.evaluate.heldout_problems import collect, head, is_text, require_shards, tail, window_bytes
from hpctrain.evaluate.models import RunModel
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.progress import say
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.result import Result, Sample

PROBLEMS = 100
"""Problems, at most, where the user sets no limit."""
_SHORTEST_BYTES = 8
_ORDER = (SpanKind.DIRECTIVE, SpanKind.LOOP_NEST, SpanKind.KERNEL, SpanKind.FUNCTION)


def run_fim(candidate: Candidate, options: SuiteOptions) -> Result:
    """Exact match and edit similarity of what a candidate puts into the gaps of held-out files.

    Both look past blanks at line ends. Raises ConfigError where there are no shards to take files from.
    """
    shards, size = require_shards(options, "fim"), window_bytes(options)
    problems = collect(shards, lambda file: find_gaps(file, size), options.limit or PROBLEMS)
    if isinstance(candidate, RunModel) and candidate.trained.config.data.fim.rate == 0:
        say(f"fim: {candidate.name} was trained without gaps (data.fim.rate: 0)")
    skipped: dict[str, str] = {}
    answers = ask(candidate, problems, options, skipped)
    measured, samples = [], []
    for problem in problems:
        drawn = answers.get(problem.id, [])
        figures = [figures_of(answer.text, problem.reference) for answer in drawn]
        measured.append(Measured(problem, figures))
        samples += [
            Sample(
                problem=problem.id, task="fim", language=problem.language,
                programming_model=problem.programming_model, prompt=problem.prompt, answer=answer.text,
                verdict="passed" if each["exact match"] else "wrong" if answer.text.strip() else "no answer",
                detail=f"known: {problem.reference}", figures=each,
            )
            for answer, each in zip(drawn, figures, strict=True)
        ]  # fmt: skip
    scores = averages(
        measured, ("exact match", "edit similarity"),
        {"language": lambda problem: problem.language, "span": lambda problem: str(problem.meta["span"])},
    )  # fmt: skip
    settings = {"shards": str(shards), "split": "validation", "bytes of a problem, at most": size}
    return Result(
        suite="fim", candidate=candidate.name, scores=scores, samples=samples, settings=settings,
        skipped=skipped,
    )  # fmt: skip


def find_gaps(file: HeldOutFile, size: int) -> Iterator[Problem]:
    """The spans of a file as problems of at most `size` bytes, a span a third of it at most.

    Those of a kind that a file has seldom come first, so that each kind has its share.
    """
    found = {
        (span.start, span.stop): span.kind
        for span in spans(file.content, file.language)
        if _SHORTEST_BYTES <= span.stop - span.start <= size // 3
    }
    kinds = [[place for place in found if found[place] is kind] for kind in _ORDER]
    models = programming_models(file.content, file.language) or {"serial"}
    for places in sorted((each for each in kinds if each), key=len):
        for start, stop in places:
            room = size - (stop - start)
            before, after = file.content[:start], file.content[stop:]
            suffix = head(after, max(room // 3, room - len(before)))
            prefix = tail(before, room - len(suffix))
            middle = file.content[start:stop]
            if not all(map(is_text, (prefix, middle, suffix))):
                continue
            yield Problem(
                id=f"{file.path}:{start}", task="fim", language=file.language,
                programming_model="+".join(sorted(models)), path=file.path, prompt=prefix.decode(),
                reference=middle.decode(), suffix=suffix.decode(), meta={"span": found[start, stop].value},
            )  # fmt: skip


def figures_of(answer: str, known: str) -> dict[str, float]:
    """Exact match, and edit similarity: 1 less the edit distance by the length of the longer text."""
    mine, theirs = _trimmed(answer), _trimmed(known)
    longer = max(len(mine), len(theirs))
    similar = 1 - edit_distance(mine, theirs) / longer if longer else 1.0
    return {"exact match": float(mine == theirs), "edit similarity": similar}


def edit_distance(first: str, second: str) -> int:
    """Characters to insert, delete or replace to come from one text to the other (Levenshtein)."""
    columns = np.arange(len(second) + 1)
    target = np.array([ord(character) for character in second], np.int64)
    distances = columns
    for row, character in enumerate(first, 1):
        kept = np.minimum(distances[:-1] + (target != ord(character)), distances[1:] + 1)
        # along the row, an insertion costs one a column
        distances = np.minimum.accumulate(np.concatenate([[row], kept]) - columns) + columns
    return int(distances[-1])


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
