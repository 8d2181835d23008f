"""Shards of the small corpus, built once a session; tests that damage them take a copy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hpctrain.corpus.document import CORPUS_FORMAT, CORPUS_KIND, Document, write_corpus_files
from hpctrain.manifest import write_stage
from hpctrain.shards.pack import BuildOptions, build_shards

SMALL = BuildOptions(shard_bytes=60_000)


@pytest.fixture(scope="session")
def shards_directory(
    corpus_directory: Path, tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Finished shards, cut small enough that the larger languages have several files."""
    out = tmp_path_factory.mktemp("stages") / "shards"
    build_shards(corpus_directory, tokenizer_directory, out, SMALL)
    return out


@pytest.fixture
def copied_shards(shards_directory: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(shards_directory, tmp_path / "shards"))


@pytest.fixture(scope="session")
def many_files_corpus(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus in many documents files, so that every one of some ranks has several to encode."""
    directory = tmp_path_factory.mktemp("stages") / "corpus"
    half = [
        replace(document, source="first" if number < len(documents) // 2 else "lib+x_1.2é")
        for number, document in enumerate(documents)
    ]
    sizes: dict[str, dict[str, int]] = {}
    for document in half:
        by_language = sizes.setdefault(document.split, {})
        by_language[document.language] = by_language.get(document.language, 0) + len(document.content)
    with write_stage(directory, CORPUS_KIND, CORPUS_FORMAT) as stage:
        assert write_corpus_files(stage, half, file_bytes=100_000) > 8
        stage.counts = {"bytes": sizes}
    return directory
