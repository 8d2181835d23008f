"""Token shards as one address space for each language, read through the page cache."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hpctrain.errors import DataError
from hpctrain.hdf5 import open_contained
from hpctrain.manifest import Manifest, find_damage, read_manifest
from hpctrain.progress import progress, say
from hpctrain.shards.layout import (
    DATASETS,
    DOCUMENT_INDEX,
    DOCUMENT_OFFSETS,
    INDEX_DTYPE,
    SHARDS_FORMAT,
    SHARDS_KIND,
    TOKEN_DTYPES,
    TOKENS,
    parse_shard_name,
)


class MappedDataset:
    """A 1-D HDF5 dataset of a closed file, read through a memory map at the dataset's place in the file.

    A dataset that is not contiguous has no such place and is read through HDF5, opened anew for each read: an
    HDF5 handle does not survive a fork, a map does. Pickles as its place, not its content.
    """

    def __init__(self, path: Path, dataset: h5py.Dataset) -> None:
        self.path, self.name, self.dtype, self.length = path, dataset.name, dataset.dtype, len(dataset)
        self.file_offset: int | None = dataset.id.get_offset()
        self._map: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return self.length

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    @property
    def is_mappable(self) -> bool:
        """Whether the content lies in the file as the array does in memory."""
        return self.file_offset is not None and self.dtype.isnative

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of elements start to stop - 1, of those that there are, in native byte order."""
        if self.is_mappable:
            return np.array(self.array()[start:stop])
        try:
            with h5py.File(self.path, "r") as file:
                part: npt.NDArray[Any] = file[self.name][start:stop]
        except (OSError, RuntimeError) as reason:
            raise DataError(f"{self.path}: {self.name} cannot be read: {reason}") from None
        return part.astype(part.dtype.newbyteorder("="), copy=False)

    def array(self) -> npt.NDArray[Any]:
        """The whole dataset: a view of the map, or, where it cannot be mapped, a copy in memory."""
        if self._map is None:
            self._map = (
                np.memmap(self.path, self.dtype, "r", self.file_offset or 0, (self.length,))
                if self.is_mappable
                else self.read(0, self.length)
            )
        return self._map


class Shard:
    """One shard file, checked against the format; see `layout`."""

    def __init__(self, path: Path) -> None:
        """Read the places of the datasets. Raises DataError if the file is not a shard."""
        self.path = path
        with open_contained(path, DATASETS) as file:
            tokens, offsets, index = (file[name] for name in DATASETS)
            well_typed = tokens.dtype in TOKEN_DTYPES and offsets.dtype == index.dtype == INDEX_DTYPE
            if not well_typed or (tokens.ndim, offsets.ndim, index.ndim) != (1, 1, 1):
                raise DataError(f"{path}: a dataset has another type or rank than the shard format says")
            self.tokens = MappedDataset(path, tokens)
            self.offsets = MappedDataset(path, offsets)
            self.index = MappedDataset(path, index)
        last = len(self.offsets) - 1
        ends = [*self.offsets.read(0, 1).tolist(), *self.offsets.read(last, last + 1).tolist()]
        if len(self.index) != last or ends != [0, len(self.tokens)]:
            raise DataError(f"{path}: /{DOCUMENT_OFFSETS} does not cover /{TOKENS} or /{DOCUMENT_INDEX}")


class TokenStream:
    """The tokens of one split and language as one address space over its shards, in corpus order.

    Safe to pickle and to use after a fork.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = list(shards)
        self.starts = [0, *accumulate(len(shard.tokens) for shard in self.shards)]
        """Position of each shard's first token, and the end."""

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of tokens start to stop - 1, across files, in the shards' own type (uint16 or uint32).

        Raises IndexError unless 0 <= start <= stop <= len(self).
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of a stream of {len(self)}")
        parts: list[npt.NDArray[Any]] = []
        shard = bisect_right(self.starts, start, hi=len(self.shards)) - 1
        while not parts or start < stop:
            first = self.starts[shard]
            parts.append(self.shards[shard].tokens.read(start - first, stop - first))
            start += len(parts[-1])
            shard += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def document_of(self, position: int) -> int:
        """Place in the corpus of the document that holds the token at `position`.

        Raises IndexError unless 0 <= position < len(self).
        """
        if not 0 <= position < len(self):
            raise IndexError(f"token {position} of a stream of {len(self)}")
        number = bisect_right(self.starts, position) - 1
        shard, local = self.shards[number], np.uint64(position - self.starts[number])
        return int(shard.index.array()[np.searchsorted(shard.offsets.array(), local, side="right") - 1])


def read_shards_manifest(directory: Path) -> Manifest:
    """The manifest of finished shards; raises DataError where there is none."""
    return read_manifest(directory, SHARDS_KIND, SHARDS_FORMAT)


def open_streams(directory: Path, split: str, verify: bool = True) -> dict[str, TokenStream]:
    """Open the token streams of a split, by language, sorted by name.

    With `verify`, the checksums of the split's files are compared with the manifest before they are parsed;
    their sizes always are. Raises DataError if the shards are missing, unfinished or damaged, or lack the
    split.
    """
    manifest = read_shards_manifest(directory)
    names = _names_by_language(manifest, split)
    if not names:
        splits = sorted({parts[0] for name in manifest.files if (parts := parse_shard_name(name))})
        raise DataError(f"{directory}: has no split {split}, only {', '.join(splits)}")
    wanted = [name for group in names.values() for name in group]
    damage = (
        _find_damage(directory, manifest, wanted) if verify else _wrong_sizes(directory, manifest, wanted)
    )
    if damage:
        more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
        raise DataError(f"{damage[0]}{more}; restore it or build the shards again")
    streams = {
        language: TokenStream([Shard(directory / name) for name in group])
        for language, group in names.items()
    }
    counted = manifest.counts["tokens"][split]
    if wrong := [language for language, stream in streams.items() if len(stream) != counted.get(language)]:
        raise DataError(
            f"{directory}: the manifest counts other tokens than the shards of {', '.join(wrong)} hold"
        )
    shards = [shard for stream in streams.values() for shard in stream.shards]
    if unmapped := sum(not shard.tokens.is_mappable for shard in shards):
        say(f"{directory}: {unmapped} of {len(shards)} shards of {split} are not contiguous: slow reads")
    return streams


def verify_shards(directory: Path) -> list[str]:
    """Compare every file with the manifest's checksums: one line for each that differs, none if all is well.

    Raises DataError if the directory holds no finished shards.
    """
    manifest = read_shards_manifest(directory)
    return _find_damage(directory, manifest, sorted(manifest.files))


def _names_by_language(manifest: Manifest, split: str) -> dict[str, list[str]]:
    """Shard files of a split, in order, by language."""
    found = sorted(
        (parts[1], parts[2], name)
        for name in manifest.files
        if (parts := parse_shard_name(name)) and parts[0] == split
    )
    names: dict[str, list[str]] = {}
    for language, _, name in found:
        names.setdefault(language, []).append(name)
    return names


def _find_damage(directory: Path, manifest: Manifest, names: list[str]) -> list[str]:
    total = sum(manifest.files[name].bytes for name in names)
    with progress("verify", total / 1e6, "MB") as bar:
        return find_damage(directory, manifest, names, on_bytes=lambda size: bar.advance(size / 1e6))


def _wrong_sizes(directory: Path, manifest: Manifest, names: list[str]) -> list[str]:
    paths = {directory / name: manifest.files[name].bytes for name in names}
    return [
        f"{path}: missing or not the {size} bytes that the manifest says"
        for path, size in paths.items()
        if not path.is_file() or path.stat().st_size != size
    ]
