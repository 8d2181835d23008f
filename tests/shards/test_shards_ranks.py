"""Commands for shards in several ranks: the same bytes, whatever their number and whoever dies on the way."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mpi import mpi_environment, mpiexec

from hpctrain.manifest import is_finished
from hpctrain.shards.reader import read_shards_manifest, verify_shards


def content_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def start(command: list[str] | None, *arguments: object) -> subprocess.Popen[str]:
    """`hpctrain shards ...`, alone or as `command` starts it."""
    return subprocess.Popen(
        [*(command or [sys.executable]), "-m", "hpctrain", "shards", *map(str, arguments)], text=True,
        env=mpi_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def build(many_files_corpus: Path, tokenizer_directory: Path) -> tuple[object, ...]:
    """What follows `hpctrain shards`, but for the directory."""
    inputs = ("--corpus", many_files_corpus, "--tokenizer", tokenizer_directory)
    return ("build", *inputs, "--shard-bytes", 60_000, "--out")


@pytest.fixture(scope="module")
def alone(build: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards as one process builds them."""
    out = tmp_path_factory.mktemp("alone") / "shards"
    code, _, err = finish(start(None, *build, out))
    assert code == 0, err
    return out


@pytest.mark.ranks
@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_gives_the_same_bytes(
    ranks: int, build: tuple[object, ...], alone: Path, tmp_path: Path
) -> None:
    code, out, err = finish(start(mpiexec(ranks), *build, tmp_path / "shards"))
    assert code == 0, err
    assert content_of(tmp_path / "shards") == content_of(alone)
    assert out.count("fortran-free") == 2, "one table, from one rank"
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    assert len(read_shards_manifest(alone).files) > 15


@pytest.mark.slow
@pytest.mark.ranks
def test_killed_at_random_and_restarted_gives_the_same_bytes(
    build: tuple[object, ...], alone: Path, tmp_path: Path
) -> None:
    """Twenty kills, at moments over the whole length of a build, then to the end."""
    out, chance = tmp_path / "shards", random.Random(3)
    began = time.monotonic()
    assert finish(start(None, *build, tmp_path / "timed"))[0] == 0
    length = time.monotonic() - began
    killed = resumed = 0
    while killed < 20:
        process = start(mpiexec(2) if killed % 4 == 0 else None, *build, out)
        try:
            process.wait(chance.uniform(0.4, 1) * length)
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children()
            os.kill(chance.choice(children).pid if children else process.pid, signal.SIGKILL)
            process.wait(60)
            killed += 1
        process.communicate()
        resumed += any(tmp_path.glob(".shards.work/*.npz.record"))
        if is_finished(out):
            assert content_of(out) == content_of(alone)
            out.rename(tmp_path / f"done-{killed}-{time.monotonic_ns()}")
    assert finish(start(None, *build, out))[0] == 0
    assert content_of(out) == content_of(alone)
    assert resumed > 5, "most kills came after something was finished"
    assert not list(tmp_path.glob(".shards.*"))


@pytest.mark.ranks
def test_what_was_finished_is_not_done_again_unless_it_is_damaged(
    build: tuple[object, ...], alone: Path, tmp_path: Path
) -> None:
    out, work = tmp_path / "shards", tmp_path / ".shards.work"
    process = start(None, *build, out)
    deadline = time.monotonic() + 60
    while len(list(work.glob("*.npz.record"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    first, second, *_ = sorted(work.glob("*.npz"))
    written = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:-1] + b"\0")
    os.truncate(second, second.stat().st_size // 2)
    process = start(None, *build, out)
    seen = written
    while process.poll() is None and first.exists():
        seen = first.stat().st_mtime_ns if first.exists() else seen
        time.sleep(0.005)
    assert process.wait(60) == 0, finish(process)
    process.communicate()
    assert seen == written
    assert content_of(out) == content_of(alone)


@pytest.mark.ranks
def test_an_error_of_one_rank_ends_all_with_one_message(
    many_files_corpus: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in many_files_corpus.iterdir():
        (corpus / path.name).write_bytes(path.read_bytes())
    with (corpus / "documents-00005.h5").open("r+b") as stream:
        stream.seek(-9, os.SEEK_END)
        stream.write(b"x")
    code, _, err = finish(
        start(
            mpiexec(2),
            "build",
            "--corpus",
            corpus,
            "--tokenizer",
            tokenizer_directory,
            "--out",
            tmp_path / "s",
        )
    )
    assert code == 3
    assert err.count("documents-00005.h5: checksum differs") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.ranks
def test_ranks_verify_together(alone: Path, tmp_path: Path) -> None:
    for path in alone.rglob("*"):
        if path.is_file():
            copy = tmp_path / "shards" / path.relative_to(alone)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    code, out, err = finish(start(mpiexec(2), "verify", tmp_path / "shards"))
    assert code == 0, err
    assert out.count("every file agrees") == 1
    for name in ("train/c-00000.h5", "train/cpp-00001.h5"):
        os.truncate(tmp_path / "shards" / name, 100)
    code, _, err = finish(start(mpiexec(2), "verify", tmp_path / "shards"))
    assert code == 3
    assert err.count("c-00000.h5: 100 bytes, the manifest says") == 1
    assert err.count("cpp-00001.h5: 100 bytes, the manifest says") == 1


@pytest.mark.ranks
def test_ranks_archive_and_restore_together(alone: Path, tmp_path: Path) -> None:
    code, out, err = finish(start(mpiexec(2), "archive", alone, "--out", tmp_path / "packed"))
    assert code == 0, err
    assert "% of the shards" in out
    code, out, err = finish(start(mpiexec(2), "restore", tmp_path / "packed", "--out", tmp_path / "again"))
    assert code == 0, err
    assert content_of(tmp_path / "again") == content_of(alone)
    assert verify_shards(tmp_path / "again") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.ranks
@pytest.mark.parametrize("kibibytes", [400, 1400])
def test_a_full_disk_is_named_and_the_build_goes_on_when_there_is_room(
    kibibytes: int, build: tuple[object, ...], alone: Path, small_disk: Path
) -> None:
    """Full while files are encoded, or while shards are written."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom((8192 - kibibytes) << 10))
    code, _, err = finish(start(mpiexec(2), *build, small_disk / "shards"))
    assert code == 3, err
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert not (small_disk / "shards").exists()
    ballast.unlink()
    code, _, err = finish(start(None, *build, small_disk / "shards"))
    assert code == 0, err
    assert content_of(small_disk / "shards") == content_of(alone)
