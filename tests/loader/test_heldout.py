"""Held-out text: what counts is content and its end, each exactly once, under every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader.synthetic import MARKS, VOCABULARY, ArrayStream, encode, random_documents, random_stream

from hpctrain.corpus.document import read_documents
from hpctrain.loader.heldout import HeldOut, build_heldout
from hpctrain.parallel.topology import Topology
from hpctrain.shards.reader import open_streams
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.data import fim_tokens

IGNORED = -100
TOKEN_BYTES = np.concatenate([np.zeros(7), 1 + np.arange(7, VOCABULARY) % 9]).astype(np.uint16)
"""Marks stand for no bytes, the others for 1 to 9."""


def build(
    stream: ArrayStream, length: int, micro: int = 2, replicas: int = 1, limit: int = 10**6
) -> list[HeldOut]:
    """The held-out batches of every rank."""
    return [
        build_heldout({"c": stream}, MARKS, TOKEN_BYTES, Topology(replicas, rank, 1), length, micro, limit)[
            "c"
        ]
        for rank in range(replicas)
    ]


def stream_of(documents: list[list[int]]) -> ArrayStream:
    return ArrayStream([token for document in documents for token in document])


def content_and_ends(tokens: list[int]) -> list[int]:
    """What counts, by a plain loop: every token after `<content>` up to `<end>`, the end included."""
    counted, inside = [], False
    for token in tokens:
        if inside:
            counted.append(token)
        inside = token != MARKS.end and (inside or token == MARKS.content)
    return counted


def counted_of(parts: list[HeldOut]) -> list[int]:
    """The targets that count, in the order of the text: micro-batches were dealt to the ranks in turn."""
    steps = zip(*(part.micro_batches for part in parts), strict=True)
    targets = [batch.targets for step in steps for batch in step]
    flat = torch.cat(targets).flatten()
    return flat[flat != IGNORED].tolist()


@settings(max_examples=60)
@given(
    st.integers(10, 300),
    st.integers(0, 50),
    st.integers(8, 40),
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
)
def test_counted_targets_are_exactly_content_and_its_end(
    tokens: int, seed: int, length: int, micro: int, replicas: int
) -> None:
    stream = random_stream(tokens, seed)  # which ends anywhere in a document
    parts = build(stream, length, micro, replicas)
    expected = content_and_ends(stream.array.tolist())
    assert counted_of(parts) == expected
    for part in parts:
        assert part.tokens == len(expected)
        assert part.content_bytes == int(TOKEN_BYTES[expected].sum())


@pytest.mark.parametrize("length", [8, 16, 33])
def test_every_layout_counts_the_same(length: int) -> None:
    stream = stream_of(random_documents(400, seed=3))
    totals = set()
    for replicas in (1, 2, 4):
        parts = build(stream, length, micro=2, replicas=replicas)
        assert len({len(part.micro_batches) for part in parts}) == 1, "ranks would wait for each other"
        assert len({(part.positions, part.tokens, part.content_bytes) for part in parts}) == 1
        assert parts[0].positions == sum(b.tokens.numel() for part in parts for b in part.micro_batches)
        totals.add((parts[0].tokens, parts[0].content_bytes, tuple(counted_of(parts))))
    assert len(totals) == 1


def test_padding_counts_for_nothing() -> None:
    documents = random_documents(50, seed=4)
    stream = stream_of(documents)
    (part,) = build(stream, length=64, micro=4)
    (batch,) = part.micro_batches
    text = len(stream) - 1
    assert 48 < text < 128
    assert bool((batch.targets.flatten()[text:] == IGNORED).all())
    assert bool((batch.tokens.flatten()[text + 1 :] == MARKS.end).all())
    assert part.positions == 4 * 64
    assert part.tokens == len(content_and_ends(stream.array.tolist()))


def test_names_and_marks_are_context_that_the_model_sees() -> None:
    stream = ArrayStream(encode([10, 11], [20, 21, 22]) + encode([12], [23]))
    (part,) = build(stream, length=12, micro=1)
    batch = part.micro_batches[0]
    assert batch.tokens[0].tolist() == [0, 6, 10, 11, 1, 20, 21, 22, 2, 0, 6, 12]
    assert batch.targets[0].tolist() == [-100] * 4 + [20, 21, 22, 2] + [-100] * 4
    assert batch.boundaries.tolist()[:3] == [0, 9, 12]


def test_a_limit_takes_the_first_sequences() -> None:
    stream = stream_of(random_documents(400, seed=5))
    (part,) = build(stream, length=16, micro=2, limit=3)
    assert part.positions == 4 * 16
    assert counted_of([part]) == content_and_ends(stream.array.tolist()[: 3 * 16 + 1])


def test_a_language_without_text_is_left_out() -> None:
    streams = {"c": ArrayStream([0, 6, 1, 10, 2]), "empty": ArrayStream([]), "one": ArrayStream([0])}
    found = build_heldout(streams, MARKS, TOKEN_BYTES, Topology(1, 0, 1), 8, 1, 10)
    assert list(found) == ["c"]


def test_the_loss_over_all_positions_adds_up_to_the_nats_of_the_text() -> None:
    """Mean loss times positions, as the evaluation computes it, is the sum over what counts."""
    stream = stream_of(random_documents(300, seed=6))
    parts = build(stream, length=24, micro=2, replicas=2)
    nats = torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    means = [
        float(torch.where(b.targets == IGNORED, 0, nats[b.targets.clamp(min=0)]).sum() / b.targets.numel())
        for part in parts
        for b in part.micro_batches
    ]
    total = sum(means) / len(means) * parts[0].positions
    assert total == pytest.approx(float(nats[content_and_ends(stream.array.tolist())].sum()))


@pytest.mark.parametrize("replicas", [1, 2])
def test_bytes_add_up_to_whole_validation_documents(
    corpus_directory: Path, shards_directory: Path, tokenizer_directory: Path, replicas: int
) -> None:
    """With a real tokenizer, real documents and real shards: the divisor of bits per byte is true."""
    tokenizer = Tokenizer.load(tokenizer_directory)
    expected: dict[str, int] = {}
    for document in read_documents(corpus_directory, "validation"):
        expected[document.language] = expected.get(document.language, 0) + len(document.content)
    found = build_heldout(
        open_streams(shards_directory, "validation"), fim_tokens(tokenizer), tokenizer.token_bytes,
        Topology(replicas, 0, 1), 128, 4, 10**9,
    )  # fmt: skip
    assert {language: part.content_bytes for language, part in found.items()} == expected
