"""From sample numbers back to the files: what of which document the sequences of a step hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hpctrain.loader.batches import SampleReader
from hpctrain.loader.order import Indices
from hpctrain.shards.stream import DocumentPlace, TokenStream
from hpctrain.tokenizer.codec import Tokenizer

_HEAD_TOKENS = 256


@dataclass(frozen=True)
class Traced:
    """What one sequence holds of one document. Bytes count from 0 up to `byte_stop` - 1, lines from 1."""

    sample: int
    source: str
    """Empty where the shards do not know sources."""
    path: str
    language: str
    document: int
    """Place in the corpus."""
    byte_start: int
    byte_stop: int
    first_line: int
    last_line: int
    tokens: int
    """Marks and name included."""


def trace(reader: SampleReader, samples: Indices, tokenizer: Tokenizer) -> Iterator[Traced]:
    """The documents in the sequences of these samples, in turn, by the order that training reads them in.

    Fill in the middle moves tokens within a document, and cuts a few at the end of a sequence.
    """
    for sample, component, number in zip(samples.tolist(), *reader.order.locate(samples), strict=True):
        for place in reader.components[component].places(number):
            for document in place.stream.documents(place.start, place.stop):
                yield _trace(sample, place.stream, document, (place.start, place.stop), tokenizer)


def _trace(
    sample: int, stream: TokenStream, document: DocumentPlace, extent: tuple[int, int], tokenizer: Tokenizer
) -> Traced:
    begin, end = max(extent[0], document.start), min(extent[1], document.stop)
    size = _HEAD_TOKENS
    while True:
        ids = stream.read(document.start, min(document.start + size, document.stop))
        marks = np.flatnonzero(ids == tokenizer.special.content)
        if len(marks):
            break
        size *= 2
    head = int(marks[0]) + 1
    content = document.start + head
    first, last = max(begin, content), max(content, min(end, document.stop - 1))
    before = tokenizer.decode(stream.read(content, first))
    inside = tokenizer.decode(stream.read(first, max(first, last)))
    line = before.count(b"\n") + 1
    name_at = int(np.argmax(ids == tokenizer.special.file_name)) + 1
    return Traced(
        sample=sample,
        source=document.source,
        path=tokenizer.decode(ids[name_at : head - 1]).decode("utf-8", "surrogateescape"),
        language=stream.language,
        document=document.index,
        byte_start=len(before),
        byte_stop=len(before) + len(inside),
        first_line=line,
        last_line=line + inside[:-1].count(b"\n"),
        tokens=end - begin,
    )
