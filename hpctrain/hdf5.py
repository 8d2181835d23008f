"""Open HDF5 files from strangers: no link, external storage or virtual dataset may reach outside the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from hpctrain.errors import DataError


@contextmanager
def open_contained(path: Path, datasets: list[str]) -> Iterator[h5py.File]:
    """Open a file for reading after proving that the named root datasets are plain and its own.

    Raises DataError if the file is unreadable, lacks one of `datasets`, or any of them is a soft or external
    link, lies in external storage, or is virtual.
    """
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as reason:
        raise DataError(f"{path}: not a readable HDF5 file: {str(reason).splitlines()[0]}") from None
    with file:
        for name in datasets:
            _check_contained(file, path, name)
        yield file


def _check_contained(file: h5py.File, path: Path, name: str) -> None:
    link = file.get(name, getlink=True)
    if link is None:
        raise DataError(f"{path}: lacks the dataset /{name}")
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"{path}: /{name} is a link; only plain datasets are read")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{path}: /{name} is not a dataset")
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{path}: /{name} names other files (external or virtual storage); refused")
