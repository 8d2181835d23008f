"""Cutting a text before it is encoded changes none of its tokens."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.document import Document
from hpctrain.tokenizer import cuts
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.tokenizer.cuts import PART_BYTES, SafeCuts


@pytest.fixture(scope="module")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


def test_documents_have_the_tokens_that_they_have_in_one_piece(
    tokenizer: Tokenizer, documents: list[Document]
) -> None:
    parts = 0
    for document in documents:
        if document.content.isascii():
            whole = tokenizer.processor.encode(document.content, return_type="numpy")
            assert np.array_equal(tokenizer.encode(document.content), whole)
            parts += len(tokenizer._cuts.split(document.content))
    assert parts > 20 * len(documents)


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(["if (", "\n", "  ", "é", "→", "x", "1", "0x", "END DO", "//", "\t", "😀", ")"])
    ).map("".join)
)
def test_any_text_has_the_tokens_that_it_has_in_one_piece(tokenizer: Tokenizer, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "PART_BYTES", 2)
        assert tokenizer.encode(text.encode()) == tokenizer.processor.encode(text.encode())


def test_parts_are_the_text_and_as_short_as_asked_for() -> None:
    splitter = SafeCuts([b"ab", b"b c", b"\n\n", "é".encode()])
    text = (b"ab c\n\n" * 400) + "é".encode() * 100 + b"a" * 5000
    parts = splitter.split(text)
    assert b"".join(parts) == text
    assert all(abs(len(part) - PART_BYTES) < 8 for part in parts[:-1])
    assert all(not (a.endswith(b"a") and b.startswith(b"b")) for a, b in pairwise(parts))
    assert not any(part[0] & 0xC0 == 0x80 for part in parts)
    assert splitter.split(b"") == [b""]
    assert SafeCuts([b"xx"]).split(b"x" * 10_000) == [b"x" * 10_000]
