"""An environment brought to a node: packed once, checked, run where it was unpacked, removed at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_venv import add_script, make_small_venv

ROOT = Path(__file__).parents[2]
NODE = ROOT / "launch" / "node.sh"
BROADCAST = '. launch/broadcast.sh && broadcast_venv "$1" && echo "$VENV"'
WHERE = """
import hpctrain, json, os, sys
print(json.dumps([sys.prefix, sys.base_prefix, os.__file__, hpctrain.__file__]))
"""


@dataclass
class Site:
    """What a job has: an environment with an editable hpctrain, a cache beside it, and a node's directory."""

    directory: Path

    @property
    def venv(self) -> Path:
        return self.directory / "shared" / "venv"

    @property
    def cache(self) -> Path:
        return self.directory / "shared" / "venv.packed"

    @property
    def node(self) -> Path:
        return self.directory / "node"

    def shell(self, script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a job of no scheduler, broadcasting to `node`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "PBS_", "FLUX_"))}
        return subprocess.run(
            ["bash", "-c", script, "job", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
            env={**kept, "BROADCAST": str(self.node), "BROADCAST_COMPRESSION": "none", **variables},
        )  # fmt: skip

    def pack(self, **variables: str) -> Path:
        """The archive of the environment."""
        command = '"$1/bin/python" -I launch/pack_environment.py "$1"'
        packed = self.shell(command, self.venv, **variables)
        assert packed.returncode == 0, packed.stderr
        return Path(packed.stdout.strip())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a small environment in `shared`."""
    directory = tmp_path_factory.mktemp("site")
    venv = make_small_venv(directory / "shared")
    add_script(venv, "where", WHERE)
    add_script(venv, "where-long", WHERE, long_path=True)
    return directory


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Iterator[Site]:
    """The installed environment with an empty node; archives that a test made are removed."""
    site = Site(installed)
    site.node.mkdir()
    yield site
    for path in (site.node, site.cache):
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_broadcast_environment_needs_nothing_of_the_shared_one(site: Site, compression: str) -> None:
    if compression == "zstd" and shutil.which("zstd") is None:
        pytest.skip("no zstd here")
    done = site.shell(BROADCAST, site.venv, BROADCAST_COMPRESSION=compression)
    assert done.returncode == 0, done.stderr
    venv = Path(done.stdout.split()[-1])
    local = venv.parent
    assert local.parent == site.node
    assert local.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in local.iterdir()) in (
        ["env"],
        ["env", "python"],
    )  # the archive is gone

    shared, away = site.directory / "shared", site.directory / "away"
    shared.rename(away)
    try:
        library = {"LD_LIBRARY_PATH": str(local / "python" / "libpython")}  # as launch/rank.sh sets it
        for name in ("where", "where-long"):
            found = subprocess.run([venv / "bin" / name], capture_output=True, text=True, env=library)
            assert found.returncode == 0, found.stderr
            prefix, base, stdlib, package = map(Path, json.loads(found.stdout))
            assert prefix == venv
            assert package.is_relative_to(venv)
            if sys.base_prefix != "/usr":
                assert base == local / "python"
                assert stdlib.is_relative_to(base)
    finally:
        away.rename(shared)
    assert not list(venv.rglob("__editable__*"))


def test_an_archive_is_made_once_and_again_when_the_environment_changed(site: Site) -> None:
    first = site.pack()
    assert sorted(path.name for path in first.iterdir()) == ["environment.tar", "sha256", "unpacked_bytes"]
    made = (first / "environment.tar").stat().st_mtime_ns
    (cached,) = (site.directory / "shared" / "checkout" / "hpctrain").glob("__init__.py")
    subprocess.run([sys.executable, "-m", "py_compile", cached], check=True)
    assert site.pack() == first, "compiled modules do not count"
    assert (first / "environment.tar").stat().st_mtime_ns == made
    os.utime(cached)
    second = site.pack()
    assert second != first
    os.utime(cached)
    third = site.pack()
    assert set(site.cache.iterdir()) == {second, third}, "two archives are kept"


def test_two_jobs_may_pack_at_once(site: Site) -> None:
    pack = '"$1/bin/python" -I launch/pack_environment.py "$1"'
    both = f"{pack} & {pack}; wait $!"
    done = site.shell(both, site.venv)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first == second
    assert [str(path) for path in site.cache.iterdir()] == [first], "nothing is left beside the archive"
    check = 'echo "$(<"$1/sha256")  $1/environment.tar" | sha256sum --check --status'
    assert site.shell(check, first).returncode == 0


def test_an_environment_that_is_none_is_refused(site: Site) -> None:
    done = site.shell('"$1" -I launch/pack_environment.py "$2"', sys.executable, site.directory)
    assert done.returncode == 1
    assert "is no virtual environment: make one with launch/install.sh" in done.stderr


def test_a_damaged_archive_is_not_unpacked(site: Site) -> None:
    archive = site.pack() / "environment.tar"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    done = site.shell(BROADCAST, site.venv)
    assert done.returncode == 2
    assert "is damaged: its checksum is wrong" in done.stderr
    assert f"{site.venv} could not be broadcast" in done.stderr
    assert list(site.node.iterdir()) == []


def test_a_directory_that_is_none_is_named(site: Site) -> None:
    done = site.shell(BROADCAST, site.venv, BROADCAST="/nonexistent")
    assert done.returncode == 2
    assert "/nonexistent is not a directory that can be written to: name one of the node's own" in done.stderr


def node(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a node's part."""
    return subprocess.run([NODE, *map(str, arguments)], capture_output=True, text=True)


def test_a_node_without_room_says_so(tmp_path: Path) -> None:
    done = node("make", tmp_path / "hpctrain-0-7", 1 << 60)
    assert done.returncode == 1
    assert "MiB free, 1099511627776 are needed" in done.stderr
    assert not (tmp_path / "hpctrain-0-7").exists()


def test_a_start_that_was_cut_off_is_cleared_away(tmp_path: Path) -> None:
    directory = tmp_path / "hpctrain-0-7"
    directory.mkdir()
    (directory / "half").touch()
    assert node("make", directory, 1).returncode == 0
    assert list(directory.iterdir()) == []


def test_what_a_stranger_put_there_is_neither_used_nor_removed(tmp_path: Path) -> None:
    elsewhere, directory = tmp_path / "elsewhere", tmp_path / "hpctrain-0-7"
    elsewhere.mkdir()
    directory.symlink_to(elsewhere)
    done = node("make", directory, 1)
    assert done.returncode == 1
    assert "is in the way" in done.stderr
    assert elsewhere.is_dir()
    if os.getuid() == 0:
        directory.unlink()
        directory.mkdir()
        os.chown(directory, 65534, 65534)
        assert node("make", directory, 1).returncode == 1
        assert directory.stat().st_uid == 65534


def test_what_ended_jobs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    long_ago = time.time() - 3600
    names = [
        "hpctrain-0-5",
        "hpctrain-0-6",
        "hpctrain-0-7",
        "hpctrain-0-8",
        "hpctrain-0-data",
        "hpctrain-00-5",
    ]
    for name in names:
        (tmp_path / name).mkdir()
        if name != "hpctrain-0-8":
            os.utime(tmp_path / name, (long_ago, long_ago))
    assert node("remove", tmp_path / "hpctrain-0-7", 6, 7).returncode == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"hpctrain-0-6", "hpctrain-0-8", "hpctrain-0-data", "hpctrain-00-5"}, (
        "5 had ended, 8 is young"
    )
    assert node("remove", tmp_path / "hpctrain-0-6").returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == left - {"hpctrain-0-6"}, (
        "which jobs live is not known"
    )


def test_an_image_is_broadcast_as_one_file(site: Site) -> None:
    image = site.directory / "shared" / "image.sif"
    image.write_bytes(os.urandom(100_000))
    script = '. launch/broadcast.sh && broadcast_venv launch/containers && echo "$HPCTRAIN_IMAGE"'
    done = site.shell(script, HPCTRAIN_IMAGE=str(image))
    assert done.returncode == 0, done.stderr
    copy = Path(done.stdout.split()[-1])
    assert copy.parent.parent == site.node
    assert copy.read_bytes() == image.read_bytes()
    done = site.shell(script, HPCTRAIN_IMAGE=str(site.directory))
    assert done.returncode == 2
    assert "only an image that is one file is broadcast" in done.stderr


def test_the_directory_is_removed_at_the_end(site: Site) -> None:
    image = site.directory / "shared" / "image.sif"
    image.write_bytes(b"image")
    script = '. launch/broadcast.sh && broadcast_venv "" && [ -f "$HPCTRAIN_IMAGE" ] && clean_nodes'
    done = site.shell(script, HPCTRAIN_IMAGE=str(image))
    assert done.returncode == 0, done.stderr
    assert list(site.node.iterdir()) == []
