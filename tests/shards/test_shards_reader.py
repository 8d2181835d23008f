from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpctrain.errors import DataError
from hpctrain.manifest import commit
from hpctrain.shards.layout import SHARDS_FORMAT, SHARDS_KIND
from hpctrain.shards.reader import TokenStream, open_streams, read_shards_manifest, verify_shards

VICTIM = "train/cpp-00000.h5"


def reseal(directory: Path, format_version: int = SHARDS_FORMAT) -> None:
    """Commit the directory again, as one who can forge checksums would."""
    old = read_shards_manifest(directory)
    commit(directory, SHARDS_KIND, format_version, old.inputs, old.counts, old.details)


def whole(directory: Path, split: str, language: str) -> np.ndarray:
    """A stream's tokens as h5py alone reads them."""
    parts = []
    for path in sorted((directory / split).glob(f"{language}-*.h5")):
        with h5py.File(path, "r") as file:
            parts.append(file["tokens"][:])
    return np.concatenate(parts)


def test_the_map_reads_what_h5py_reads_across_files(shards_directory: Path) -> None:
    stream, expected = open_streams(shards_directory, "train")["c"], whole(shards_directory, "train", "c")
    assert len(stream.shards) > 2
    assert len(stream) == len(expected)
    generator = np.random.default_rng(0)
    for start, stop in np.sort(generator.integers(0, len(stream) + 1, (500, 2)), axis=1).tolist():
        assert np.array_equal(stream.read(start, stop), expected[start:stop])
    for border in stream.starts:
        start, stop = max(0, border - 3), min(len(stream), border + 3)
        assert np.array_equal(stream.read(start, stop), expected[start:stop])
        assert len(stream.read(border, border)) == 0
    part = stream.read(0, 10)
    part[:] = 0  # a copy: the file is not touched
    assert np.array_equal(stream.read(0, 10), expected[:10])


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (4, 3), (0, 1 << 40)])
def test_reads_outside_the_stream_are_refused(shards_directory: Path, start: int, stop: int) -> None:
    stream = open_streams(shards_directory, "train", verify=False)["c"]
    with pytest.raises(IndexError, match="of a stream of"):
        stream.read(start, stop)
    with pytest.raises(IndexError, match="of a stream of"):
        stream.document_of(stop if stop > 3 else -1)


def test_streams_pickle_small_and_work_in_other_processes(shards_directory: Path) -> None:
    stream = open_streams(shards_directory, "train")["c"]
    expected = stream.read(0, 1000)
    assert len(pickle.dumps(stream)) < 10_000
    assert np.array_equal(pickle.loads(pickle.dumps(stream)).read(0, 1000), expected)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            jobs = [pool.apply_async(stream.read, (0, 1000)) for _ in range(8)]
            assert all(np.array_equal(job.get(60), expected) for job in jobs)


def test_no_file_stays_open_as_hdf5(shards_directory: Path) -> None:
    streams = open_streams(shards_directory, "train")
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0
    del streams


def test_unknown_split_and_missing_shards(shards_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no split test, only train, validation"):
        open_streams(shards_directory, "test")
    with pytest.raises(DataError, match="does not exist"):
        open_streams(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match="not finished"):
        open_streams(tmp_path, "train")


def test_a_flipped_bit_is_found(copied_shards: Path) -> None:
    path = copied_shards / VICTIM
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    assert verify_shards(copied_shards) == [f"{path}: checksum differs from the manifest's"]
    with pytest.raises(DataError, match=r"train/cpp-00000\.h5: checksum differs"):
        open_streams(copied_shards, "train")
    assert open_streams(copied_shards, "validation")


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_or_missing_shard_is_found(copied_shards: Path, verify: bool) -> None:
    path = copied_shards / VICTIM
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"train/cpp-00000\.h5: "):
        open_streams(copied_shards, "train", verify)
    reseal(copied_shards)
    with pytest.raises(DataError, match=r"train/cpp-00000\.h5: not a readable HDF5 file"):
        open_streams(copied_shards, "train", verify)
    path.unlink()
    with pytest.raises(DataError, match=r"train/cpp-00000\.h5: missing"):
        open_streams(copied_shards, "train", verify)


def test_whole_shards_have_no_damage(shards_directory: Path) -> None:
    assert verify_shards(shards_directory) == []


