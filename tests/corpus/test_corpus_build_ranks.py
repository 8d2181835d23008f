"""Many ranks, interrupted builds, changed sources: the same bytes, and only the work that is needed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mpi import mpi_environment, mpiexec
from small_corpus import (
    c_file,
    content_of,
    directory,
    dropped,
    fortran_file,
    make_config,
    make_tree,
    write_config,
)

from hpctrain.corpus.build import build_corpus
from hpctrain.corpus.show import verify
from hpctrain.errors import DataError

ARCHIVES = 12


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of different sizes, with files in common."""
    root = tmp_path_factory.mktemp("mirror")
    for number in range(ARCHIVES):
        files = {f"src/m{i}/part{i}.c": c_file(10 * number + i) for i in range(20 + 10 * number)}
        files |= {f"f/kernel{i}.f": fortran_file(number % 3 * 50 + i) for i in range(40)}
        files |= {
            f"include/h{i}.h": b"#define ANSWER_%d %d /* of %d */\n" % (i, i, number) * 4 for i in range(5)
        }
        tree = make_tree(root / "tree" / str(number), files | {"LICENSE": b"MIT License\n"})
        with tarfile.open(root / f"code-{number:02}.tar.gz", "w:gz") as tar:
            tar.add(tree, f"code-{number}")
    return root


