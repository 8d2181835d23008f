"""The documents format: what is written is read, and nothing damaged is."""

import shutil
from pathlib import Path

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.document import (
    CORPUS_FORMAT,
    CORPUS_KIND,
    LANGUAGES,
    SPLITS,
    Document,
    read_documents,
    write_corpus_files,
    write_documents,
)
from hpctrain.errors import DataError
from hpctrain.manifest import write_stage

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_DOCUMENTS = st.lists(
    st.builds(
        Document,
        source=_TEXT,
        path=_TEXT,
        language=st.sampled_from(LANGUAGES),
        licence=_TEXT,
        family=_TEXT,
        split=st.sampled_from(SPLITS),
        content=st.binary(max_size=200),
    ),
    max_size=8,
)
_SAMPLE = [
    Document("s", f"dir/file{i}.c", "c", "MIT", f"s/{i}", SPLITS[i % 3 == 0], f"int x{i};\n".encode() * 50)
    for i in range(9)
]


def _write(directory: Path, documents: list[Document], file_bytes: int = 64 << 20) -> Path:
    with write_stage(directory, CORPUS_KIND, CORPUS_FORMAT) as writer:
        write_corpus_files(writer, documents, file_bytes)
    return directory


@settings(max_examples=40, deadline=None)
@given(documents=_DOCUMENTS, file_bytes=st.integers(1, 500))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Document], file_bytes: int
) -> None:
    directory = _write(tmp_path_factory.mktemp("corpus") / "c", documents, file_bytes)
    assert list(read_documents(directory)) == documents


def test_split_is_a_subsequence(tmp_path: Path) -> None:
    directory = _write(tmp_path / "c", _SAMPLE, file_bytes=1000)
    for split in SPLITS:
        assert list(read_documents(directory, split)) == [d for d in _SAMPLE if d.split == split]


def test_equal_documents_give_equal_bytes(tmp_path: Path) -> None:
    write_documents(tmp_path / "a.h5", _SAMPLE)
    write_documents(tmp_path / "b.h5", _SAMPLE)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_layout_is_the_documented_one(tmp_path: Path) -> None:
    write_documents(tmp_path / "a.h5", _SAMPLE)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["content"].chunks is None
        assert file["content"].id.get_offset() is not None
        assert file["content_offsets"].shape == (len(_SAMPLE) + 1,)
        assert file["sha256"].asstr()[0] == _SAMPLE[0].sha256


@pytest.mark.parametrize("state", ["absent", "unfinished", "newer", "another kind"])
def test_no_corpus(tmp_path: Path, state: str) -> None:
    directory = tmp_path / "c"
    if state == "unfinished":
        directory.mkdir()
    elif state == "newer":
        with write_stage(directory, CORPUS_KIND, CORPUS_FORMAT + 1):
            pass
    elif state == "another kind":
        with write_stage(directory, "shards", 1):
            pass
    with pytest.raises(DataError, match=str(directory)):
        list(read_documents(directory))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "removed"])
def test_damaged_file_is_named_before_it_is_parsed(tmp_path: Path, damage: str) -> None:
    directory = _write(tmp_path / "c", _SAMPLE, file_bytes=1000)
    victim = directory / "documents-00001.h5"
    content = bytearray(victim.read_bytes())
    if damage == "removed":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        victim.write_bytes(content)
    reader = read_documents(directory)
    assert next(reader) == _SAMPLE[0]  # the whole first file is still good
    with pytest.raises(DataError, match="documents-00001"):
        list(reader)


def test_flipped_content_is_found_without_checksums(tmp_path: Path) -> None:
    directory = _write(tmp_path / "c", _SAMPLE)
    victim = directory / "documents-00000.h5"
    content = victim.read_bytes()
    victim.write_bytes(content.replace(b"int x5;", b"int y5;", 1))
    with pytest.raises(DataError, match=r"dir/file5\.c"):
        list(read_documents(directory, verify=False))


def test_truncated_file_is_found_without_checksums(tmp_path: Path) -> None:
    directory = _write(tmp_path / "c", _SAMPLE)
    victim = directory / "documents-00000.h5"
    victim.write_bytes(victim.read_bytes()[:3000])
    with pytest.raises(DataError, match="documents-00000"):
        list(read_documents(directory, verify=False))


def _forge(directory: Path, change: str) -> None:
    with write_stage(directory, CORPUS_KIND, CORPUS_FORMAT) as writer:
        path = writer.path("documents-00000.h5")
        write_documents(path, _SAMPLE)
        with h5py.File(path, "a") as file:
            if change == "external link":
                shutil.copy(path, directory.parent / "other.h5")
                del file["content"]
                file["content"] = h5py.ExternalLink(str(directory.parent / "other.h5"), "/content")
            elif change == "soft link":
                file.move("content", "elsewhere")
                file["content"] = h5py.SoftLink("/elsewhere")
            elif change == "external storage":
                size = len(file["content"])
                del file["content"]
                file.create_dataset("content", (size,), "u1", external=[("/etc/hostname", 0, size)])
            elif change == "lacks a column":
                del file["licence"]
            elif change == "offsets beyond the content":
                file["content_offsets"][-1] += 1
            elif change == "offsets go back":
                file["content_offsets"][3] = 0
            elif change == "unknown language":
                file["language"][0] = "cobol"
            elif change == "another type":
                del file["path"]
                file["path"] = list(range(len(_SAMPLE)))


@pytest.mark.parametrize(
    "change",
    [
        "external link", "soft link", "external storage", "lacks a column", "offsets beyond the content",
        "offsets go back", "unknown language", "another type",
    ],
)  # fmt: skip
def test_forged_file_is_refused(tmp_path: Path, change: str) -> None:
    """The manifest vouches for these files, but not for what a stranger put into them."""
    directory = tmp_path / "c"
    _forge(directory, change)
    with pytest.raises(DataError, match=r"documents-00000\.h5"):
        list(read_documents(directory))
