"""The format of token shards on disk, stated once.

A shards directory is a stage of files `<split>/<language>-<index>.h5`, such as `train/fortran-free-00000.h5`,
and of the tokenizer that made them, a finished stage of its own, in `tokenizer/`. Documents stand in corpus
order and never span two files. A shard holds t tokens of n documents, r runs of documents of one source, and
s spans, in root datasets, all contiguous and aligned, so that readers may map them:

    /tokens             uint16 (uint32 from 65,536 pieces on), t: the documents one after the other
    /document_offsets   uint64, n + 1: document i is tokens[document_offsets[i]:document_offsets[i + 1]]
    /document_index     uint64, n: the place of each document in the corpus, for tracing
    /source_starts      uint64, r + 1: run i is of documents source_starts[i] to source_starts[i + 1] - 1
    /source_names       UTF-8 of fixed length, r: the source of each run
    /spans              SPAN_DTYPE, s: parts of documents for fill in the middle, by start, longer first

/spans is there if the manifest says so. In shards of instructions (`responses` in the manifest's details) it
holds the response of each document, end mark included, and nothing else. Format 1 had neither sources nor
spans; it is still read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hpctrain.manifest import Manifest

SHARDS_KIND = "shards"
SHARDS_FORMAT = 2
TOKENIZER_DIRECTORY = "tokenizer"

TOKENS = "tokens"
DOCUMENT_OFFSETS = "document_offsets"
DOCUMENT_INDEX = "document_index"
SOURCE_STARTS = "source_starts"
SOURCE_NAMES = "source_names"
SPANS = "spans"
_ALWAYS = [TOKENS, DOCUMENT_OFFSETS, DOCUMENT_INDEX]

TOKEN_DTYPES = (np.dtype("<u2"), np.dtype("<u4"))
INDEX_DTYPE = np.dtype("<u8")
SPAN_KINDS = ("loop_nest", "directive", "kernel", "function")
RESPONSE_KIND = len(SPAN_KINDS)
"""The kind of a span that is the response of an example of instructions."""
RESPONSES = "responses"
"""Among the details of a manifest: whether spans are responses."""
SPAN_DTYPE = np.dtype([("start", "<u8"), ("stop", "<u8"), ("head", "<u2"), ("tail", "<u2"), ("kind", "|u1")])
"""Tokens start to stop - 1 of the shard, of whose bytes the first `head` and the last `tail` are not in the
span; `kind` is a place in SPAN_KINDS, or RESPONSE_KIND."""
ALIGNMENT_BYTES = 4096
DEFAULT_SHARD_BYTES = 256 << 20


def shard_name(split: str, language: str, index: int) -> str:
    """Path of a shard relative to the shards directory."""
    return f"{split}/{language}-{index:05d}.h5"


def parse_shard_name(name: str) -> tuple[str, str, int] | None:
    """Split, language and index of a shard's relative path; None if the name is not a shard's."""
    split, _, file = name.rpartition("/")
    language, _, index = file.removesuffix(".h5").rpartition("-")
    if (
        not (split and language and file.endswith(".h5") and index.isdecimal())
        or split == TOKENIZER_DIRECTORY
    ):
        return None
    return split, language, int(index)


def dataset_names(manifest: Manifest) -> list[str]:
    """The datasets that every shard of these has."""
    sources = [SOURCE_STARTS, SOURCE_NAMES] if manifest.format_version > 1 else []
    return [*_ALWAYS, *sources, *([SPANS] if manifest.details.get("spans") else [])]


@dataclass(frozen=True)
class ShardTables:
    """What a shard says of its tokens."""

    offsets: npt.NDArray[np.uint64]
    """(n + 1,)"""
    index: npt.NDArray[np.uint64]
    """(n,)"""
    source_starts: npt.NDArray[np.uint64]
    """(r + 1,)"""
    source_names: Sequence[str]
    """r names"""
    spans: npt.NDArray[Any] | None
    """(s,) of SPAN_DTYPE, or None where they were not looked for."""


def write_shard(
    path: Path, dtype: np.dtype[Any], blocks: Iterable[npt.NDArray[Any]], tables: ShardTables
) -> None:
    """Write one shard file; equal arrays give equal bytes.

    `blocks` are the tokens, one array after the other: as many in all as `tables.offsets` says. Raises
    OSError where the disk is full.
    """
    names = np.array([name.encode() for name in tables.source_names])
    columns = {
        DOCUMENT_OFFSETS: tables.offsets.astype(INDEX_DTYPE),
        DOCUMENT_INDEX: tables.index.astype(INDEX_DTYPE),
        SOURCE_STARTS: tables.source_starts.astype(INDEX_DTYPE),
        SOURCE_NAMES: names.astype(h5py.string_dtype("utf-8", max(1, names.dtype.itemsize))),
    }
    if tables.spans is not None:
        columns[SPANS] = tables.spans.astype(SPAN_DTYPE)
    # HDF5 lays out the file and the contents are written past it: it may crash on a disk that is full
    places = {}
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=ALIGNMENT_BYTES) as file:
        places[TOKENS] = _reserve(file, TOKENS, int(tables.offsets[-1]), dtype)
        for name, column in columns.items():
            places[name] = _reserve(file, name, len(column), column.dtype)
    with path.open("r+b") as stream:
        stream.seek(places[TOKENS])
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).data)
        assert stream.tell() == places[TOKENS] + int(tables.offsets[-1]) * dtype.itemsize
        for name, column in columns.items():
            stream.seek(places[name])
            stream.write(column.tobytes())


def _reserve(file: h5py.File, name: str, length: int, dtype: np.dtype[Any]) -> int:
    """Create a contiguous dataset; returns where in the file its content goes."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = file.create_dataset(name, (length,), dtype, dcpl=creation, track_times=False)
    place: int | None = dataset.id.get_offset()
    return place or 0  # without elements it has no place
