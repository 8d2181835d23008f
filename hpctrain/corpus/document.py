"""The document: one source file with what is known of it, and how a corpus lies on disk.

A corpus is a stage directory of `documents-00000.h5`, `documents-00001.h5`, ..., `ledger.json` and the tables
of verdicts.py. Each documents file holds n documents in corpus order, in root datasets:

    /content            uint8, 1-D, contiguous: the bytes of every document, one after the other
    /content_offsets    uint64, n + 1: document i is content[content_offsets[i]:content_offsets[i + 1]]
    /source /path /language /licence /family /split /models /sha256    n variable-length UTF-8 strings each
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from hpctrain.errors import DataError
from hpctrain.hdf5 import open_contained
from hpctrain.manifest import Manifest, StageWriter, find_damage, read_manifest

CORPUS_KIND = "corpus"
CORPUS_FORMAT = 2
LANGUAGES = ("c", "cpp", "cuda", "fortran-fixed", "fortran-free", "hip", "opencl", "build", "docs")
"""Programs, and what stands beside them where a config asks for it; see `languages.find_companion`."""
SPLITS = ("train", "validation", "test")
FILE_CONTENT_BYTES = 64 << 20

_TEXT_COLUMNS = ("source", "path", "language", "licence", "family", "split", "models", "sha256")
_DATASETS = ["content", "content_offsets", *_TEXT_COLUMNS]


@dataclass(frozen=True, slots=True)
class Document:
    """One source file of the corpus."""

    source: str
    """Name of the source in the corpus config."""
    path: str
    """Path inside the source, `/`-separated."""
    language: str
    """One of LANGUAGES; Fortran's form is part of the label."""
    licence: str
    """SPDX expression, or "" where none is known."""
    family: str
    """Files that are variants of each other share a family, and a family never spans two splits."""
    split: str
    """One of SPLITS."""
    content: bytes
    """The file as it was found, secrets replaced."""
    models: str = ""
    """The programming models that it uses, sorted, with commas: `mpi,openmp`."""

    @property
    def sha256(self) -> str:
        """Hex digest of the content."""
        return hashlib.sha256(self.content).hexdigest()


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write one documents file; equal documents give equal bytes."""
    offsets = np.zeros(len(documents) + 1, np.uint64)
    np.cumsum([len(document.content) for document in documents], out=offsets[1:], dtype=np.uint64)
    with h5py.File(path, "w") as file:
        content = file.create_dataset("content", (int(offsets[-1]),), np.uint8)
        for document, start, end in zip(documents, offsets[:-1], offsets[1:], strict=True):
            content[start:end] = np.frombuffer(document.content, np.uint8)
        file["content_offsets"] = offsets
        for name in _TEXT_COLUMNS:
            values = [getattr(document, name) for document in documents]
            file.create_dataset(name, (len(values),), h5py.string_dtype(), data=values)


def write_corpus_files(
    writer: StageWriter, documents: Iterable[Document], file_bytes: int = FILE_CONTENT_BYTES
) -> int:
    """Write documents in the given order to files of at most `file_bytes` of content each, or one document.

    Holds one file's content in memory. Returns the number of files.
    """
    batch: list[Document] = []
    size = files = 0
    for document in documents:
        if batch and size + len(document.content) > file_bytes:
            write_documents(writer.path(documents_name(files)), batch)
            batch, size, files = [], 0, files + 1
        batch.append(document)
        size += len(document.content)
    if batch:
        write_documents(writer.path(documents_name(files)), batch)
        files += 1
    return files


def read_corpus_manifest(directory: Path) -> Manifest:
    """The manifest of a finished corpus; raises DataError where there is none."""
    return read_manifest(directory, CORPUS_KIND, CORPUS_FORMAT)


def read_documents(directory: Path, split: str | None = None, verify: bool = True) -> Iterator[Document]:
    """Stream the documents of a corpus in corpus order, all or those of one split.

    One document's content and one file's labels are in memory at a time. With `verify`, each file's checksum
    is compared with the manifest before the file is parsed. Raises DataError if the corpus is missing,
    unfinished or corrupt.
    """
    manifest = read_corpus_manifest(directory)
    if manifest.format_version < CORPUS_FORMAT:
        raise DataError(f"{directory}: a corpus in format {manifest.format_version}; build it again")
    for name in documents_files(manifest):
        if verify and (damage := find_damage(directory, manifest, [name])):
            raise DataError(f"{damage[0]}; build the corpus again or restore the file")
        yield from read_documents_file(directory / name, split)


def documents_files(manifest: Manifest) -> list[str]:
    """Names of a corpus's documents files in corpus order."""
    return sorted(name for name in manifest.files if name.startswith("documents-"))


def documents_name(index: int) -> str:
    """Name of a documents file by its place in corpus order."""
    return f"documents-{index:05d}.h5"


def read_documents_file(path: Path, split: str | None = None) -> Iterator[Document]:
    """Stream the documents of one file, all or those of one split, each compared with its checksum.

    Raises DataError if the file is corrupt.
    """
    with open_contained(path, _DATASETS) as file:
        try:
            offsets, labels = _read_labels(file)
        except (OSError, RuntimeError, UnicodeDecodeError, ValueError) as reason:
            raise DataError(f"{path}: not a readable documents file: {reason}") from None
        contents = file["content"]
        for start, end, label in zip(offsets[:-1], offsets[1:], labels, strict=True):
            if split is None or label["split"] == split:
                sha256 = label.pop("sha256")
                try:
                    document = Document(**label, content=contents[start:end].tobytes())
                except (OSError, RuntimeError) as reason:
                    raise DataError(f"{path}: {label['path']} cannot be read: {reason}") from None
                if document.sha256 != sha256:
                    raise DataError(f"{path}: the content of {label['path']} is not what was written")
                yield document


def _read_labels(file: h5py.File) -> tuple[npt.NDArray[np.uint64], list[dict[str, str]]]:
    """Offsets and text columns of an open file. Raises ValueError if they do not fit each other."""
    content, offsets = file["content"], file["content_offsets"]
    if content.dtype != np.uint8 or content.ndim != 1 or offsets.dtype != np.uint64 or offsets.ndim != 1:
        raise ValueError("/content or /content_offsets has another type or rank than the format says")
    bounds: npt.NDArray[np.uint64] = offsets[:]
    if not len(bounds) or bounds[0] != 0 or bounds[-1] != len(content) or (bounds[1:] < bounds[:-1]).any():
        raise ValueError("/content_offsets does not cover /content")
    columns = {}
    for name in _TEXT_COLUMNS:
        if h5py.check_string_dtype(file[name].dtype) is None or file[name].shape != (len(bounds) - 1,):
            raise ValueError(f"/{name} is not one string a document")
        columns[name] = file[name].asstr()[:]
    if not set(columns["language"]) <= set(LANGUAGES) or not set(columns["split"]) <= set(SPLITS):
        raise ValueError("an unknown language or split")
    rows = zip(*columns.values(), strict=True)
    return bounds, [dict(zip(columns, row, strict=True)) for row in rows]
