"""Best fit: nothing lost, nothing cut needlessly, few bins, and batches that do not learn from padding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loader.synthetic import MARKS, VOCABULARY, ArrayStream, random_documents

from hpctrain.errors import DataError
from hpctrain.loader import packing
from hpctrain.loader.batches import make_batch, make_packed_batch
from hpctrain.loader.best_fit import pack
from hpctrain.loader.component import Component, Part
from hpctrain.loader.mixture import DataConfig, build_mixture, build_pools, compare_packing, make_plans
from hpctrain.loader.packing import PackedComponent, cut_long, make_plan, measure_cut
from hpctrain.shards.reader import open_streams, read_shards_manifest

PAD = VOCABULARY
PACKED = replace(MARKS, pad=PAD)
lengths = st.lists(st.integers(1, 40), max_size=60).map(lambda values: np.array(values, np.int64))


def plain_best_fit(sizes: list[int], capacity: int) -> list[int]:
    """The room left in each bin, by the textbook: longest first, each into the fullest bin that takes it."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - size)
    return sorted(rooms)


@settings(max_examples=300)
@given(lengths, st.integers(40, 70))
@example(np.array([], np.int64), 40)
@example(np.full(50, 7), 40)
def test_pieces_are_packed_as_the_textbook_does(sizes: np.ndarray, capacity: int) -> None:
    order, starts = pack(sizes, capacity)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    bins = [sizes[order[a:b]] for a, b in pairwise(starts.tolist())]
    assert sorted(capacity - int(each.sum()) for each in bins) == plain_best_fit(sizes.tolist(), capacity)
    assert all(len(each) for each in bins)


def test_many_pieces_take_few_operations() -> None:
    sizes = np.random.default_rng(1).integers(1, 513, 2_000_000)
    order, starts = pack(sizes, 512)
    rooms = 512 - np.add.reduceat(sizes[order], starts[:-1])
    assert rooms.min() >= 0
    assert rooms.sum() < 0.001 * sizes.sum()


