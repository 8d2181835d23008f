"""Datasets of a closed HDF5 file, read through a memory map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from hpctrain.errors import DataError


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
        return self.length == 0 or (self.file_offset is not None and self.dtype.isnative)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A copy of elements start to stop - 1, of those that there are, in native byte order."""
        if self._map is None and not self.is_mappable:
            return self._read_through_hdf5(start, stop)
        whole = self.array() if self._map is None else self._map
        part: npt.NDArray[Any] = whole[start:stop].copy()
        return part

    def array(self) -> npt.NDArray[Any]:
        """The whole dataset: a view of the map, or, where it cannot be mapped, a copy in memory."""
        if self._map is None:
            if not self.length:
                self._map = np.empty(0, self.dtype)
            elif self.is_mappable:
                # a plain array on the map: slices of numpy's own class for maps take thrice as long
                self._map = np.asarray(
                    np.memmap(self.path, self.dtype, "r", self.file_offset or 0, (self.length,))
                )
            else:
                self._map = self._read_through_hdf5(0, self.length)
        result: npt.NDArray[Any] = self._map
        return result

    def _read_through_hdf5(self, start: int, stop: int) -> npt.NDArray[Any]:
        try:
            with h5py.File(self.path, "r") as file:
                part: npt.NDArray[Any] = file[self.name][start:stop]
        except (OSError, RuntimeError) as reason:
            raise DataError(f"{self.path}: {self.name} cannot be read: {reason}") from None
        return part.astype(part.dtype.newbyteorder("="), copy=False)
