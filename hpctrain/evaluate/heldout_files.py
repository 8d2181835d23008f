"""The files of held-out shards as text again, and where their bytes lie among the tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hpctrain.shards.stream import TokenStream
from hpctrain.tokenizer.codec import Tokenizer


@dataclass(frozen=True)
class HeldOutFile:
    """One file of a stream."""

    language: str
    path: str
    content: bytes
    start: int
    """Position in the stream of the first token of the content."""
    ends: npt.NDArray[np.int64]
    """Bytes of content that have ended with each of its tokens."""

    def tokens_of(self, start: int, stop: int) -> tuple[int, int]:
        """The positions in the stream, from and to, of the tokens that have a byte of content[start:stop]."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, stop, side="left"))
        return self.start + first, self.start + last + 1


def heldout_files(
    stream: TokenStream, language: str, tokenizer: Tokenizer, start: int = 0, stop: int | None = None
) -> Iterator[HeldOutFile]:
    """The whole files of which tokens `start` to `stop` - 1 of a stream hold a part, in order."""
    special = tokenizer.special
    stop = len(stream) if stop is None else stop
    for place in stream.documents(start, stop) if start < stop else ():
        ids = stream.read(place.start, place.stop)
        content_at = int(np.argmax(ids == special.content)) + 1
        name_at = int(np.argmax(ids == special.file_name)) + 1
        content_ids = ids[content_at:-1] if ids[-1] == special.end else ids[content_at:]
        yield HeldOutFile(
            language=language,
            path=tokenizer.decode(ids[name_at : content_at - 1]).decode("utf-8", "replace"),
            content=tokenizer.decode(content_ids),
            start=place.start + content_at,
            ends=np.cumsum(tokenizer.token_bytes[content_ids], dtype=np.int64),
        )
