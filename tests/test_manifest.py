"""Stage manifests: published last, sealed, and every kind of damage found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpctrain.errors import CheckpointError, DataError
from hpctrain.manifest import (
    MANIFEST_NAME,
    Manifest,
    commit,
    disk_errors,
    find_damage,
    find_finished,
    is_finished,
    read_manifest,
    write_atomically,
    write_stage,
)

KIND, FORMAT = "stage", 3
CONTENT = {"a.bin": b"some bytes", "empty": b"", "folder/deep/b.bin": bytes(range(256)) * 40}
INPUTS = {"corpus": "c" * 32, "tokenizer": "t" * 32}

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from hpctrain import manifest

if sys.argv[2] == "before commit":
    manifest.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
elif sys.argv[2] == "before rename":
    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with manifest.write_stage(Path(sys.argv[1]), "stage", 3) as stage:
    stage.path("a.bin").write_bytes(b"half of the wo")
    stage.path("folder/stale.bin").write_bytes(b"of a killed run")
    if sys.argv[2] == "in the block":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def write(directory: Path, **details: Any) -> Path:
    with write_stage(directory, KIND, FORMAT) as stage:
        for name, content in CONTENT.items():
            stage.path(name).write_bytes(content)
        stage.inputs = dict(INPUTS)
        stage.counts = {"documents": 7, "by_language": {"c": 3, "fortran": 4}}
        stage.details = details
    return directory


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return write(tmp_path / "stage")


def test_a_finished_stage_reads_back(finished: Path) -> None:
    manifest = read_manifest(finished, KIND, FORMAT)
    assert {name: record.bytes for name, record in manifest.files.items()} == {
        name: len(content) for name, content in CONTENT.items()
    }
    assert manifest.inputs == INPUTS
    assert manifest.counts["by_language"] == {"c": 3, "fortran": 4}
    assert find_damage(finished, manifest) == []
    assert {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()} == {
        *CONTENT,
        MANIFEST_NAME,
    }


@pytest.mark.parametrize("moment", ["in the block", "before commit", "before rename"])
def test_a_killed_writer_leaves_nothing_finished_and_a_rerun_succeeds(tmp_path: Path, moment: str) -> None:
    final = tmp_path / "stage"
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(final), moment], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()), "the writer was killed before it wrote anything"
    assert not is_finished(final)
    assert find_finished(final, KIND, FORMAT, INPUTS) is None
    with pytest.raises(DataError, match=r"does not exist \(no manifest.json\); build it first"):
        read_manifest(final, KIND, FORMAT)
    write(final)
    assert set(read_manifest(final, KIND, FORMAT).files) == set(CONTENT), "stale files of the killed run"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


def test_a_writer_that_raises_publishes_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with write_stage(tmp_path / "stage", KIND, FORMAT) as stage:
            stage.path("a.bin").write_bytes(b"some")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert not (tmp_path / "stage").exists()


def test_the_manifest_is_the_last_file_written(tmp_path: Path) -> None:
    with write_stage(tmp_path / "stage", KIND, FORMAT) as stage:
        stage.path("a.bin").write_bytes(b"some")
        partial = stage.directory
        assert not (tmp_path / "stage").exists()
        assert not is_finished(partial)
    assert not partial.exists()


def test_a_published_stage_is_never_overwritten(finished: Path) -> None:
    before = (finished / MANIFEST_NAME).read_bytes()
    with pytest.raises(DataError, match=r"stage: already holds a finished stage; remove it"):
        write(finished)
    assert (finished / MANIFEST_NAME).read_bytes() == before
    assert find_damage(finished, read_manifest(finished, KIND, FORMAT)) == []


def test_an_empty_directory_may_be_there_and_any_other_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert is_finished(write(tmp_path / "empty"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("of the user")
    with pytest.raises(DataError, match=r"full: Directory not empty"):
        write(tmp_path / "full")
    assert (tmp_path / "full" / "precious").read_text() == "of the user"


def test_an_unfinished_directory_is_told_from_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this stage is not finished"):
        read_manifest(tmp_path, KIND, FORMAT)
    with pytest.raises(CheckpointError, match="this stage does not exist"):
        read_manifest(tmp_path / "absent", KIND, FORMAT, error=CheckpointError)


@settings(max_examples=400)
@given(st.data())
def test_one_wrong_byte_in_the_manifest_is_never_believed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.getbasetemp() / "flipped"
    if not is_finished(directory):
        write(directory, note="größe", loss=2.5)
        (directory / "original").write_bytes((directory / MANIFEST_NAME).read_bytes())
    original = (directory / "original").read_bytes()
    truth = Manifest.model_validate_json(original)
    place = data.draw(st.integers(0, len(original) - 1), "place")
    byte = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789abcdef{}[]",: \n.e'), "byte")
    changed = original[:place] + bytes([byte]) + original[place + 1 :]
    (directory / MANIFEST_NAME).write_bytes(changed)
    try:
        found = read_manifest(directory, KIND, FORMAT)
    except DataError:
        found = None
    if changed == original:
        assert found is not None
    if found is not None:
        assert str(found) == str(truth)  # by its text, since 1 == 1.0 == True in Python


@settings(max_examples=60)
@given(st.integers(0, 1000))
def test_a_cut_manifest_is_never_believed(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    directory = tmp_path_factory.getbasetemp() / "cut"
    if not is_finished(directory):
        write(directory)
        (directory / "original").write_bytes((directory / MANIFEST_NAME).read_bytes())
    original = (directory / "original").read_bytes()
    (directory / MANIFEST_NAME).write_bytes(original[: min(kept, len(original) - 2)])
    with pytest.raises(DataError, match="not a readable manifest"):
        read_manifest(directory, KIND, FORMAT)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(details=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
@example(details={"small": 5e-324, "big": 10**30, "odd": -0.0})
def test_whatever_is_recorded_reads_back(
    tmp_path_factory: pytest.TempPathFactory, details: dict[str, Any]
) -> None:
    """A manifest whose own writer's values break its seal would make a good stage look damaged."""
    directory = tmp_path_factory.getbasetemp() / "recorded"
    directory.mkdir(exist_ok=True)
    commit(directory, KIND, FORMAT, {}, {}, details, files={})
    found = read_manifest(directory, KIND, FORMAT).details
    assert json.dumps(found, sort_keys=True) == json.dumps(details, sort_keys=True)


