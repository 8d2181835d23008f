"""What shards say besides tokens: sources, spans, and what older ones cannot say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.document import read_documents
from hpctrain.corpus.structure import spans
from hpctrain.errors import DataError
from hpctrain.manifest import commit
from hpctrain.shards.archive import archive_shards, restore_shards
from hpctrain.shards.layout import SHARDS_KIND, SPAN_KINDS, TOKENIZER_DIRECTORY
from hpctrain.shards.pack import BuildOptions, build_shards
from hpctrain.shards.plan import ShardPlan, _cut
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.tokenizer.codec import Tokenizer


@pytest.fixture(scope="module")
def sourced(
    many_files_corpus: Path, tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("sourced") / "shards"
    build_shards(many_files_corpus, tokenizer_directory, out, BuildOptions(shard_bytes=60_000))
    return out


def test_every_document_is_of_its_source(sourced: Path, many_files_corpus: Path) -> None:
    documents = list(read_documents(many_files_corpus))
    sizes: dict[str, int] = {}
    for language, stream in open_streams(sourced, "train").items():
        found = stream.documents(0, len(stream))
        assert [(documents[d.index].source, documents[d.index].language) for d in found] == [
            (d.source, language) for d in found
        ]
        assert [d.start for d in found] == [0, *(d.stop for d in found[:-1])]
        starts = np.concatenate(list(stream.document_starts(0, len(stream))))
        assert starts.tolist() == [d.start for d in found]
        runs = stream.sources()
        assert [name for name, _, _ in runs] == list(dict.fromkeys(d.source for d in found))
        for name, start, stop in runs:
            assert {d.source for d in stream.documents(start, stop)} == {name}
            sizes[name] = sizes.get(name, 0) + stop - start
    counted: dict[str, int] = {}
    for by_source in read_shards_manifest(sourced).counts["sources"]["train"].values():
        for name, tokens in by_source.items():
            counted[name] = counted.get(name, 0) + tokens
    assert counted == sizes
    assert set(sizes) == {"first", "lib+x_1.2é"}


def test_documents_of_a_range_are_those_that_overlap_it(sourced: Path) -> None:
    stream = open_streams(sourced, "train")["c"]
    every = stream.documents(0, len(stream))
    generator = np.random.default_rng(2)
    for start, stop in np.sort(generator.integers(0, len(stream) + 1, (200, 2)), axis=1).tolist():
        if start < stop:
            expected = [d for d in every if d.start < stop and d.stop > start]
            assert stream.documents(start, stop) == expected


def test_spans_are_those_of_the_text_byte_by_byte(sourced: Path, many_files_corpus: Path) -> None:
    tokenizer = Tokenizer.load(sourced / TOKENIZER_DIRECTORY)
    documents = list(read_documents(many_files_corpus))
    seen: set[str] = set()
    for language, stream in open_streams(sourced, "train").items():
        assert stream.has_spans
        for place in stream.documents(0, len(stream)):
            content = documents[place.index].content
            found = []
            for span in stream.spans(place.start, place.stop):
                text = tokenizer.decode(
                    stream.read(place.start + int(span["start"]), place.start + int(span["stop"]))
                )
                found.append((SPAN_KINDS[span["kind"]], text[span["head"] : len(text) - span["tail"]]))
                assert span["head"] < len(text) - span["tail"]
            expected = [(s.kind.value, content[s.start : s.stop]) for s in spans(content, language)]
            assert sorted(found) == sorted(expected)
            seen |= {kind for kind, _ in found}
    assert seen == set(SPAN_KINDS)


def test_spans_of_a_range_lie_in_it(sourced: Path) -> None:
    stream = open_streams(sourced, "train")["cpp"]
    every = stream.spans(0, len(stream))
    assert len(stream.shards) > 1
    generator = np.random.default_rng(2)
    for start, stop in np.sort(generator.integers(0, len(stream) + 1, (200, 2)), axis=1).tolist():
        inside = every[(every["start"] >= start) & (every["stop"] <= stop)]
        found = stream.spans(start, stop)
        assert (found["start"] + start).tolist() == inside["start"].tolist()
        assert (found["stop"] + start).tolist() == inside["stop"].tolist()


def test_shards_without_spans_are_smaller_and_say_so(
    many_files_corpus: Path, tokenizer_directory: Path, sourced: Path, tmp_path: Path
) -> None:
    build_shards(many_files_corpus, tokenizer_directory, tmp_path / "s", BuildOptions(60_000, spans=False))
    plain, full = (open_streams(place, "train")["cpp"] for place in (tmp_path / "s", sourced))
    assert not plain.has_spans
    assert not len(plain.spans(0, len(plain)))
    assert np.array_equal(plain.read(0, len(plain)), full.read(0, len(full)))


def to_format_1(directory: Path) -> None:
    """Make shards what the first format was."""
    old = read_shards_manifest(directory)
    for path in directory.glob("*/*.h5"):
        with h5py.File(path, "r+") as file:
            for name in ("source_starts", "source_names", "spans"):
                del file[name]
    details = {key: value for key, value in old.details.items() if key not in ("spans", "shard_bytes")}
    counts = {key: value for key, value in old.counts.items() if key not in ("spans", "sources")}
    commit(directory, SHARDS_KIND, 1, old.inputs, counts, details)


def test_the_first_format_is_still_read(
    copied_shards: Path,
    shards_directory: Path,
    corpus_directory: Path,
    tokenizer_directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to_format_1(copied_shards)
    old, new = (open_streams(place, "train")["cpp"] for place in (copied_shards, shards_directory))
    assert np.array_equal(old.read(0, len(old)), new.read(0, len(new)))
    assert not old.knows_sources
    assert not old.has_spans
    assert old.documents(5, 6)[0].source == ""
    with pytest.raises(DataError, match="of format 1, which knows no sources; build the shards again"):
        old.sources()
    build_shards(corpus_directory, tokenizer_directory, copied_shards)
    assert "up to date, but of format 1" in capsys.readouterr().err


def test_an_archive_gives_back_every_byte(shards_directory: Path, tmp_path: Path) -> None:
    manifest = archive_shards(shards_directory, tmp_path / "packed")
    assert sum(record.bytes for record in manifest.files.values()) < 0.8 * manifest.counts["bytes"]
    assert archive_shards(shards_directory, tmp_path / "packed") == manifest  # up to date
    restored = restore_shards(tmp_path / "packed", tmp_path / "again")
    assert restored == read_shards_manifest(shards_directory)
    for name in [*restored.files, "manifest.json"]:
        assert (tmp_path / "again" / name).read_bytes() == (shards_directory / name).read_bytes()


@pytest.mark.parametrize("name", ["train/c-00000.h5.zst", "manifest.json.zst"])
def test_a_damaged_archive_is_not_restored(shards_directory: Path, tmp_path: Path, name: str) -> None:
    archive_shards(shards_directory, tmp_path / "packed")
    path = tmp_path / "packed" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        restore_shards(tmp_path / "packed", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_damaged_shards_are_not_archived(copied_shards: Path, tmp_path: Path) -> None:
    path = copied_shards / "train/c-00000.h5"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"c-00000\.h5: damaged"):
        archive_shards(copied_shards, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@given(st.lists(st.lists(st.integers(1, 50), max_size=20), max_size=6), st.integers(1, 80))
def test_shards_are_full_and_hold_every_document_in_order(units: list[list[int]], limit: int) -> None:
    shards = [ShardPlan(("train", "c"), 0)]
    for number, lengths in enumerate(units):
        _cut(shards, number, np.array(lengths, np.int64), limit)
    held = [
        (piece.unit, place)
        for shard in shards
        for piece in shard.pieces
        for place in range(piece.first, piece.last)
    ]
    assert held == [(number, place) for number, lengths in enumerate(units) for place in range(len(lengths))]
    sizes = [[units[p.unit][d] for p in shard.pieces for d in range(p.first, p.last)] for shard in shards]
    assert [shard.tokens for shard in shards] == [sum(each) for each in sizes]
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for mine, following in pairwise(sizes):
        assert sum(mine) <= limit or len(mine) == 1
        assert sum(mine) + following[0] > limit
