"""How often a model's likeliest token is the next one: in directives, MPI calls and kernel launches."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpctrain.corpus.lexer import Kind, mask
from hpctrain.corpus.structure import SpanKind, spans
from hpctrain.evaluate.bits_per_byte import SEQUENCES
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.heldout_files import heldout_files
from hpctrain.evaluate.models import require_trained
from hpctrain.evaluate.scored import count_sequences, heldout_streams, score_heldout
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.shards.stream import TokenStream
from hpctrain.tasks.result import Result, Score
from hpctrain.tokenizer.codec import Tokenizer

SPANS = ("directive", "MPI call", "kernel launch")
ANYWHERE = "anywhere"
LOOKED_AT_TOKENS = 8_000_000
"""Held-out tokens of a language that are searched for spans at most, from the start."""

_OPENINGS = {
    "MPI call": re.compile(rb"\bP?MPI_[A-Z]\w*\s*\("),
    "kernel launch": re.compile(rb"[\w:]+(?:<[^;{}<>]{0,200}>)?\s*<<<[^;{}]{1,500}?>>>\s*\("),
}
_FORTRAN_MPI = re.compile(rb"\bcall\s+p?mpi_\w+\s*\(", re.IGNORECASE)
_LONGEST_CALL = 4096


def run_tokens(candidate: Candidate, options: SuiteOptions) -> Result:
    """Next-token accuracy of a local model on held-out files, by where a token stands, and by language.

    Of each language and kind of span, sequences from everywhere that hold one; for all text, others from
    everywhere. Raises ConfigError for a candidate whose probabilities are not at hand.
    """
    trained = require_trained(candidate, "tokens")
    shards, limit = options.shards or trained.config.data.shards, options.limit or SEQUENCES
    length = trained.config.data.sequence_length
    plans = {
        language: _plan(stream, language, trained.tokenizer, length, limit)
        for language, stream in heldout_streams(trained, shards).items()
    }
    hits: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    chosen = {language: (plan.stream, plan.sequences) for language, plan in plans.items()}
    for text in score_heldout(trained, chosen):
        for span, which in plans[text.language].where(text.positions).items():
            for key in ((span, ""), (span, text.language)):
                hits[key][0] += int(text.hits[which].sum())
                hits[key][1] += int(which.sum())
    return Result(
        suite="tokens",
        candidate=candidate.name,
        scores=[
            _score(span, language, *hits[span, language])
            for language in ("", *plans)
            for span in (ANYWHERE, *SPANS)
            if hits[span, language][1] or not language
        ],
        settings={"shards": str(shards), "split": "validation", "sequences a language, at most": limit},
    )


@dataclass(frozen=True)
class Plan:
    """What is scored of one language."""

    stream: TokenStream
    length: int
    """Targets of a sequence."""
    spans: dict[str, npt.NDArray[np.int64]]
    """By kind (n, 2): first token of each span in the stream, and the one after its last."""
    anywhere: npt.NDArray[np.int64]
    """Numbers of the sequences that stand for all text."""
    sequences: list[int]
    """Numbers of all sequences, ascending."""

    def where(self, positions: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.bool_]]:
        """Which of these places in the stream stand in each kind of span, and which for all text."""
        which = {span: np.zeros(len(positions), bool) for span in SPANS}
        for span, extents in self.spans.items():
            for first, last in np.searchsorted(positions, extents).tolist():
                which[span][first:last] = True
        return {ANYWHERE: np.isin((positions - 1) // self.length, self.anywhere), **which}


def _plan(stream: TokenStream, language: str, tokenizer: Tokenizer, length: int, limit: int) -> Plan:
    """Find the spans of a stream, and choose sequences with them and without."""
    extents: dict[str, list[tuple[int, int]]] = {span: [] for span in SPANS}
    for file in heldout_files(stream, language, tokenizer, 0, min(len(stream), LOOKED_AT_TOKENS)):
        for span, start, stop in find_hpc_spans(file.content, language):
            extents[span].append(file.tokens_of(start, stop))
    spans = {span: np.array(sorted(found), np.int64).reshape(-1, 2) for span, found in extents.items()}
    anywhere = _spread(np.arange(count_sequences(stream, length)), limit)
    holding = [
        _spread(np.unique(np.maximum(found[:, 0] - 1, 0) // length), limit) for found in spans.values()
    ]
    return Plan(stream, length, spans, anywhere, np.unique(np.concatenate([anywhere, *holding])).tolist())


def _spread(numbers: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
    """At most `limit` of these, from everywhere."""
    if len(numbers) <= limit:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, limit).astype(np.int64)]


def find_hpc_spans(content: bytes, language: str) -> Iterator[tuple[str, int, int]]:
    """What of SPANS a file holds: kind, start and stop of each, calls with their arguments."""
    for span in spans(content, language):
        if span.kind is SpanKind.DIRECTIVE:
            yield "directive", span.start, span.stop
    code = mask(content, language, {Kind.CODE})
    openings = dict(_OPENINGS)
    if language.startswith("fortran"):
        openings["MPI call"] = _FORTRAN_MPI
    for kind, opening in openings.items():
        for found in opening.finditer(code):
            if stop := _closing(code, found.end()):
                yield kind, found.start(), stop


def _closing(code: bytes, position: int) -> int | None:
    """The offset after the parenthesis that closes the one before `position`."""
    depth = 1
    for place in range(position, min(len(code), position + _LONGEST_CALL)):
        depth += (code[place] == ord("(")) - (code[place] == ord(")"))
        if depth == 0:
            return place + 1
    return None


def _score(span: str, language: str, hits: int, count: int) -> Score:
    group = {"span": span, **({"language": language} if language else {})}
    value = hits / count if count else None
    return Score(metric="next-token accuracy", value=value, count=count, unit="tokens", group=group)