@pytest.fixture(scope="module")
def config(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of the mirror, of one of its trees, and of a bounded tree."""
    sources: list[dict[str, Any]] = [
        {"name": "mirror", "kind": "archives", "path": str(mirror)},
        directory(mirror / "tree" / "3", "again", licence="ISC"),
        directory(mirror / "tree", "bounded", max_bytes=50_000),
    ]
    split = {"validation_share": 0.2, "test_share": 0.1}
    path = tmp_path_factory.mktemp("config") / "corpus.yaml"
    return write_config(path, make_config(*sources, split=split))


@pytest.fixture(scope="module")
def alone(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus as one process builds it."""
    out = tmp_path_factory.mktemp("alone") / "corpus"
    assert start(config, out).wait() == 0
    return out


def start(config: Path, out: Path, command: list[str] | None = None, *more: str) -> subprocess.Popen[str]:
    """`hpctrain corpus build`, alone or as `command` starts it."""
    arguments = ["-m", "hpctrain", "corpus", "build", str(config), "--out", str(out), *more]
    return subprocess.Popen(
        [*(command or [sys.executable]), *arguments], env=mpi_environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr."""
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def units_examined(err: str) -> tuple[int, int]:
    """How many units a build examined, and of how many."""
    match = re.search(r"(\d+) of (\d+) units examined", err)
    assert match, err
    return int(match[1]), int(match[2])


@pytest.mark.ranks
@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_gives_the_same_bytes(
    ranks: int, config: Path, alone: Path, tmp_path: Path
) -> None:
    code, err = finish(start(config, tmp_path / "corpus", mpiexec(ranks)))
    assert code == 0, err
    examined, units = units_examined(err)
    assert examined == units > ARCHIVES
    assert content_of(tmp_path / "corpus") == content_of(alone)
    assert verify(tmp_path / "corpus") > 200
    assert dropped(alone, "again") == {"language": 1, "duplicate": dropped(alone, "again")["duplicate"]}


@pytest.mark.slow
@pytest.mark.ranks
def test_killed_at_random_and_restarted_gives_the_same_bytes(
    config: Path, alone: Path, tmp_path: Path
) -> None:
    """Twenty kills, at moments over the whole length of a build, then to the end."""
    out, chance = tmp_path / "corpus", random.Random(5)
    began = time.monotonic()
    assert start(config, tmp_path / "timed").wait() == 0
    length = time.monotonic() - began
    killed = 0
    for number in range(100):
        process = start(config, out, mpiexec(2) if number % 4 == 0 else None)
        try:
            process.wait(chance.uniform(0.3, 1) * length)
        except subprocess.TimeoutExpired:
            kill_one_process_of(process, chance)
            killed += 1
        else:
            assert process.returncode == 0, process.communicate()[1]
            assert content_of(out) == content_of(alone)
            remove(out)  # it was quicker than the kill: from the start
        process.communicate()
        if out.exists():
            assert content_of(out) == content_of(alone)  # killed after it was published
            remove(out)
        if killed == 20:
            break
    code, err = finish(start(config, out))
    assert (code, killed) == (0, 20), err
    assert content_of(out) == content_of(alone)
    assert not list(tmp_path.rglob("*.partial"))


def kill_one_process_of(process: subprocess.Popen[str], chance: random.Random) -> None:
    """Kill a process, or one rank of a launcher; a launcher ends the others by itself."""
    children = psutil.Process(process.pid).children()
    os.kill(chance.choice(children).pid if children else process.pid, signal.SIGKILL)
    process.wait(60)


def remove(out: Path) -> None:
    """Remove a corpus with what was examined for it."""
    for path in [out, out.parent / f".{out.name}.units"]:
        for file in path.rglob("*"):
            file.unlink()
        path.rmdir()


def test_only_what_changed_is_examined_again(tmp_path: Path) -> None:
    for number in range(5):
        make_tree(tmp_path / f"tree{number}", {f"a/{i}.c": c_file(100 * number + i) for i in range(5)})
    sources = [directory(tmp_path / f"tree{number}", f"s{number}") for number in range(5)]
    path, units = write_config(tmp_path / "c.yaml", make_config(*sources)), str(tmp_path / "units")
    code, err = finish(start(path, tmp_path / "one", None, "--units", units))
    assert (code, units_examined(err)) == (0, (5, 5))
    (tmp_path / "tree3" / "a" / "9.c").write_bytes(c_file(999))
    code, err = finish(start(path, tmp_path / "two", None, "--units", units))
    assert (code, units_examined(err)) == (0, (1, 5))
    assert verify(tmp_path / "two") == 26
    code, err = finish(start(path, tmp_path / "anew", None))
    assert (code, units_examined(err)) == (0, (5, 5))
    assert content_of(tmp_path / "two") == content_of(tmp_path / "anew")


def test_units_that_are_not_used_any_more_are_forgotten(tmp_path: Path) -> None:
    root, out = make_tree(tmp_path / "tree", {"a/x.c": c_file(1)}), tmp_path / "corpus"
    build_corpus(make_config(directory(root)), out)
    first = set((tmp_path / ".corpus.units").glob("*.parquet"))
    (root / "a" / "x.c").write_bytes(c_file(2222))
    remove_only(out)
    build_corpus(make_config(directory(root)), out)
    second = set((tmp_path / ".corpus.units").glob("*.parquet"))
    assert len(first) == len(second) == 1
    assert first != second


def remove_only(out: Path) -> None:
    """Remove a corpus, and leave what was examined."""
    for file in out.iterdir():
        file.unlink()
    out.rmdir()


def test_a_damaged_unit_is_named(tmp_path: Path) -> None:
    root, out = make_tree(tmp_path / "tree", {"a/x.c": c_file(1)}), tmp_path / "corpus"
    build_corpus(make_config(directory(root)), out)
    remove_only(out)
    (unit,) = (tmp_path / ".corpus.units").glob("*.parquet")
    unit.write_bytes(unit.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{unit.name}: not a readable result.*remove it"):
        build_corpus(make_config(directory(root)), out)
    assert not out.exists()


@pytest.mark.ranks
def test_an_error_of_one_rank_ends_all_with_one_message(mirror: Path, tmp_path: Path) -> None:
    whole = (mirror / "code-05.tar.gz").read_bytes()
    for number in range(4):
        (tmp_path / f"whole-{number}.tar.gz").write_bytes(whole)
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    config = make_config({"name": "x", "kind": "archives", "path": str(tmp_path)})
    path = write_config(tmp_path / "c.yaml", config)
    code, err = finish(start(path, tmp_path / "corpus", mpiexec(2)))
    assert code == 3
    assert err.count("half.tar.gz: truncated or damaged") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "corpus").exists()
    assert all(name.suffix == ".parquet" for name in (tmp_path / ".corpus.units").iterdir())


@pytest.mark.ranks
def test_a_wrong_config_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: []\nfilter: {}\n")
    code, err = finish(start(tmp_path / "c.yaml", tmp_path / "corpus", mpiexec(2)))
    assert code == 2
    assert err.count("did you mean filters?") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.ranks
@pytest.mark.parametrize("kibibytes", [60, 220, 340])
def test_a_full_disk_is_named_and_nothing_half_written_stays(
    kibibytes: int, config: Path, alone: Path, small_disk: Path, tmp_path: Path
) -> None:
    """Full in the middle of the units, of what follows, or of the documents."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(os.urandom((1024 - kibibytes) << 10))
    code, err = finish(start(config, small_disk / "corpus", mpiexec(2)))
    assert code == 3, err
    assert "No space left on device" in err
    assert "Traceback" not in err
    assert not (small_disk / "corpus").exists()
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    code, err = finish(start(config, small_disk / "corpus"))
    assert code == 0, err
    assert content_of(small_disk / "corpus") == content_of(alone)


_MEASURED = """
import resource, sys
from pathlib import Path
from hpctrain.config import load_config
from hpctrain.corpus import build
build.FILE_CONTENT_BYTES = 1 << 20  # documents files are written from memory
config = load_config(Path(sys.argv[1]), [], build.CorpusConfig)
manifest = build.build_corpus(config, Path(sys.argv[2]))
size = sum(sum(sizes.values()) for sizes in manifest.counts["bytes"].values())
print(size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Three times the corpus: buffers are full with the smaller one already."""
    chance = random.Random(7)
    archives = []
    for number in range(36):
        files = {f"d{i % 9}/f{i}.c": _long_file(chance) for i in range(40)}
        tree = make_tree(tmp_path / "trees" / str(number), files)
        archives.append(tmp_path / f"{number}.tar")
        with tarfile.open(archives[-1], "w") as tar:
            tar.add(tree, str(number))
    found = {}
    for name, used in (("small", archives[:12]), ("large", archives)):
        sources = [{"name": f"s{i}", "kind": "archives", "path": str(path)} for i, path in enumerate(used)]
        path = write_config(tmp_path / f"{name}.yaml", make_config(*sources))
        command = [sys.executable, "-c", _MEASURED, str(path), str(tmp_path / name)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[name] = tuple(map(int, printed.split()))
    more_corpus, more_memory = (
        large - small for small, large in zip(found["small"], found["large"], strict=True)
    )
    assert more_corpus > 20 << 20
    assert more_memory < more_corpus / 2, found


def _long_file(chance: random.Random) -> bytes:
    """Thirty kilobytes of C like no other file."""
    lines = [b"/* SPDX-License-Identifier: MIT */"]
    for _ in range(480):
        names = [f"v{chance.randrange(900)}" for _ in range(4)]
        lines.append("double {}_of({}) {{ return {} * {} + 1.0; }}".format(*names).encode())
    return b"\n".join(lines) + b"\n"
