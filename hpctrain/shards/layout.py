"""The format of token shards on disk, stated once.

A shards directory is a stage of files `<split>/<language>-<index>.h5`, such as `train/fortran-free-00000.h5`,
and of the tokenizer that made them, a finished stage of its own, in `tokenizer/`. Documents stand in corpus
order and never span two files. A shard holds t tokens of n documents in three root datasets, all contiguous
and aligned, so that readers may map them:

    /tokens             uint16 (uint32 from 65,536 pieces on), t: the documents one after the other
    /document_offsets   uint64, n + 1: document i is tokens[document_offsets[i]:document_offsets[i + 1]]
    /document_index     uint64, n: the place of each document in the corpus, for tracing
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

SHARDS_KIND = "shards"
SHARDS_FORMAT = 1
TOKENIZER_DIRECTORY = "tokenizer"

TOKENS = "tokens"
DOCUMENT_OFFSETS = "document_offsets"
DOCUMENT_INDEX = "document_index"
DATASETS = [TOKENS, DOCUMENT_OFFSETS, DOCUMENT_INDEX]

TOKEN_DTYPES = (np.dtype("<u2"), np.dtype("<u4"))
INDEX_DTYPE = np.dtype("<u8")
ALIGNMENT_BYTES = 4096
DEFAULT_SHARD_TOKENS = 64 << 20
_COPY_TOKENS = 4 << 20


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


def write_shard(
    path: Path, tokens: npt.NDArray[Any], offsets: npt.NDArray[np.uint64], index: npt.NDArray[np.uint64]
) -> None:
    """Write one shard file; equal arrays give equal bytes.

    `tokens` (t,) may be a memory map: it is copied in blocks. `offsets` is (n + 1,), `index` (n,).
    """
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=ALIGNMENT_BYTES) as file:
        dataset = file.create_dataset(TOKENS, tokens.shape, tokens.dtype, track_times=False)
        for start in range(0, len(tokens), _COPY_TOKENS):
            dataset[start : start + _COPY_TOKENS] = tokens[start : start + _COPY_TOKENS]
        file.create_dataset(DOCUMENT_OFFSETS, data=offsets.astype(INDEX_DTYPE), track_times=False)
        file.create_dataset(DOCUMENT_INDEX, data=index.astype(INDEX_DTYPE), track_times=False)