def test_a_newer_format_is_refused(copied_shards: Path) -> None:
    reseal(copied_shards, SHARDS_FORMAT + 1)
    with pytest.raises(DataError, match="use a newer hpctrain"):
        open_streams(copied_shards, "train")


def replace_tokens(path: Path, make: Callable[[h5py.File, np.ndarray], None]) -> None:
    with h5py.File(path, "r+") as file:
        tokens = file["tokens"][:]
        del file["tokens"]
        make(file, tokens)


def _external_link(file: h5py.File, tokens: np.ndarray) -> None:
    other = Path(file.filename).with_suffix(".other")
    with h5py.File(other, "w") as target:
        target["tokens"] = tokens
    file["tokens"] = h5py.ExternalLink(other.name, "/tokens")


def _soft_link(file: h5py.File, tokens: np.ndarray) -> None:
    file["elsewhere"] = tokens
    file["tokens"] = h5py.SoftLink("/elsewhere")


def _external_storage(file: h5py.File, tokens: np.ndarray) -> None:
    raw = Path(file.filename).with_suffix(".raw")
    raw.write_bytes(tokens.tobytes())
    file.create_dataset("tokens", tokens.shape, tokens.dtype, external=[(str(raw), 0, tokens.nbytes)])


def _virtual(file: h5py.File, tokens: np.ndarray) -> None:
    other = Path(file.filename).with_suffix(".other")
    with h5py.File(other, "w") as target:
        target["tokens"] = tokens
    layout = h5py.VirtualLayout(tokens.shape, tokens.dtype)
    layout[:] = h5py.VirtualSource(str(other), "tokens", tokens.shape)
    file.create_virtual_dataset("tokens", layout)


@pytest.mark.parametrize("make", [_external_link, _soft_link, _external_storage, _virtual])
def test_a_shard_that_reaches_outside_itself_is_refused(
    copied_shards: Path, make: Callable[[h5py.File, np.ndarray], None]
) -> None:
    replace_tokens(copied_shards / VICTIM, make)
    reseal(copied_shards)
    with pytest.raises(DataError, match=r"train/cpp-00000\.h5: /tokens (is a link|names other files)"):
        open_streams(copied_shards, "train")


def _signed(file: h5py.File, tokens: np.ndarray) -> None:
    file["tokens"] = tokens.astype(np.int64)


def _short(file: h5py.File, tokens: np.ndarray) -> None:
    file["tokens"] = tokens[:-1]


def _flat_pairs(file: h5py.File, tokens: np.ndarray) -> None:
    file["tokens"] = np.stack([tokens, tokens], axis=1)


def _absent(file: h5py.File, tokens: np.ndarray) -> None:
    del tokens


def _scalar(file: h5py.File, tokens: np.ndarray) -> None:
    file["tokens"] = tokens[0]


@pytest.mark.parametrize("make", [_signed, _short, _flat_pairs, _absent, _scalar])
def test_a_shard_of_another_shape_is_refused(
    copied_shards: Path, make: Callable[[h5py.File, np.ndarray], None]
) -> None:
    replace_tokens(copied_shards / VICTIM, make)
    reseal(copied_shards)
    with pytest.raises(DataError, match=r"train/cpp-00000\.h5: "):
        open_streams(copied_shards, "train")


def _chunked(file: h5py.File, tokens: np.ndarray) -> None:
    file.create_dataset("tokens", data=tokens, chunks=(4096,), compression="gzip")


def test_a_compressed_shard_is_read_through_hdf5_and_announced(
    copied_shards: Path, shards_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_tokens(copied_shards / VICTIM, _chunked)
    reseal(copied_shards)
    stream = open_streams(copied_shards, "train")["cpp"]
    assert capsys.readouterr().err.count("not contiguous") == 1
    expected = whole(shards_directory, "train", "cpp")
    border = stream.starts[1]
    for start, stop in [(0, 10), (border - 5, border), (border, border), (0, len(stream))]:
        assert np.array_equal(stream.read(start, stop), expected[start:stop])
    assert isinstance(stream, TokenStream)
    assert stream.document_of(0) >= 0


def test_counts_that_differ_from_the_shards_are_refused(copied_shards: Path) -> None:
    old = read_shards_manifest(copied_shards)
    old.counts["tokens"]["train"]["cpp"] += 1
    commit(copied_shards, SHARDS_KIND, SHARDS_FORMAT, old.inputs, old.counts, old.details)
    with pytest.raises(DataError, match="other tokens than the shards of cpp"):
        open_streams(copied_shards, "train")
