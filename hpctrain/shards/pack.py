"""A corpus and a tokenizer to token shards."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hpctrain.corpus.document import Document, read_corpus_manifest, read_documents
from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import MANIFEST_NAME, Manifest, StageWriter, find_finished, read_manifest, write_stage
from hpctrain.progress import progress, say
from hpctrain.shards.layout import (
    DEFAULT_SHARD_TOKENS,
    SHARDS_FORMAT,
    SHARDS_KIND,
    TOKENIZER_DIRECTORY,
    shard_name,
    write_shard,
)
from hpctrain.tokenizer.codec import TOKENIZER_FORMAT, TOKENIZER_KIND, Tokenizer, special_ids

_BATCH_BYTES_PER_THREAD = 4 << 20


def build_shards(
    corpus: Path,
    tokenizer: Path,
    out: Path,
    shard_tokens: int = DEFAULT_SHARD_TOKENS,
    num_threads: int | None = None,
) -> Manifest:
    """Encode a corpus and publish the shards stage `out`; returns its manifest.

    `corpus` and `tokenizer` are finished stages. A shard ends before the document that would take it over
    `shard_tokens`. Encodes on `num_threads` threads, by default on every core this process may use, and holds
    a few MiB of documents a thread in memory. Equal inputs give equal files. If `out` already holds these
    shards, it is left as it is. Raises DataError if an input is missing, damaged or empty, or `out` holds
    other shards; ConfigError if `shard_tokens` is not positive.
    """
    if shard_tokens < 1:
        raise ConfigError(f"shard_tokens: {shard_tokens} is not positive")
    source, codec = read_corpus_manifest(corpus), Tokenizer.load(tokenizer)
    inputs = {"corpus": source.fingerprint, "tokenizer": codec.fingerprint}
    if finished := find_finished(out, SHARDS_KIND, SHARDS_FORMAT, inputs):
        if finished.details.get("shard_tokens") != shard_tokens:
            raise DataError(
                f"{out}: holds these shards cut at another size; remove it or choose another directory"
            )
        say(f"{out}: up to date")
        return finished
    total_bytes = sum(sum(sizes.values()) for sizes in source.counts["bytes"].values())
    if not total_bytes:
        raise DataError(f"{corpus}: this corpus has no documents; see its ledger for why they were dropped")
    with write_stage(out, SHARDS_KIND, SHARDS_FORMAT) as stage:
        counts = _encode_corpus(corpus, codec, stage, shard_tokens, num_threads, total_bytes)
        _copy_tokenizer(tokenizer, stage)
        stage.inputs = inputs
        stage.counts = {**counts, "licences": source.counts.get("licences", {})}
        stage.details = {
            "vocab_size": codec.vocab_size,
            "special": special_ids(codec),
            "languages": codec.languages,
            "dtype": codec.dtype.name,
            "shard_tokens": shard_tokens,
        }
    return read_manifest(out, SHARDS_KIND, SHARDS_FORMAT)


def _encode_corpus(
    corpus: Path,
    codec: Tokenizer,
    stage: StageWriter,
    shard_tokens: int,
    num_threads: int | None,
    total_bytes: int,
) -> dict[str, dict[str, dict[str, int]]]:
    """Write every shard; returns documents, bytes and tokens by split and language."""
    threads = num_threads or len(os.sched_getaffinity(0))
    counts: dict[str, dict[str, dict[str, int]]] = {"documents": {}, "bytes": {}, "tokens": {}}
    series: dict[tuple[str, str], _ShardSeries] = {}
    start, tokens = time.monotonic(), 0
    with ExitStack() as stack, progress("shards", total_bytes / 1e6, "MB") as bar:
        for batch in _batches(enumerate(read_documents(corpus)), threads * _BATCH_BYTES_PER_THREAD):
            encoded = codec.encode_documents([(d.language, d.path, d.content) for _, d in batch], threads)
            for (index, document), ids in zip(batch, encoded, strict=True):
                key = (document.split, document.language)
                if key not in series:
                    series[key] = stack.enter_context(_ShardSeries(stage, *key, shard_tokens, codec.dtype))
                series[key].append(index, ids)
                _count(counts, key, len(document.content), len(ids))
                tokens += len(ids)
            rate = tokens / (time.monotonic() - start) / 1e6
            bar.advance(sum(len(d.content) for _, d in batch) / 1e6, f"{rate:.2f} million tokens/s")
    return counts


def _count(
    counts: dict[str, dict[str, dict[str, int]]], key: tuple[str, str], size: int, tokens: int
) -> None:
    split, language = key
    for name, amount in (("documents", 1), ("bytes", size), ("tokens", tokens)):
        by_language = counts[name].setdefault(split, {})
        by_language[language] = by_language.get(language, 0) + amount


def _batches(
    documents: Iterable[tuple[int, Document]], batch_bytes: int
) -> Iterator[list[tuple[int, Document]]]:
    """Group documents so that every thread has work and memory stays bounded."""
    batch: list[tuple[int, Document]] = []
    size = 0
    for index, document in documents:
        batch.append((index, document))
        size += len(document.content)
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _ShardSeries:
    """Writes the shards of one split and language, one after the other.

    A contiguous dataset needs its length beforehand, so tokens go to a plain file first.
    """

    def __init__(
        self, stage: StageWriter, split: str, language: str, shard_tokens: int, dtype: np.dtype[Any]
    ) -> None:
        self.stage, self.split, self.language = stage, split, language
        self.shard_tokens, self.dtype = shard_tokens, dtype
        self.spool_path = stage.path(f"{split}/{language}.tokens")
        self.spool = self.spool_path.open("wb")
        self.shards = 0
        self.lengths: list[int] = []
        self.index: list[int] = []
        self.tokens = 0

    def __enter__(self) -> _ShardSeries:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._finish_shard()
        self.spool.close()
        self.spool_path.unlink()

    def append(self, index: int, ids: npt.NDArray[Any]) -> None:
        if self.tokens and self.tokens + len(ids) > self.shard_tokens:
            self._finish_shard()
        self.spool.write(ids.tobytes())
        self.lengths.append(len(ids))
        self.index.append(index)
        self.tokens += len(ids)

    def _finish_shard(self) -> None:
        self.spool.flush()
        offsets = np.zeros(len(self.lengths) + 1, np.uint64)
        np.cumsum(self.lengths, out=offsets[1:], dtype=np.uint64)
        tokens = np.memmap(self.spool_path, self.dtype, "r", shape=(self.tokens,))
        path = self.stage.path(shard_name(self.split, self.language, self.shards))
        write_shard(path, tokens, offsets, np.array(self.index, np.uint64))
        del tokens  # unmap before the file shrinks
        self.spool.seek(0)
        self.spool.truncate()
        self.shards, self.lengths, self.index, self.tokens = self.shards + 1, [], [], 0


def _copy_tokenizer(tokenizer: Path, stage: StageWriter) -> None:
    """Make the shards self-contained: their tokenizer lies beside them, a finished stage."""
    manifest = read_manifest(tokenizer, TOKENIZER_KIND, TOKENIZER_FORMAT)
    for name in [*manifest.files, MANIFEST_NAME]:
        shutil.copyfile(tokenizer / name, stage.path(f"{TOKENIZER_DIRECTORY}/{name}"))
