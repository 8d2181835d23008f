"""Fill in the middle: nothing lost but what is cut at the end, nothing carried across documents."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader.synthetic import FIRST_PLAIN, MARKS, VOCABULARY, Tokens, encode

from hpctrain.loader.fim import FimConfig, content_spans, rearrange

plain = st.lists(st.integers(FIRST_PLAIN, VOCABULARY - 1), max_size=12)
names = plain.filter(bool)
documents = st.lists(st.tuples(names, plain), min_size=1, max_size=5)
always = st.sampled_from([0.0, 0.5, 1.0]).map(lambda share: FimConfig(rate=1.0, suffix_first=share))
numbers = st.integers(0, 2**40)


@st.composite
def sequences(draw: st.DrawFn) -> Tokens:
    """A piece of a stream of documents: it may begin and end anywhere."""
    stream = [token for name, content in draw(documents) for token in encode(name, content)]
    start = draw(st.integers(0, len(stream) - 2))
    return np.array(stream[start : draw(st.integers(start + 2, len(stream)))], dtype=np.int64)


def roomy(contents: list[tuple[list[int], list[int]]], fragment: list[int]) -> Tokens:
    """The tail of one document, whole documents, and a name so long that nothing else is cut at the end."""
    stream = [*fragment, MARKS.end] if fragment else []
    for name, content in contents:
        stream += encode(name, content)
    return np.array([*stream, MARKS.document, *[FIRST_PLAIN] * (3 * (len(contents) + 1))], dtype=np.int64)


def parts(tokens: list[int]) -> list[list[int]]:
    """The contents in a sequence, by a plain reading of its marks; a sequence may begin inside one."""
    found: list[list[int]] = []
    current: list[int] | None = [] if tokens[0] != MARKS.document else None
    for token in tokens:
        if token == MARKS.content:
            current = []
        elif token in (MARKS.end, MARKS.document):
            found += [] if current is None else [current]
            current = None
        elif current is not None:
            current.append(token)
    return found + ([] if current is None else [current])


def reassemble(content: list[int]) -> list[int]:
    """A document as it was, from either order of its parts."""
    if MARKS.prefix not in content:
        return content
    assert content[0] == MARKS.prefix
    suffix_at, middle_at = content.index(MARKS.suffix), content.index(MARKS.middle)
    prefix, suffix, rest = content[1:suffix_at], content[suffix_at + 1 : middle_at], content[middle_at + 1 :]
    # suffix first, where the prefix comes again before the middle, reads the same: its prefix part is empty
    return prefix + rest + suffix


@given(sequences(), always, numbers)
def test_the_length_and_the_type_are_kept(tokens: Tokens, config: FimConfig, sample: int) -> None:
    found = rearrange(tokens, sample, config, MARKS, 1)
    assert found.shape == tokens.shape
    assert found.dtype == tokens.dtype


@given(sequences(), numbers, numbers)
def test_at_rate_zero_nothing_changes(tokens: Tokens, sample: int, seed: int) -> None:
    assert np.array_equal(rearrange(tokens, sample, FimConfig(), MARKS, seed), tokens)


@given(sequences(), st.floats(0, 1), numbers)
def test_tokens_are_only_moved_and_the_surplus_is_cut(tokens: Tokens, rate: float, sample: int) -> None:
    found = rearrange(tokens, sample, FimConfig(rate=rate), MARKS, 1)
    gap_marks = (MARKS.prefix, MARKS.suffix, MARKS.middle)
    added = int(np.isin(found, gap_marks).sum())
    kept = Counter(found[~np.isin(found, gap_marks)].tolist())
    lost = Counter(tokens.tolist()) - kept
    assert kept <= Counter(tokens.tolist())
    assert sum(lost.values()) == added


@settings(max_examples=200)
@given(documents, plain, st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1), numbers)
def test_documents_reassemble_in_both_orders(
    contents: list[tuple[list[int], list[int]]],
    fragment: list[int],
    suffix_first: float,
    rate: float,
    sample: int,
) -> None:
    tokens = roomy(contents, fragment)
    found = rearrange(tokens, sample, FimConfig(rate=rate, suffix_first=suffix_first), MARKS, 1)
    whole = [content for _, content in contents]
    before = [fragment, *whole] if fragment else whole
    rearranged = parts(found.tolist())
    assert [reassemble(content) for content in rearranged] == before
    if rate == 1:
        assert [MARKS.prefix in content for content in rearranged] == [
            len(content) >= 3 for content in before
        ]
    headers = [position for position, token in enumerate(found.tolist()) if token == MARKS.document]
    names = [
        found[at + 2 : at + 2 + len(name)].tolist() for at, (name, _) in zip(headers, contents, strict=False)
    ]
    assert names == [name for name, _ in contents], "names of files stay where they were"


@given(plain.filter(lambda content: len(content) >= 3), numbers)
def test_the_two_orders_differ_as_published(content: list[int], sample: int) -> None:
    tokens = roomy([([FIRST_PLAIN], content)], [])
    psm, spm = (
        parts(rearrange(tokens, sample, FimConfig(rate=1, suffix_first=share), MARKS, 1).tolist())[0]
        for share in (0.0, 1.0)
    )
    suffix_at, middle_at = psm.index(MARKS.suffix), psm.index(MARKS.middle)
    prefix, suffix, middle = psm[1:suffix_at], psm[suffix_at + 1 : middle_at], psm[middle_at + 1 :]
    assert spm == [MARKS.prefix, MARKS.suffix, *suffix, MARKS.middle, *prefix, *middle]


@given(documents, always, numbers, st.data())
def test_what_one_document_holds_never_changes_another(
    contents: list[tuple[list[int], list[int]]], config: FimConfig, sample: int, data: st.DataObject
) -> None:
    """Same lengths, other tokens in one document: the others come out the same, wherever they are cut."""
    changed = data.draw(st.integers(0, len(contents) - 1))
    name, content = contents[changed]
    other = [*contents[:changed], (name, [FIRST_PLAIN] * len(content)), *contents[changed + 1 :]]
    before, after = (
        parts(rearrange(roomy(each, []), sample, config, MARKS, 1).tolist()) for each in (contents, other)
    )
    del before[changed], after[changed]
    assert before == after


@given(sequences(), always, numbers, numbers)
def test_it_is_a_pure_function_of_seed_and_sample(
    tokens: Tokens, config: FimConfig, sample: int, seed: int
) -> None:
    original = tokens.copy()
    first = rearrange(tokens, sample, config, MARKS, seed)
    rearrange(tokens, sample + 1, config, MARKS, seed)
    assert np.array_equal(rearrange(tokens, sample, config, MARKS, seed), first)
    assert np.array_equal(tokens, original)


def test_samples_seeds_and_documents_are_cut_differently() -> None:
    content = list(range(FIRST_PLAIN, FIRST_PLAIN + 60))
    tokens = roomy([([FIRST_PLAIN], content)] * 4, [])
    config = FimConfig(rate=1.0, suffix_first=0.0)  # whose two cuts both show
    found = [parts(rearrange(tokens, n, config, MARKS, seed).tolist()) for n in range(5) for seed in range(5)]
    cut = Counter(tuple(document) for sequence in found for document in sequence)
    assert len(cut) > 95, "of 100 documents, hardly two are cut alike"


@pytest.mark.parametrize(("rate", "suffix_first"), [(0.3, 0.5), (0.9, 0.2)])
def test_the_shares_are_those_asked_for(rate: float, suffix_first: float) -> None:
    tokens = roomy([([FIRST_PLAIN], list(range(10, 40)))] * 10, [])
    config = FimConfig(rate=rate, suffix_first=suffix_first)
    found = [
        document for n in range(300) for document in parts(rearrange(tokens, n, config, MARKS, 1).tolist())
    ]
    rearranged = [document for document in found if MARKS.prefix in document]
    assert len(rearranged) / len(found) == pytest.approx(rate, abs=0.03)
    # an empty prefix, one in thirty, reads as suffix first
    spm = sum(document[1] == MARKS.suffix for document in rearranged) / len(rearranged)
    assert spm == pytest.approx(suffix_first, abs=0.06)


def test_cuts_fall_everywhere_ends_included() -> None:
    tokens = roomy([([FIRST_PLAIN], [10, 11, 12])], [])
    config = FimConfig(rate=1.0, suffix_first=0.0)
    seen = {tuple(parts(rearrange(tokens, n, config, MARKS, 1).tolist())[0]) for n in range(300)}
    assert len(seen) == 10, "two cuts among four places, in order"


@given(sequences())
def test_content_spans_are_those_of_a_plain_reading(tokens: Tokens) -> None:
    in_content = [tokens[start:stop].tolist() for start, stop in content_spans(tokens, MARKS)]
    marks = [token for token in tokens.tolist() if token in (MARKS.document, MARKS.content, MARKS.end)]
    begins_in_a_name = marks[:1] == [MARKS.content]
    expected = parts([MARKS.document] * begins_in_a_name + tokens.tolist())
    assert in_content == [content for content in expected if content]
