"""Synthetic tokens that several tests of the loader read: documents as the shards hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpctrain.loader.fim import FimTokens

MARKS = FimTokens(document=0, content=1, end=2, prefix=3, suffix=4, middle=5)
LANGUAGE = 6
"""Stands for the mark of a language, which comes before a file's name."""
FIRST_PLAIN = 7
"""Tokens from here on mark nothing."""
VOCABULARY = 97

Tokens = npt.NDArray[np.int64]


class ArrayStream:
    """Tokens in memory, read as those of shards are: in a narrow unsigned type."""

    def __init__(self, tokens: Sequence[int] | Tokens) -> None:
        self.array = np.array(tokens, dtype=np.uint16)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint16]:
        assert 0 <= start <= stop <= len(self)
        return self.array[start:stop].copy()


def encode(name: Sequence[int], content: Sequence[int]) -> list[int]:
    """One document: its mark, language and name, its content, and the end."""
    return [MARKS.document, LANGUAGE, *name, MARKS.content, *content, MARKS.end]


def random_documents(tokens: int, seed: int) -> list[list[int]]:
    """Documents of random lengths, at least `tokens` long together."""
    generator = np.random.default_rng(seed)
    documents: list[list[int]] = []
    while sum(map(len, documents)) < tokens:
        name, content = (
            generator.integers(FIRST_PLAIN, VOCABULARY, generator.integers(1, most)).tolist()
            for most in (4, 60)
        )
        documents.append(encode(name, content))
    return documents


def random_stream(tokens: int, seed: int) -> ArrayStream:
    """A stream of `tokens` tokens; the last document may be cut."""
    return ArrayStream([token for document in random_documents(tokens, seed) for token in document][:tokens])
