"""Cuts inside tokens and around spans, with a real tokenizer and real shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader.synthetic import MARKS, encode

from hpctrain.corpus.document import Document, read_documents
from hpctrain.corpus.structure import spans
from hpctrain.loader.component import Component, Part, spans_of
from hpctrain.loader.cutting import CharacterCutter, Cuts, Cutter
from hpctrain.loader.fim import FimConfig, FimTokens, content_spans, rearrange
from hpctrain.shards.layout import SPAN_DTYPE, SPAN_KINDS, TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.data import fim_tokens

ALWAYS = FimConfig(rate=1.0, suffix_first=0.0)  # whose parts all show


@pytest.fixture(scope="module")
def tokenizer(tokenizer_directory: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_directory)


def parts_of(tokens: np.ndarray, marks: FimTokens) -> list[np.ndarray]:
    """Prefix, middle and suffix of one content in prefix-suffix-middle order."""
    suffix, middle = (int(np.flatnonzero(tokens == mark)[0]) for mark in (marks.suffix, marks.middle))
    assert tokens[0] == marks.prefix
    return [tokens[1:suffix], tokens[middle + 1 :], tokens[suffix + 1 : middle]]


texts = st.one_of(
    st.text(max_size=80).map(str.encode),
    st.binary(max_size=60),
    st.sampled_from(
        [b"      DO 10 I = 1, N\n   10 CONTINUE\n", "é▁ü".encode() * 5, b" " * 70, b"\xff\xc3\xa9\xe2\x96"]
    ),
)


@settings(max_examples=300)
@given(texts.filter(bool), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_the_parts_are_the_text_wherever_it_is_cut(
    tokenizer: Tokenizer, content: bytes, first: float, second: float
) -> None:
    tokens = np.array(tokenizer.encode(content), np.int64)
    for cutter in (Cutter(), CharacterCutter(tokenizer)):
        parts = cutter.cut(tokens, Cuts(first, second, None))
        assert b"".join(tokenizer.decode(part) for part in parts) == content
        assert sum(map(len, parts)) >= len(tokens)
    if content.isascii():
        low, high = sorted(int(draw * (len(content) + 1)) for draw in (first, second))
        found = [tokenizer.decode(part) for part in parts]
        assert found in ([content[:low], content[low:high], content[high:]], [
            tokenizer.decode(part) for part in Cutter().cut(tokens, Cuts(first, second, None))
        ])  # fmt: skip


def test_cut_parts_have_the_tokens_that_their_text_alone_has(
    tokenizer: Tokenizer, documents: list[Document]
) -> None:
    """What a model is asked later: the text before the cursor, encoded by itself."""
    generator, cutter = np.random.default_rng(1), CharacterCutter(tokenizer)
    parts = inside = other = 0
    for document in documents:
        tokens = np.array(tokenizer.encode(document.content), np.int64)
        for _ in range(4):
            cuts = Cuts(*generator.random(2).tolist(), None)
            found = cutter.cut(tokens, cuts)
            inside += sum(map(len, found)) > len(tokens)
            parts += 3
            other += sum(part.tolist() != tokenizer.encode(tokenizer.decode(part)) for part in found)
    assert inside > 0.5 * parts / 3
    assert other < 0.002 * parts


class PieceTokenizer:
    """Pieces of several characters, and one for each byte."""

    pieces = [*(bytes([byte]) for byte in range(256)), "a→é".encode(), "éé".encode(), "x→".encode()]
    token_bytes = np.array([len(piece) for piece in pieces], np.uint16)

    def decode(self, ids: np.ndarray) -> bytes:
        return b"".join(self.pieces[id_] for id_ in ids)

    def encode_batch(self, contents: list[bytes], num_threads: int) -> list[np.ndarray]:
        return [np.frombuffer(content, np.uint8) for content in contents]


def test_a_character_is_not_cut_in_two() -> None:
    tokenizer = PieceTokenizer()
    tokens = np.array([256, 257, 258] * 10, np.int64)
    text, cutter = tokenizer.decode(tokens).decode(), CharacterCutter(tokenizer, window=2)
    seen = set()
    for place in np.linspace(0, 0.999, 300):
        prefix, middle, suffix = cutter.cut(tokens, Cuts(0.0, float(place), None))
        parts = [tokenizer.decode(part).decode() for part in (prefix, middle, suffix)]
        assert "".join(parts) == text
        seen.add(len(parts[1]))
    assert seen == set(range(len(text) + 1))


@pytest.mark.parametrize("cuts", ["token", "character"])
def test_the_middle_is_a_span_of_the_program(
    shards_directory: Path, corpus_directory: Path, cuts: str
) -> None:
    tokenizer = Tokenizer.load(shards_directory / TOKENIZER_DIRECTORY)
    marks, documents = fim_tokens(tokenizer), list(read_documents(corpus_directory))
    config = FimConfig(rate=1.0, suffix_first=0.0, spans=1.0, cuts=cuts)
    cutter = CharacterCutter(tokenizer) if cuts == "character" else None
    exact = middles = 0
    kinds: set[str] = set()
    for language, stream in open_streams(shards_directory, "train").items():
        for sample, place in enumerate(stream.documents(0, len(stream))):
            content = documents[place.index].content
            found = spans(content, language)
            ids = stream.read(place.start, place.stop).astype(np.int64)
            padded = np.concatenate([ids, np.full(2000, marks.document)])  # so that nothing is cut off
            result = rearrange(
                padded, sample, config, marks, 1, stream.spans(place.start, place.stop), cutter
            )
            (start, stop), *_ = content_spans(ids, marks) or [(0, 0)]
            if not found or stop - start < 3:
                continue
            end = int(np.flatnonzero(result == marks.end)[0])
            prefix, middle, suffix = (tokenizer.decode(part) for part in parts_of(result[start:end], marks))
            assert prefix + middle + suffix == content
            holds = [s for s in found if s.start >= len(prefix) and s.stop <= len(prefix) + len(middle)]
            assert holds
            exact += any((s.start, s.stop) == (len(prefix), len(prefix) + len(middle)) for s in holds)
            middles += 1
            kinds |= {span.kind.value for span in holds}
    assert middles > 50
    assert exact == middles if cuts == "character" else exact < middles
    assert kinds == set(SPAN_KINDS)


def test_spans_are_counted_from_the_start_of_a_sequence(shards_directory: Path) -> None:
    stream = open_streams(shards_directory, "train")["cpp"]
    component = Component([Part(stream, 0, len(stream))], 300)
    for number in range(0, len(component), 7):
        (place,) = component.places(number)
        found, expected = spans_of([place]), stream.spans(place.start, place.stop)
        assert np.array_equal(found, expected)
        twice = spans_of([place, place])
        assert np.array_equal(twice["start"][len(found) :], expected["start"] + np.uint64(301))


def some_spans(*extents: tuple[int, int, int]) -> np.ndarray:
    return np.array([(start, stop, 0, 0, kind) for start, stop, kind in extents], SPAN_DTYPE)


def test_the_share_of_spans_is_the_one_asked_for_and_kinds_are_alike() -> None:
    content = list(range(10, 90))
    tokens = np.array([*encode([9], content), *[MARKS.document] * 8], np.int64)
    start = tokens.tolist().index(MARKS.content) + 1
    many = [(start + n, start + n + 2, 0) for n in range(40)]
    known = some_spans(*many, (start + 50, start + 70, 1))
    config = FimConfig(rate=1.0, suffix_first=0.0, spans=0.6)
    middles = []
    for sample in range(2000):
        found = rearrange(tokens, sample, config, MARKS, 1, known)
        end = int(np.flatnonzero(found == MARKS.end)[0])
        middles.append(tuple(parts_of(found[start:end], MARKS)[1].tolist()))
    one, other = tuple(content[50:70]), {tuple(content[n : n + 2]) for n in range(40)}
    assert middles.count(one) / 2000 == pytest.approx(0.3, abs=0.04)
    assert sum(middle in other for middle in middles) / 2000 == pytest.approx(0.3, abs=0.04)


def test_spans_that_a_sequence_cuts_are_not_used_and_draws_stay_as_they_were() -> None:
    content = list(range(10, 40))
    tokens = np.array([*encode([9], content), MARKS.document, *content], np.int64)
    outside = some_spans((0, 4, 0), (30, 200, 1))
    for sample in range(50):
        plain = rearrange(tokens, sample, ALWAYS, MARKS, 1)
        with_spans = rearrange(
            tokens, sample, FimConfig(rate=1.0, suffix_first=0.0, spans=1.0), MARKS, 1, outside
        )
        assert np.array_equal(plain, with_spans)
