"""Fill in the middle at load time (Bavarian et al., arXiv 2207.14255), keyed by the sample number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hpctrain.config import Section
from hpctrain.loader.cutting import Cuts, Cutter, Tokens
from hpctrain.loader.order import derive_key, keyed_hash

Spans = npt.NDArray[Any]
"""Of SPAN_DTYPE, see `shards.layout`; places count from the start of the sequence."""


class FimConfig(Section):
    """Which share of the documents is rearranged so that the model learns to fill gaps."""

    rate: float = Field(default=0.0, ge=0, le=1)
    """Share of documents rearranged."""
    suffix_first: float = Field(default=0.5, ge=0, le=1)
    """Of these, the share in suffix-prefix-middle order; the others are prefix-suffix-middle."""
    spans: float = Field(default=0.0, ge=0, le=1)
    """Of these, the share whose middle is a loop nest, directive, kernel or body of a function, where the
    document has one; each kind it has is as likely. The others are cut anywhere."""
    cuts: Literal["token", "character"] = "token"
    """Where a document may be cut: between tokens, or between any two characters. Then a cut token is encoded
    anew with those beside it."""


@dataclass(frozen=True)
class FimTokens:
    """The ids that mark the parts of a document."""

    document: int
    content: int
    end: int
    prefix: int
    suffix: int
    middle: int
    pad: int = -1
    """Fills what packing leaves empty; -1 where nothing is packed."""


def rearrange(
    tokens: Tokens,
    sample: int,
    config: FimConfig,
    marks: FimTokens,
    seed: int,
    spans: Spans | None = None,
    cutter: Cutter | None = None,
) -> Tokens:
    """Rearrange some documents of one sequence; the same length comes out, the surplus is cut at the end.

    Each document's content (after its `<content>` mark, or from the start of a sequence that begins inside
    one) is cut at two places into prefix, middle and suffix. What is drawn depends on the seed, the sample
    number and the document's place in the sequence only. `spans` are needed for `config.spans`, `cutter` for
    cuts between characters.
    """
    if config.rate == 0:
        return tokens
    contents = content_spans(tokens, marks)
    drawn = _uniform([derive_key(seed, "fim", sample, number) for number in range(len(contents))])
    prefix_mark, suffix_mark, middle_mark = np.array(
        [[marks.prefix], [marks.suffix], [marks.middle]], dtype=tokens.dtype
    )
    pieces: list[Tokens] = []
    done = 0
    for (start, stop), draws in zip(contents, drawn, strict=True):
        if draws[0] >= config.rate or stop - start < 3:
            continue
        span = (
            _choose(spans, start, stop, draws[5:]) if spans is not None and draws[4] < config.spans else None
        )
        cuts = Cuts(draws[1], draws[2], span)
        prefix, middle, suffix = (cutter or _PLAIN).cut(tokens[start:stop], cuts)
        pieces.append(tokens[done:start])
        if draws[3] < config.suffix_first:
            pieces += [prefix_mark, suffix_mark, suffix, middle_mark, prefix, middle]
        else:
            pieces += [prefix_mark, prefix, suffix_mark, suffix, middle_mark, middle]
        done = stop
    if not pieces:
        return tokens
    return np.concatenate([*pieces, tokens[done:]])[: len(tokens)]


def _choose(spans: Spans, start: int, stop: int, draws: list[float]) -> tuple[int, int, int, int] | None:
    """One of the spans inside a document's visible content, from its start: first a kind, then one of it."""
    inside = spans[(spans["start"] >= start) & (spans["stop"] <= stop)]
    if not len(inside):
        return None
    kinds = np.unique(inside["kind"])
    alike = inside[inside["kind"] == kinds[int(draws[0] * len(kinds))]]
    chosen = alike[int(draws[1] * len(alike))]
    return int(chosen["start"]) - start, int(chosen["stop"]) - start, int(chosen["head"]), int(chosen["tail"])


def content_spans(tokens: Tokens, marks: FimTokens) -> list[tuple[int, int]]:
    """Where each document's content lies in a sequence: after `<content>`, up to `<end>` (excluded)."""
    is_mark = (tokens == marks.document) | (tokens == marks.content) | (tokens == marks.end)
    places = np.flatnonzero(is_mark)
    spans, start = [], 0 if not len(places) or tokens[places[0]] != marks.content else None
    for place in places.tolist():
        if start is not None and place > start:
            spans.append((start, place))
        start = place + 1 if tokens[place] == marks.content else None
    if start is not None and start < len(tokens):
        spans.append((start, len(tokens)))
    return spans


def _uniform(keys: Sequence[int]) -> list[list[float]]:
    """For each key seven numbers in [0, 1)."""
    words = keyed_hash(np.array(keys, np.uint64)[:, None] + _STEPS, 0)
    numbers: list[list[float]] = ((words >> np.uint64(11)) / 2.0**53).tolist()
    return numbers


_STEPS = np.arange(1, 8, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_PLAIN = Cutter()
