"""HDF5 files from strangers: nothing in them may make a reader open another file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpctrain.errors import DataError
from hpctrain.hdf5 import open_contained


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """What the hostile files point at."""
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["tokens"] = np.arange(10)
    (tmp_path / "secret.raw").write_bytes(b"\1" * 80)
    return path


def soft_link(file: h5py.File, secret: Path) -> None:
    file["elsewhere"] = np.arange(10)
    file["tokens"] = h5py.SoftLink("/elsewhere")


def dangling_soft_link(file: h5py.File, secret: Path) -> None:
    file["tokens"] = h5py.SoftLink("/nowhere")


def external_link(file: h5py.File, secret: Path) -> None:
    file["tokens"] = h5py.ExternalLink(str(secret), "/tokens")


def external_storage(file: h5py.File, secret: Path) -> None:
    raw = str(secret.with_suffix(".raw"))
    file.create_dataset("tokens", (10,), "i8", external=[(raw, 0, 80)])


def virtual_dataset(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((10,), "i8")
    layout[:] = h5py.VirtualSource(str(secret), "tokens", (10,))
    file.create_virtual_dataset("tokens", layout)


def missing(file: h5py.File, secret: Path) -> None:
    file["other"] = np.arange(10)


def group(file: h5py.File, secret: Path) -> None:
    file.create_group("tokens")["inner"] = np.arange(10)


def named_type(file: h5py.File, secret: Path) -> None:
    file["tokens"] = np.dtype("i8")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (soft_link, "/tokens is a link; only plain datasets are read"),
        (dangling_soft_link, "/tokens is a link"),
        (external_link, "/tokens is a link"),
        (external_storage, "/tokens names other files"),
        (virtual_dataset, "/tokens names other files"),
        (missing, "lacks the dataset /tokens"),
        (group, "/tokens is not a dataset"),
        (named_type, "/tokens is not a dataset"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_reaches_outside_is_refused(
    tmp_path: Path, secret: Path, make: Callable[[h5py.File, Path], None], expected: str
) -> None:
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = np.arange(3)
        make(file, secret)
    with pytest.raises(DataError) as caught, open_contained(path, ["plain", "tokens"]):
        pass
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    with open_contained(path, ["plain"]) as file:  # what is not asked for is not looked at
        assert file["plain"][:].tolist() == [0, 1, 2]


@pytest.mark.parametrize("content", [None, b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_not_hdf5_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokens.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokens\.h5: not a readable HDF5 file"), open_contained(path, []):
        pass


def test_a_truncated_file_is_named(secret: Path) -> None:
    secret.write_bytes(secret.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"secret\.h5: not a readable HDF5 file"), open_contained(secret, []):
        pass


def test_plain_datasets_are_read_and_the_file_is_closed(secret: Path) -> None:
    with open_contained(secret, ["tokens"]) as file:
        assert file["tokens"][:].tolist() == list(range(10))
    assert not file  # closed


def test_errors_of_the_reader_pass_and_close_the_file(secret: Path) -> None:
    opened: list[h5py.File] = []

    def read() -> None:
        with open_contained(secret, ["tokens"]) as file:
            opened.append(file)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()
    assert not opened[0]
