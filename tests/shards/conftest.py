"""Shards of the small corpus, built once a session; tests that damage them take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpctrain.shards.pack import build_shards

SHARD_TOKENS = 30_000


@pytest.fixture(scope="session")
def shards_directory(
    corpus_directory: Path, tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Finished shards, cut small enough that the larger languages have several files."""
    out = tmp_path_factory.mktemp("stages") / "shards"
    build_shards(corpus_directory, tokenizer_directory, out, shard_tokens=SHARD_TOKENS)
    return out


@pytest.fixture
def copied_shards(shards_directory: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(shards_directory, tmp_path / "shards"))
