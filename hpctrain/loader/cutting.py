"""Cut the tokens of a document in three: between tokens, or anywhere between two characters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpctrain.tokenizer.codec import Tokenizer

Tokens = npt.NDArray[np.int64]
Parts = tuple[Tokens, Tokens, Tokens]
"""Prefix, middle, suffix."""

DEFAULT_WINDOW = 8


class Cuts(NamedTuple):
    """Where to cut: at two places drawn from [0, 1), or around a span."""

    first: float
    second: float
    span: tuple[int, int, int, int] | None
    """First token, token after the last, bytes of the first before it, bytes of the last after it."""


class Cutter:
    """Cuts between tokens; of a span, around every token that it has a byte of."""

    def cut(self, tokens: Tokens, cuts: Cuts) -> Parts:
        """Prefix, middle and suffix of a content of at least one token."""
        if cuts.span:
            first, second = cuts.span[:2]
        else:
            first, second = sorted(int(draw * (len(tokens) + 1)) for draw in cuts[:2])
        return tokens[:first], tokens[first:second], tokens[second:]


class CharacterCutter(Cutter):
    """Cuts between any two characters. A cut inside a token has that token and its neighbours encoded anew.

    Every part decodes to its own bytes. It has the tokens that its text alone would have, as long as a cut
    changes no token further away than `window` tokens. Never shorter than the tokens that were cut: where it
    would be, which is rare, they are cut between tokens.
    """

    def __init__(self, tokenizer: Tokenizer, window: int = DEFAULT_WINDOW) -> None:
        self.tokenizer, self.window = tokenizer, window

    def cut(self, tokens: Tokens, cuts: Cuts) -> Parts:
        """Prefix, middle and suffix of a content of at least one token."""
        ends = self._ends(tokens)
        if cuts.span:
            start, stop, head, tail = cuts.span
            first, second = (int(ends[start - 1]) if start else 0) + head, int(ends[stop - 1]) - tail
        else:
            first, second = sorted(int(draw * (int(ends[-1]) + 1)) for draw in cuts[:2])
        rest, suffix = self._split(tokens, second)
        prefix, middle = self._split(rest, first)
        if len(prefix) + len(middle) + len(suffix) < len(tokens):
            return super().cut(tokens, cuts)
        return prefix, middle, suffix

    def _split(self, tokens: Tokens, place: int) -> tuple[Tokens, Tokens]:
        """The tokens of the first `place` bytes, and of the others; of a character, all go to the second."""
        ends = self._ends(tokens)
        at = int(np.searchsorted(ends, place, side="left"))
        if place == 0 or ends[at] == place:
            return tokens[: at + (place > 0)], tokens[at + (place > 0) :]
        before, after = max(0, at - self.window), at + 1 + self.window
        text = self.tokenizer.decode(tokens[before:after])
        cut = place - (int(ends[before - 1]) if before else 0)
        while cut > 0 and text[cut] & 0xC0 == 0x80:  # inside a character of UTF-8
            cut -= 1
        left, right = self.tokenizer.encode_batch([text[:cut], text[cut:]], num_threads=1)
        return (
            np.concatenate([tokens[:before], left.astype(np.int64)]),
            np.concatenate([right.astype(np.int64), tokens[after:]]),
        )

    def _ends(self, tokens: Tokens) -> npt.NDArray[np.int64]:
        """How many bytes have ended with each token."""
        return np.cumsum(self.tokenizer.token_bytes[tokens], dtype=np.int64)