@given(st.lists(st.integers(2, 100), min_size=1, max_size=20), st.integers(2, 30))
def test_long_documents_are_cut_so_that_each_token_is_a_target_once(sizes: list[int], length: int) -> None:
    starts = np.cumsum([0, *sizes[:-1]])
    piece_starts, piece_sizes = cut_long(starts, np.array(sizes), length)
    assert piece_sizes.max() <= length + 1
    targets = [
        p
        for s, n in zip(piece_starts.tolist(), piece_sizes.tolist(), strict=True)
        for p in range(s + 1, s + n)
    ]
    first = set(starts.tolist())
    assert targets == [place for place in range(sum(sizes)) if place not in first]
    assert len(piece_sizes) == sum(max(1, -(-(size - 1) // length)) for size in sizes)


class DocumentStream(ArrayStream):
    """Documents in memory that know where they begin."""

    def __init__(self, documents: list[list[int]]) -> None:
        super().__init__([token for document in documents for token in document])
        self.documents = documents
        self.shards: list[object] = []

    def document_starts(self, start: int, stop: int) -> list[np.ndarray]:
        starts = np.cumsum([0, *map(len, self.documents[:-1])])
        starts = starts[(starts >= start) & (starts < stop)]
        return [starts[:3], starts[3:]]


@pytest.fixture(scope="module")
def streams() -> list[DocumentStream]:
    return [DocumentStream(random_documents(tokens, seed)) for tokens, seed in ((3000, 1), (900, 2))]


def component_of(streams: list[DocumentStream], length: int, directory: Path) -> PackedComponent:
    parts = [Part(stream, 0, len(stream)) for stream in streams]
    make_plan(parts, length, directory / "plan")
    return PackedComponent(parts, length, directory / "plan", PAD)


@pytest.mark.parametrize("length", [16, 32, 200])
@pytest.mark.parametrize("block", [1 << 20, 7])
def test_sequences_hold_whole_documents(
    streams: list[DocumentStream], length: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_BLOCK_DOCUMENTS", block)
    component = component_of(streams, length, tmp_path)
    documents = [tuple(document) for stream in streams for document in stream.documents]
    sequences = [component.sequence(number).tolist() for number in range(len(component))]
    assert {len(sequence) for sequence in sequences} == {length + 1}
    whole = [d for d in documents if len(d) <= length + 1]
    found: list[tuple[int, ...]] = []
    for number, sequence in enumerate(sequences):
        at = 0
        for start, stop in component.pieces(number):
            found.append(tuple(sequence[at : at + stop - start]))
            at += stop - start
        assert set(sequence[at:]) <= {PAD}
    assert sorted(f for f in found if f[0] == MARKS.document and f[-1] == MARKS.end) == sorted(whole)
    tails = [f for f in found if f[0] != MARKS.document]
    assert sum(map(len, found)) - len(tails) == sum(map(len, documents))  # each overlaps by one


def test_the_plan_counts_what_it_does(streams: list[DocumentStream], tmp_path: Path) -> None:
    parts = [Part(stream, 0, len(stream)) for stream in streams]
    counts = make_plan(parts, 32, tmp_path / "plan").counts
    component = PackedComponent(parts, 32, tmp_path / "plan", PAD)
    sequences = np.array([component.sequence(number) for number in range(len(component))])
    sizes = [len(document) for stream in streams for document in stream.documents]
    assert counts == {
        "sequences": len(sequences), "tokens": sum(sizes), "padding": int((sequences == PAD).sum()),
        "documents": len(sizes), "cut": sum(size > 33 for size in sizes),
    }  # fmt: skip
    assert counts["padding"] < 0.05 * counts["tokens"]
    cut = measure_cut(parts, 32)
    plain = Component(parts, 32)
    edges = np.cumsum([0, *sizes])
    inside = [any(a >= 32 * n and b <= 32 * n + 33 for n in range(a // 32 - 1, a // 32 + 1)) for a, b in
              zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]  # fmt: skip
    assert cut.cut == inside.count(False) > counts["cut"]
    assert (cut.sequences, cut.unread) == (len(plain), sum(sizes) - 32 * len(plain) - 1)


def test_a_part_of_a_stream_is_packed_alone(streams: list[DocumentStream], tmp_path: Path) -> None:
    stream = streams[0]
    edges = np.cumsum([0, *map(len, stream.documents)]).tolist()
    part = Part(stream, edges[5], edges[20])
    make_plan([part], 64, tmp_path / "plan")
    component = PackedComponent([part], 64, tmp_path / "plan", PAD)
    places = [place for number in range(len(component)) for place in component.places(number)]
    covered = sorted(range_ for _, *range_ in places)
    assert covered[0][0] == edges[5]
    assert covered[-1][1] == edges[20]


def test_a_plan_is_made_once_and_a_damaged_one_is_named(
    streams: list[DocumentStream], tmp_path: Path
) -> None:
    component_of(streams, 32, tmp_path)
    before = (tmp_path / "plan" / "manifest.json").stat().st_mtime_ns
    component_of(streams, 32, tmp_path)
    assert (tmp_path / "plan" / "manifest.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]
    path = tmp_path / "plan" / "starts"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match=r"starts: checksum differs.*; remove .*plan, and it is made again"):
        component_of(streams, 32, tmp_path)


@pytest.mark.parametrize("length", [16, 64])
def test_packed_batches_keep_documents_apart_and_learn_no_padding(
    streams: list[DocumentStream], length: int, tmp_path: Path
) -> None:
    component = component_of(streams, length, tmp_path)
    numbers = range(len(component))
    sequences = np.array([component.sequence(number) for number in numbers])
    batch = make_packed_batch(sequences, PACKED)
    edges = set(batch.boundaries.tolist())
    counted = 0
    for row, number in enumerate(numbers):
        at = 0
        for start, stop in component.pieces(number):
            size = stop - start
            targets = batch.targets[row, at : at + size - 1].tolist()
            assert targets == sequences[row, at + 1 : at + size].tolist(), "all within a piece is learnt"
            assert at == length or row * length + at in edges
            counted += size - 1
            at += size
            if at <= length:
                following = int(sequences[row, at])
                expected = following if following == MARKS.document else -100
                assert int(batch.targets[row, at - 1]) == expected
                counted += expected >= 0
        assert set(batch.targets[row, at:].tolist()) <= {-100}
    assert int((batch.targets >= 0).sum()) == counted


def test_sequences_that_were_cut_make_the_same_batch_either_way(streams: list[DocumentStream]) -> None:
    component = Component([Part(streams[0], 0, len(streams[0]))], 24)
    sequences = np.array([component.sequence(number) for number in range(len(component))])
    plain, packed = make_batch(sequences, MARKS.document), make_packed_batch(sequences, PACKED)
    assert all(a.equal(b) for a, b in zip(plain, packed, strict=True))


def test_real_shards_are_packed_by_plans_beside_them(shards_directory: Path, tmp_path: Path) -> None:
    config = DataConfig(
        shards=shards_directory, sequence_length=256, packing="best_fit", packing_plans=tmp_path / "plans",
        mixture={"c": 1, "cpp": 2},
    )  # fmt: skip
    manifest = read_shards_manifest(shards_directory)
    pools = build_pools(open_streams(shards_directory, "train"), config)
    plans = make_plans(pools, config, manifest)
    assert len(list((tmp_path / "plans").iterdir())) == 2
    mixture = build_mixture(pools, config, manifest, PAD)
    assert [len(component) for component in mixture.components] == [p.counts["sequences"] for p in plans]
    cut, best_fit = compare_packing(shards_directory, 256)
    assert cut.documents == best_fit.documents == sum(manifest.counts["documents"]["train"].values())
    assert best_fit.cut <= cut.cut
    assert best_fit.padding < 0.05 * best_fit.tokens
    assert list(shards_directory.parent.glob(f"{shards_directory.name}.packing/*"))


def test_plans_that_cannot_be_written_name_the_key(shards_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = DataConfig(
        shards=shards_directory, packing="best_fit", packing_plans=tmp_path / "file" / "plans"
    )
    pools = build_pools(open_streams(shards_directory, "train"), config)
    with pytest.raises(DataError, match=r"Not a directory; data\.packing_plans can name another"):
        make_plans(pools, config, read_shards_manifest(shards_directory))