def test_numbers_that_json_lacks_become_null_and_break_no_seal(tmp_path: Path) -> None:
    commit(tmp_path, KIND, FORMAT, {}, {"loss": float("nan")}, {"grad_norm": float("-inf")})
    manifest = read_manifest(tmp_path, KIND, FORMAT)
    assert manifest.counts == {"loss": None}
    assert manifest.details == {"grad_norm": None}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "0 bytes, the manifest says 10240"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "10241 bytes, the manifest says 10240"),
        (flip, "checksum differs from the manifest's"),
        (lambda path: path.write_bytes(path.read_bytes()[::-1]), "checksum differs from the manifest's"),
    ],
    ids=["missing", "emptied", "longer", "flipped", "reversed"],
)
def test_each_kind_of_damage_is_named(finished: Path, damage: Callable[[Path], None], expected: str) -> None:
    path = finished / "folder/deep/b.bin"
    manifest = read_manifest(finished, KIND, FORMAT)
    damage(path)
    assert find_damage(finished, manifest) == [f"{path}: {expected}"]
    assert find_damage(finished, manifest, ["a.bin", "empty"]) == []


def test_every_damaged_file_has_its_line_and_progress_hears_of_all_bytes(finished: Path) -> None:
    manifest = read_manifest(finished, KIND, FORMAT)
    heard: list[int] = []
    assert find_damage(finished, manifest, on_bytes=heard.append) == []
    assert sum(heard) == sum(map(len, CONTENT.values()))
    for name in CONTENT:
        (finished / name).unlink()
    assert len(find_damage(finished, manifest)) == len(CONTENT)


def test_a_newer_format_and_another_kind_are_refused(finished: Path) -> None:
    with pytest.raises(
        DataError, match=r"written in stage format 3, newer than the 2 .* use a newer hpctrain"
    ):
        read_manifest(finished, KIND, 2)
    with pytest.raises(DataError, match="holds a stage, expected a corpus"):
        read_manifest(finished, "corpus", FORMAT)
    assert read_manifest(finished, KIND, FORMAT + 1).format_version == FORMAT


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({**INPUTS, "corpus": "x"}, "another corpus;"),
        ({"corpus": "x", "tokenizer": "y"}, "another corpus and tokenizer;"),
        ({"corpus": INPUTS["corpus"]}, "another tokenizer;"),
        ({**INPUTS, "config": "z"}, "another config;"),
    ],
)
def test_a_stage_made_from_something_else_is_not_taken(
    finished: Path, inputs: dict[str, str], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        find_finished(finished, KIND, FORMAT, inputs)


def test_a_stage_made_from_the_same_is_found(finished: Path) -> None:
    found = find_finished(finished, KIND, FORMAT, dict(reversed(INPUTS.items())))
    assert found == read_manifest(finished, KIND, FORMAT)


def test_the_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    one = read_manifest(write(tmp_path / "one", host="a", time=1.0), KIND, FORMAT)
    other = read_manifest(write(tmp_path / "other", host="b", time=2.0), KIND, FORMAT)
    assert one.seal != other.seal
    assert one.fingerprint == other.fingerprint
    flip(tmp_path / "other" / "a.bin")
    damaged = commit(tmp_path / "other", KIND, FORMAT, {}, {}, {})
    assert damaged.fingerprint != one.fingerprint


def test_disk_errors_name_the_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent/file: No such file or directory"), disk_errors(tmp_path):
        (tmp_path / "absent" / "file").open("rb")
    with pytest.raises(DataError, match=r"a place: No space left on device"), disk_errors(Path("a place")):
        raise OSError(28, os.strerror(28))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/\.stage\.partial: Not a directory"):
        write(tmp_path / "file" / "stage")


def test_a_full_device_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No space left on device"), disk_errors(Path("/dev/full")):
        Path("/dev/full").write_bytes(b"x")


def test_an_atomic_write_replaces_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for text in ("old", "new, and longer: ä"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]
