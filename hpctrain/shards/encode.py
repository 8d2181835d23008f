"""From one documents file of a corpus to its tokens: the unit of work that ranks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hpctrain.corpus.document import Document, read_documents_file
from hpctrain.shards.layout import SPAN_DTYPE
from hpctrain.shards.repository import Placed, in_repository_order
from hpctrain.shards.spans import find_token_spans
from hpctrain.tokenizer.codec import Tokenizer

Key = tuple[str, str]
"""Split and language."""

Order = Literal["path", "repository"]
"""As in the corpus, or what is included or used before its users."""

_BATCH_BYTES_PER_THREAD = 2 << 20
_COLUMNS = ("tokens", "lengths", "numbers", "sources", "spans")


@dataclass
class EncodedPart:
    """The documents of one split and language in one unit."""

    tokens: npt.NDArray[Any]
    """One document after the other."""
    lengths: npt.NDArray[np.uint32]
    """Tokens of each document."""
    numbers: npt.NDArray[np.uint32]
    """Place of each document in its file."""
    sources: npt.NDArray[np.str_]
    """Source of each document."""
    spans: npt.NDArray[Any]
    """Of SPAN_DTYPE; starts are places in `tokens`."""


def encode_unit(
    path: Path,
    codec: Tokenizer,
    order: Order,
    with_spans: bool,
    threads: int,
    on_bytes: Callable[[int], None],
) -> dict[Key, tuple[EncodedPart, int]]:
    """Encode a documents file; the parts with their bytes of content, by split and language.

    In repository order only the first document of a repository has the mark of a document: the others follow
    from their file name on, so that the model sees what came before.

    `on_bytes` hears of bytes as they are done. Holds the tokens of the file and a few MiB of
    documents a thread in memory; in repository order, the documents of the file. Raises DataError if the file
    is damaged.
    """
    makers: dict[Key, _Maker] = {}
    documents = read_documents_file(path)
    placed = (
        in_repository_order(documents)
        if order == "repository"
        else (Placed(number, document) for number, document in enumerate(documents))
    )
    for batch in _batches(placed, threads * _BATCH_BYTES_PER_THREAD):
        encoded = codec.encode_documents([(d.language, d.path, d.content) for _, d, _ in batch], threads)
        for (number, document, follows), ids in zip(batch, encoded, strict=True):
            maker = makers.setdefault((document.split, document.language), _Maker())
            kept = ids[int(np.argmax(ids == codec.special.file_name)) :] if follows else ids
            maker.add(number, document, kept, codec if with_spans else None)
        on_bytes(sum(len(document.content) for _, document, _ in batch))
    return {key: (maker.finish(codec.dtype), maker.bytes) for key, maker in sorted(makers.items())}


def write_unit(path: Path, parts: dict[Key, tuple[EncodedPart, int]]) -> None:
    """Write what `encode_unit` gave to a file that `UnitFile` reads."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for (split, language), (part, size) in parts.items():
        arrays[f"{split}/{language}/bytes"] = np.array(size, np.uint64)
        arrays |= {f"{split}/{language}/{name}": getattr(part, name) for name in _COLUMNS}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type] # its stub takes one of them for a flag


class UnitFile:
    """Reads columns of an encoded unit, each only when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._arrays = np.load(path, allow_pickle=False)

    def __enter__(self) -> UnitFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._arrays.close()

    def parts(self) -> list[Key]:
        """Splits and languages that the unit has documents of."""
        names = [name.rsplit("/", 2) for name in self._arrays.files]
        return [(split, language) for split, language, column in names if column == "bytes"]

    def column(self, key: Key, name: str) -> npt.NDArray[Any]:
        """A field of EncodedPart, or `bytes`, the size of the contents."""
        array: npt.NDArray[Any] = self._arrays[f"{key[0]}/{key[1]}/{name}"]
        return array


@dataclass
class _Maker:
    """Collects the documents of one part."""

    ids: list[npt.NDArray[Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    spans: list[npt.NDArray[Any]] = field(default_factory=list)
    tokens: int = 0
    bytes: int = 0

    def add(self, number: int, document: Document, ids: npt.NDArray[Any], codec: Tokenizer | None) -> None:
        """Append a document; with a codec, its spans too."""
        if codec:
            content_at = int(np.argmax(ids == codec.special.content)) + 1
            spans = find_token_spans(document.content, document.language, ids, content_at, codec.token_bytes)
            spans["start"] += self.tokens
            spans["stop"] += self.tokens
            self.spans.append(spans)
        self.ids.append(ids)
        self.numbers.append(number)
        self.sources.append(document.source)
        self.tokens += len(ids)
        self.bytes += len(document.content)

    def finish(self, dtype: np.dtype[Any]) -> EncodedPart:
        return EncodedPart(
            tokens=np.concatenate(self.ids, dtype=dtype),
            lengths=np.array([len(ids) for ids in self.ids], np.uint32),
            numbers=np.array(self.numbers, np.uint32),
            sources=np.array(self.sources, np.str_),
            spans=np.concatenate([np.empty(0, SPAN_DTYPE), *self.spans]),
        )


def _batches(documents: Iterable[Placed], batch_bytes: int) -> Iterator[list[Placed]]:
    """Group documents so that every thread has work and memory stays bounded."""
    batch: list[Placed] = []
    size = 0
    for placed in documents:
        batch.append(placed)
        size += len(placed.document.content)
        if size >= batch_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
