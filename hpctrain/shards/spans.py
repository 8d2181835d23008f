"""Spans of bytes in a document's content as spans of its tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hpctrain.corpus.structure import SpanKind, spans
from hpctrain.shards.layout import SPAN_DTYPE, SPAN_KINDS

_NUMBER = {SpanKind(name): number for number, name in enumerate(SPAN_KINDS)}


def find_token_spans(
    content: bytes,
    language: str,
    ids: npt.NDArray[Any],
    content_at: int,
    token_bytes: npt.NDArray[np.uint16],
) -> npt.NDArray[Any]:
    """The spans of a document in its tokens, an array of SPAN_DTYPE with starts from the document's own.

    `ids`: the document's tokens, of which those from `content_at` up to the last but one are `content`;
    `token_bytes`: the bytes of each id. A span takes in every token that it has a byte of.
    """
    found = spans(content, language)
    result = np.empty(len(found), SPAN_DTYPE)
    if not found:
        return result
    ends = np.cumsum(token_bytes[ids[content_at:-1]], dtype=np.int64)
    starts, stops = np.array([(span.start, span.stop) for span in found], np.int64).T
    first = np.searchsorted(ends, starts, side="right")
    last = np.searchsorted(ends, stops, side="left")
    result["start"], result["stop"] = content_at + first, content_at + last + 1
    result["head"] = starts - np.where(first > 0, ends[first - 1], 0)
    result["tail"] = ends[last] - stops
    result["kind"] = [_NUMBER[span.kind] for span in found]
    return result
