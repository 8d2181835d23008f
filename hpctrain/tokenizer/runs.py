"""Cut what a text tokenizer would lose out of bytes: bytes that are not UTF-8, and the sign for a space."""

from __future__ import annotations

import re

SPACE_SIGN = "\u2581"
# "surrogateescape" turns each byte that is not UTF-8 into one of U+DC80 to U+DCFF, and back.
_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")
_NOT_TEXT = re.compile(f"([{SPACE_SIGN}\udc80-\udcff]+)")


def split_runs(content: bytes, keep_sign: bool = False) -> list[bytes]:
    """Alternate runs of text and of bytes to encode raw; the first and the last are text, perhaps empty.

    With `keep_sign`, a literal U+2581 is text like any other.
    """
    if content.isascii():
        return [content]
    text = content.decode("utf-8", "surrogateescape")
    parts = (_NOT_UTF8 if keep_sign else _NOT_TEXT).split(text)
    return [content] if len(parts) == 1 else [part.encode("utf-8", "surrogateescape") for part in parts]
