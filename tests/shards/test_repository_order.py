"""Files of a repository as one text, headers and modules before their users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpctrain.corpus.document import CORPUS_FORMAT, CORPUS_KIND, Document, write_corpus_files
from hpctrain.errors import ConfigError
from hpctrain.loader.batches import make_batch
from hpctrain.loader.mixture import DataConfig, build_mixture, build_pools
from hpctrain.loader.order import SampleOrder
from hpctrain.manifest import write_stage
from hpctrain.shards.pack import BuildOptions, build_shards
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.shards.repository import in_repository_order
from hpctrain.tokenizer.codec import Tokenizer

SOURCES = [
    ("a/app/main.c", "c", '#include <stdio.h>\n#include "../lib/solve.h"\nint main() { return 0; }\n'),
    ("a/lib/base.h", "c", "typedef double real;\n"),
    ("a/lib/solve.c", "c", '#include "solve.h"\nint solve(void) { return 0; }\n'),
    ("a/lib/solve.h", "c", '# include "base.h"\nint solve(void);\n'),
    ("a/old/solve.h", "c", "int solve_of_long_ago(void);\n"),
    ("b/loop.h", "c", '#include "pool.h"\nint loop;\n'),
    ("b/pool.h", "c", '#include "loop.h"\nint pool;\n'),
    ("f/main.f90", "fortran-free", "program main\n  use, intrinsic :: iso_c_binding\n  Use mesh\nend\n"),
    ("f/mesh.f90", "fortran-free", "module Mesh\n  use kinds\n  integer :: n\nend module\n"),
    ("f/z_kinds.f90", "fortran-free", "module kinds ! of numbers\nmodule procedure x\nend module\n"),
]  # fmt: skip


def documents() -> list[Document]:
    return [
        Document(
            content=text.encode(), path=path, language=language, licence="MIT", source="s",
            family=path.partition("/")[0], split="train", models="",
        )
        for path, language, text in SOURCES
    ]  # fmt: skip


def test_what_is_needed_comes_first() -> None:
    placed = list(in_repository_order(documents()))
    assert [document.path for _, document, _ in placed] == [
        "a/lib/base.h", "a/lib/solve.h", "a/app/main.c", "a/lib/solve.c", "a/old/solve.h",
        "b/pool.h", "b/loop.h", "f/z_kinds.f90", "f/mesh.f90", "f/main.f90",
    ]  # fmt: skip
    assert [follows for _, _, follows in placed] == [False, *[True] * 4, False, True, False, True, True]
    assert [documents()[number] for number, _, _ in placed] == [document for _, document, _ in placed]


@pytest.fixture(scope="module")
def shards(tokenizer_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("repositories")
    with write_stage(directory / "corpus", CORPUS_KIND, CORPUS_FORMAT) as stage:
        write_corpus_files(stage, documents())
        stage.counts = {"bytes": {"train": {"c": 1, "fortran-free": 1}}}
    options = BuildOptions(order="repository")
    build_shards(directory / "corpus", tokenizer_directory, directory / "shards", options)
    return directory / "shards"


def test_a_repository_is_one_document_to_attention(shards: Path, tokenizer_directory: Path) -> None:
    tokenizer = Tokenizer.load(tokenizer_directory)
    streams = open_streams(shards, "train")
    tokens = streams["c"].read(0, len(streams["c"])).astype(np.int64)
    starts = np.flatnonzero(tokens == tokenizer.special.document)
    texts = [tokenizer.decode(part).decode() for part in np.split(tokens, starts[1:])]
    assert ["main.c" in text for text in texts] == [True, False]
    contents = [tokenizer.encode(text.encode()) for _, _, text in SOURCES]
    assert sum(tokens == tokenizer.special.end) == sum(tokens == tokenizer.special.file_name) == 7
    every = np.concatenate([stream.read(0, len(stream)) for stream in streams.values()]).tolist()
    for content in contents:
        assert any(every[n : n + len(content)] == content for n in range(len(every)))
    batch = make_batch(tokens[None], tokenizer.special.document)
    assert batch.boundaries[:3].tolist() == [*starts.tolist(), len(tokens) - 1]


def test_every_file_is_still_known(shards: Path, tokenizer_directory: Path) -> None:
    from hpctrain.loader.batches import SampleReader
    from hpctrain.loader.fim import FimConfig
    from hpctrain.loader.trace import trace
    from hpctrain.train.data import fim_tokens

    tokenizer = Tokenizer.load(tokenizer_directory)
    config = DataConfig(shards=shards, sequence_length=16)
    mixture = build_mixture(
        build_pools(open_streams(shards, "train"), config), config, read_shards_manifest(shards), -1
    )
    order = SampleOrder(*mixture.order, 1)
    reader = SampleReader(order, mixture.components, FimConfig(), fim_tokens(tokenizer))
    found = trace(reader, np.arange(sum(order.sizes)), tokenizer)
    places = {(each.path, each.language, each.document) for each in found}
    known = {(path, language, number) for number, (path, language, _) in enumerate(SOURCES)}
    assert places <= known
    assert len(places) >= len(known) - 1  # the last tokens fill no sequence


def test_best_fit_would_take_repositories_apart(shards: Path) -> None:
    config = DataConfig(shards=shards, sequence_length=16, packing="best_fit")
    with pytest.raises(ConfigError, match="best_fit would take apart"):
        build_mixture(
            build_pools(open_streams(shards, "train"), config), config, read_shards_manifest(shards), 1
        )
