from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hpctrain.corpus.document import LANGUAGES, Document, read_corpus_manifest
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import commit
from hpctrain.shards.layout import (
    ALIGNMENT_BYTES,
    SHARDS_FORMAT,
    SHARDS_KIND,
    TOKENIZER_DIRECTORY,
    ShardTables,
    dataset_names,
    parse_shard_name,
    shard_name,
    write_shard,
)
from hpctrain.shards.pack import BuildOptions, build_shards
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.tokenizer.codec import Tokenizer, special_ids
from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

SMALL = BuildOptions(shard_bytes=60_000)


def test_documents_come_back_from_the_shards(shards_directory: Path, documents: list[Document]) -> None:
    tokenizer = Tokenizer.load(shards_directory / TOKENIZER_DIRECTORY)
    special, seen = tokenizer.special, []
    for split in ("train", "validation"):
        for language, stream in open_streams(shards_directory, split).items():
            tokens = stream.read(0, len(stream))
            starts = np.flatnonzero(tokens == special.document)
            ends = np.flatnonzero(tokens == special.end) + 1
            assert np.array_equal(starts[1:], ends[:-1])
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                ids = tokens[start:end]
                content_at = int(np.flatnonzero(ids == special.content)[0])
                index = stream.document_of(start)
                document = documents[index]
                assert stream.document_of(end - 1) == index
                assert (document.split, document.language) == (split, language)
                assert ids[1] == tokenizer.language_id(language)
                assert tokenizer.decode(ids[3:content_at]) == document.path.encode()
                assert tokenizer.decode(ids[content_at:]) == document.content
                seen.append(index)
    assert sorted(seen) == list(range(len(documents)))


def test_manifest_counts(
    shards_directory: Path, corpus_directory: Path, tokenizer_directory: Path, documents: list[Document]
) -> None:
    manifest, corpus = read_shards_manifest(shards_directory), read_corpus_manifest(corpus_directory)
    tokenizer = Tokenizer.load(tokenizer_directory)
    assert manifest.inputs == {"corpus": corpus.fingerprint, "tokenizer": tokenizer.fingerprint}
    for name in ("documents", "bytes", "licences"):
        assert manifest.counts[name] == corpus.counts[name]
    for split, by_language in manifest.counts["tokens"].items():
        streams = open_streams(shards_directory, split)
        assert {name: len(stream) for name, stream in streams.items()} == by_language
        assert list(streams) == sorted(streams)
    programs = set(LANGUAGES) - {"build", "docs"}
    assert {document.language for document in documents} == programs
    assert manifest.details["vocab_size"] == 2048
    assert manifest.details["dtype"] == "uint16"
    assert manifest.details["special"] == special_ids(tokenizer)
    assert manifest.details["languages"] == tokenizer.languages


def test_shards_are_aligned_contiguous_and_bounded(shards_directory: Path) -> None:
    paths = sorted(shards_directory.glob("*/*.h5"))
    assert len([path for path in paths if path.name.startswith("c-")]) > 2
    for path in paths:
        with h5py.File(path, "r") as file:
            assert sorted(file) == sorted(dataset_names(read_shards_manifest(shards_directory)))
            assert file["tokens"].id.get_offset() % ALIGNMENT_BYTES == 0
            assert file["tokens"].dtype == np.uint16
            documents = len(file["document_index"])
            assert len(file["tokens"]) <= 30_000 or documents == 1
            assert file["document_offsets"].shape == (documents + 1,)
            assert (np.diff(file["document_index"][:].astype(np.int64)) > 0).all()
    assert {path.name for path in shards_directory.parent.iterdir()} == {"shards"}


def test_rebuild_gives_identical_bytes(
    shards_directory: Path, corpus_directory: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    manifest = build_shards(corpus_directory, tokenizer_directory, again, SMALL, threads=1)
    assert manifest.fingerprint == read_shards_manifest(shards_directory).fingerprint
    names = [*manifest.files, "manifest.json"]
    assert all((again / name).read_bytes() == (shards_directory / name).read_bytes() for name in names)


def test_the_same_shards_are_kept_and_others_refused(
    shards_directory: Path,
    corpus_directory: Path,
    tokenizer_directory: Path,
    documents: list[Document],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = read_shards_manifest(shards_directory)
    assert build_shards(corpus_directory, tokenizer_directory, shards_directory, SMALL) == before
    assert "up to date" in capsys.readouterr().err
    with pytest.raises(DataError, match="made with shard_bytes 60000, spans True"):
        build_shards(
            corpus_directory, tokenizer_directory, shards_directory, BuildOptions(shard_bytes=80_000)
        )
    other = tmp_path / "tokenizer"
    pairs = [(document.language, document.content) for document in documents]
    train_tokenizer(TokenizerConfig(vocab_size=600), pairs, LANGUAGES, {}, other)
    with pytest.raises(DataError, match="made from another tokenizer"):
        build_shards(corpus_directory, other, shards_directory, SMALL)
    assert read_shards_manifest(shards_directory) == before


def test_an_empty_corpus_and_a_wrong_size_are_refused(tokenizer_directory: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    commit(empty, "corpus", 1, {}, {"documents": {}, "bytes": {}, "licences": {}}, {})
    with pytest.raises(DataError, match="no documents"):
        build_shards(empty, tokenizer_directory, tmp_path / "out")
    with pytest.raises(ConfigError, match="--shard-bytes: 0 is less than 4096"):
        build_shards(empty, tokenizer_directory, tmp_path / "out", BuildOptions(shard_bytes=0))


def test_wide_vocabularies_take_four_bytes_a_token(tmp_path: Path) -> None:
    path = tmp_path / shard_name("train", "c", 0)
    path.parent.mkdir()
    tokens = np.arange(65_530, 65_550, dtype=np.uint32)
    numbers = [np.array(each, np.uint64) for each in ([0, 20], [7], [0, 1])]
    tables = ShardTables(numbers[0], numbers[1], numbers[2], ["mine"], None)
    write_shard(path, tokens.dtype, np.split(tokens, 4), tables)
    commit(tmp_path, SHARDS_KIND, SHARDS_FORMAT, {}, {"tokens": {"train": {"c": 20}}}, {})
    stream = open_streams(tmp_path, "train")["c"]
    assert stream.read(3, 9).tolist() == list(range(65_533, 65_539))
    assert stream.read(0, 1).dtype == np.uint32


def test_shard_names() -> None:
    assert shard_name("train", "fortran-free", 0) == "train/fortran-free-00000.h5"
    assert parse_shard_name("train/fortran-free-00012.h5") == ("train", "fortran-free", 12)
    for name in (
        "tokenizer/tokenizer.model",
        "tokenizer/c-00000.h5",
        "c-00000.h5",
        "train/c.h5",
        "train/c-1.txt",
    ):
        assert parse_shard_name(name) is None
