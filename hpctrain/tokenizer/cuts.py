"""Where a text can be cut without changing its tokens, so that it can be encoded in short parts.

Merges of byte-pair encoding only ever make pieces of the vocabulary. Between two bytes that stand side by
side in no piece there is thus no merge, and what is left and right of them is encoded as if each stood alone.
The encoder keeps a queue of all possible merges, so short parts take less time than a long text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PART_BYTES = 256


class SafeCuts:
    """Cuts texts at places where no piece of a vocabulary could lie."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        held = [piece for piece in pieces if piece]
        pairs = _pairs(b"".join(held))
        inside = np.ones(len(pairs), bool)
        inside[np.cumsum([len(piece) for piece in held], dtype=np.int64)[:-1] - 1] = False
        self._together = np.zeros(1 << 16, bool)
        self._together[pairs[inside]] = True
        self._together.reshape(256, 256)[:, 0x80:0xC0] = True  # inside a character of UTF-8

    def split(self, text: bytes) -> list[bytes]:
        """The text in parts of about PART_BYTES, longer where there is no place to cut."""
        if len(text) < 2 * PART_BYTES:
            return [text]
        places: npt.NDArray[np.int64] = np.flatnonzero(~self._together[_pairs(text)]) + 1
        wanted = np.arange(PART_BYTES, len(text) - PART_BYTES, PART_BYTES)
        chosen = np.searchsorted(places, wanted)
        cuts = np.unique(places[chosen[chosen < len(places)]]).tolist()
        return [text[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _pairs(text: bytes) -> npt.NDArray[np.uint16]:
    """Every two bytes that stand side by side as one number."""
    codes = np.frombuffer(text, np.uint8)
    pairs: npt.NDArray[np.uint16] = (codes[:-1].astype(np.uint16) << np.uint16(8)) | codes[1:]
    return pairs
