"""Sources: trees, packages, archives and Debian packages, with the hostile ones among them."""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import metadata
from pathlib import Path

import pytest

from hpctrain.corpus.archives import open_archives
from hpctrain.corpus.debian import find_packaging, find_upstream_archive, open_debian, source_entries
from hpctrain.corpus.entry import UnitSource
from hpctrain.corpus.members import Limits
from hpctrain.corpus.sources import expand
from hpctrain.corpus.trees import open_directory, open_package
from hpctrain.errors import DataError

LIMITS = Limits(member_bytes=1 << 20, total_bytes=1 << 22, members=100)
FILES = {"p/a.c": b"int a;\n" * 100, "p/b/c.f90": b"end\n" * 500, "p/LICENSE": b"MIT\n"}


def _contents(source: UnitSource) -> dict[str, bytes]:
    return {entry.path: entry.read() for entry in source.entries() if not entry.problem}


def _problems(source: UnitSource) -> dict[str, str]:
    return {entry.path: entry.problem for entry in source.entries() if entry.problem}


# --- directories ------------------------------------------------------------------------------------------


def _tree(root: Path) -> Path:
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_directory_is_read_in_sorted_order(tmp_path: Path) -> None:
    source = open_directory(_tree(tmp_path), [], [])
    assert _contents(source) == FILES
    assert list(_contents(source)) == sorted(FILES)
    assert source.work_bytes == sum(map(len, FILES.values()))


def test_include_and_exclude(tmp_path: Path) -> None:
    root = _tree(tmp_path)
    assert list(_contents(open_directory(root, ["p/*"], ["*.f90", "*LICENSE"]))) == ["p/a.c"]
    assert list(_contents(open_directory(root, ["*.c"], []))) == ["p/LICENSE", "p/a.c"]


def test_links_special_files_and_version_control(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.c").write_text("int secret;\n")
    root = _tree(tmp_path / "root")
    (root / "out.c").symlink_to(outside / "secret.c")
    (root / "dangling.c").symlink_to("nowhere.c")
    (root / "loop").symlink_to(root)
    (root / "outdir").symlink_to(outside)
    os.mkfifo(root / "pipe.c")
    (root / ".git").mkdir()
    (root / ".git" / "object.c").write_text("int object;\n")
    source = open_directory(root, [], [])
    assert _contents(source) == FILES
    links = dict.fromkeys(["out.c", "dangling.c", "loop", "outdir"], "link")
    assert _problems(source) == {**links, "pipe.c": "unreadable"}


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root to give up rights")
def test_files_without_permission_are_unreadable(tmp_path: Path) -> None:
    root = _tree(tmp_path / "root")
    (root / "p/a.c").chmod(0)
    (root / "p/b").chmod(0)
    program = (
        "import sys; from pathlib import Path; from hpctrain.corpus.trees import open_directory\n"
        "for entry in open_directory(Path(sys.argv[1]), [], []).entries():\n"
        "    try: print(entry.path, entry.problem or len(entry.read()))\n"
        "    except OSError as reason: print(entry.path, type(reason).__name__)\n"
    )
    rights = "-dac_override,-dac_read_search"
    done = subprocess.run(
        ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", sys.executable, "-c", program, root],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["p/LICENSE 4", "p/a.c PermissionError", "p/b unreadable"], done.stderr


def test_file_that_grows_or_turns_into_a_link_is_not_read(tmp_path: Path) -> None:
    root = _tree(tmp_path / "root")
    entries = {entry.path: entry for entry in open_directory(root, [], []).entries()}
    (root / "p/a.c").write_bytes(b"x" * 100_000)
    (root / "p/b/c.f90").unlink()
    (root / "p/b/c.f90").symlink_to("/etc/passwd")
    for path in ("p/a.c", "p/b/c.f90"):
        with pytest.raises(OSError):
            entries[path].read()


def test_slices_of_a_tree_change_where_files_change(tmp_path: Path) -> None:
    for number in range(6000):
        path = tmp_path / f"d{number % 60:02d}" / f"f{number}.c"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"int x{number};\n")
    before = open_directory(tmp_path, [], []).units()
    assert len(before) > 2
    assert len({unit.key for unit in before}) == len(before)
    (tmp_path / "d30" / "new.c").write_text("int new;\n")
    after = open_directory(tmp_path, [], []).units()
    changed = {unit.fingerprint() for unit in after} - {unit.fingerprint() for unit in before}
    assert len(changed) == 1
    assert len([entry for unit in after for entry in unit.entries()]) == 6001


def test_root_may_be_a_link(tmp_path: Path) -> None:
    _tree(tmp_path / "toolkit-13")
    (tmp_path / "toolkit").symlink_to("toolkit-13")
    assert _contents(open_directory(tmp_path / "toolkit", [], [])) == FILES


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.c")).write_bytes(b"int x;\n")
    assert _contents(open_directory(tmp_path, [], [])) == {"caf\\xe9.c": b"int x;\n"}


def test_fingerprint_of_a_directory_follows_its_files(tmp_path: Path) -> None:
    first = open_directory(_tree(tmp_path), [], []).fingerprint()
    assert open_directory(tmp_path, [], []).fingerprint() == first
    os.utime(tmp_path / "p/a.c", ns=(1, 1))
    touched = open_directory(tmp_path, [], []).fingerprint()
    (tmp_path / "p/new.c").touch()
    assert len({first, touched, open_directory(tmp_path, [], []).fingerprint()}) == 3


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        open_directory(tmp_path / "nowhere", [], [])


def test_expand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOOLKIT", str(tmp_path))
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    assert expand("${TOOLKIT}/include") == tmp_path / "include"
    assert expand("~/x") == Path.home() / "x"
    with pytest.raises(DataError, match="NO_SUCH_VARIABLE"):
        expand("${NO_SUCH_VARIABLE}/include")


# --- packages ---------------------------------------------------------------------------------------------


def test_package_by_distribution_name() -> None:
    source = open_package("numpy", ["numpy/f2py/tests/src/*.f90"], [])
    contents = _contents(source)
    sources = [path for path in contents if path.endswith(".f90")]
    assert sources
    assert all(path.startswith("numpy/f2py/tests/src/") for path in sources)
    # numpy states an SPDX expression from 2.3 on, which needs Python 3.11
    assert ("BSD-3-Clause" in source.licence) == ("License-Expression" in metadata("numpy"))


def test_package_that_is_no_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "corpus_probe"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it must not be imported')\n")
    (package / "k.cu").write_text("__global__ void k();\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(_contents(open_package("corpus_probe", ["*.cu"], []))) == ["corpus_probe/k.cu"]


@pytest.mark.parametrize("name", ["no-such-package", "no_such_package", "os.path"])
def test_missing_package(name: str) -> None:
    with pytest.raises(DataError, match=name):
        open_package(name, [], [])


# --- archives ---------------------------------------------------------------------------------------------


def _tar(path: Path, mode: str, members: dict[str, bytes] = FILES) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, members: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def _zst(path: Path) -> Path:
    plain = _tar(path.with_suffix(""), "w")
    subprocess.run(["zstd", "-q", "--rm", str(plain), "-o", str(path)], check=True)
    return path


ARCHIVES: dict[str, Callable[[Path], Path]] = {
    "x-1.0.tar": lambda path: _tar(path, "w"),
    "x-1.0.tar.gz": lambda path: _tar(path, "w:gz"),
    "x-1.0.tgz": lambda path: _tar(path, "w:gz"),
    "x-1.0.tar.xz": lambda path: _tar(path, "w:xz"),
    "x-1.0.tar.bz2": lambda path: _tar(path, "w:bz2"),
    "x-1.0.zip": _zip,
}
if shutil.which("zstd"):
    ARCHIVES["x-1.0.tar.zst"] = _zst


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_round_trip(tmp_path: Path, name: str) -> None:
    archive = ARCHIVES[name](tmp_path / name)
    source = open_archives(tmp_path, LIMITS)
    assert _contents(source) == {f"x-1.0/{path}": content for path, content in FILES.items()}
    assert source.work_bytes == archive.stat().st_size


@pytest.mark.parametrize("name", ARCHIVES)
def test_unread_members_are_skipped(tmp_path: Path, name: str) -> None:
    archive = ARCHIVES[name](tmp_path / name)
    read = {e.path: e.read() for e in open_archives(archive, LIMITS).entries() if e.path.endswith(".f90")}
    assert read == {"x-1.0/p/b/c.f90": FILES["p/b/c.f90"]}


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8])
def test_truncated_archive_is_named(tmp_path: Path, name: str, share: float) -> None:
    members = {f"f{i}.c": os.urandom(3000) for i in range(5)}
    archive = _zip(tmp_path / name, members) if name.endswith("zip") else _pack(tmp_path / name, members)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=f"{name}: truncated or damaged"):
        _contents(open_archives(archive, LIMITS))


def _pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix != ".zst":
        mode = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2", ".tar": "w"}[path.suffix]
        return _tar(path, mode, members)
    plain = _tar(path.with_suffix(""), "w", members)
    subprocess.run(["zstd", "-q", "--rm", str(plain), "-o", str(path)], check=True)
    return path


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.xz", ".tar.bz2", ".zip"])
def test_flipped_bits_are_found(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"x{suffix}"
    members = {f"f{i}.c": os.urandom(3000) for i in range(5)}
    content = bytearray((_zip if suffix == ".zip" else _pack)(archive, members).read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="truncated or damaged"):
        _contents(open_archives(archive, LIMITS))


def test_members_that_leave_the_archive_and_links(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("../up.c", "/abs.c", "a/../../up.c", "..\\other.c", "C:/drive.c", "good.c"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        for name, kind in (("soft.c", tarfile.SYMTYPE), ("hard.c", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("device.c")
        info.type = tarfile.CHRTYPE
        tar.addfile(info)
    source = open_archives(archive, LIMITS)
    assert _contents(source) == {"x/good.c": b"abc"}
    problems = sorted(_problems(source).values())
    assert problems == ["link"] * 2 + ["unreadable"] + ["unsafe path"] * 5


def test_zip_members_that_leave_and_links(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"../up.c": b"abc", "good.c": b"abc"})
    link = zipfile.ZipInfo("link.c")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    source = open_archives(archive, LIMITS)
    assert _contents(source) == {"x/good.c": b"abc"}
    assert sorted(_problems(source).values()) == ["link", "unsafe path"]


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize(
    "limits",
    [Limits(1 << 20, total_bytes=2000, members=100), Limits(1 << 20, 1 << 22, members=2)],
    ids=["bytes", "members"],
)
def test_bombs_are_refused(tmp_path: Path, name: str, limits: Limits) -> None:
    archive = ARCHIVES[name](tmp_path / name)
    with pytest.raises(DataError, match="bomb"):
        _contents(open_archives(archive, limits))


def test_large_members_are_not_unpacked(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "x.tar.gz", "w:gz", {"big.c": bytes(3 << 20), "small.c": b"int x;\n"})
    source = open_archives(archive, LIMITS)
    assert _contents(source) == {"x/small.c": b"int x;\n"}
    assert _problems(source) == {"x/big.c": "too large"}


def test_bomb_in_a_header_is_refused(tmp_path: Path) -> None:
    """A PAX header of any size is read whole by tarfile, before a member is seen."""
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    archive = tmp_path / "x.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.PAX_FORMAT))
        file.write(bytes(8 << 20))
    with pytest.raises(DataError, match="bomb"):
        _contents(open_archives(archive, LIMITS))


def test_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "x.zip", {"a.c": bytes(100_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(DataError, match="damaged"):
        _contents(open_archives(archive, LIMITS))


def test_directories_without_archives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no archive"):
        open_archives(tmp_path, LIMITS)
    with pytest.raises(DataError, match="no such"):
        open_archives(tmp_path / "nowhere", LIMITS)
    (tmp_path / "a.rar").touch()
    with pytest.raises(DataError, match="not an archive"):
        open_archives(tmp_path / "a.rar", LIMITS)


# --- Debian -----------------------------------------------------------------------------------------------


def test_source_entries_from_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://commented.invalid x main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://one.invalid/debian stable main contrib # why\n"
        "deb-src http://one.invalid/debian stable main contrib\n"
    )
    (tmp_path / "sources.list.d" / "two.sources").write_text(
        "Types: deb\nURIs: http://two.invalid\n# comment\nSuites: a b\nComponents: main\n"
        "Architectures: amd64\nSigned-By:\n -----BEGIN-----\n .\n key\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.invalid\nSuites: a\n"
    )
    (tmp_path / "sources.list.d" / "notes.txt").write_text("deb http://ignored.invalid x main\n")
    entries = source_entries(tmp_path)
    assert entries.count("Types: deb-src") == 3
    assert "Types: deb\n" not in entries
    assert "http://one.invalid/debian" in entries
    assert "signed-by: \n -----BEGIN-----" in entries
    assert "Architectures" not in entries
    for absent in ("off.invalid", "commented.invalid", "ignored.invalid"):
        assert absent not in entries


def test_upstream_archive_is_chosen_by_version(tmp_path: Path) -> None:
    for name in (
        "x_1.9.orig.tar.gz", "x_1.10.orig.tar.xz", "x_1.10-1.debian.tar.xz", "x_1.10.orig-data.tar.gz",
        "x_2.dsc", "xy_3.orig.tar.gz", "native_1.tar.xz",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert find_upstream_archive(tmp_path, "x") == tmp_path / "x_1.10.orig.tar.xz"
    assert find_upstream_archive(tmp_path, "native") == tmp_path / "native_1.tar.xz"
    assert find_upstream_archive(tmp_path, "other") is None


def test_packaging_is_that_of_the_upstream_version(tmp_path: Path) -> None:
    for name in (
        "x_1.0-1.debian.tar.xz",
        "x_1.0-10.debian.tar.xz",
        "x_1.0-9.debian.tar.xz",
        "x_2.0-1.debian.tar.xz",
    ):
        (tmp_path / name).touch()
    found = find_packaging(tmp_path / "x_1.0.orig.tar.gz", "x")
    assert found == tmp_path / "x_1.0-10.debian.tar.xz"
    assert find_packaging(tmp_path / "native_1.0.tar.gz", "native") is None


def test_cache_without_packaging_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _tar(tmp_path / "x_1.0.orig.tar.gz", "w:gz")
    source = open_debian(["x"], tmp_path, LIMITS, skip_missing=False)
    assert {entry.licence for entry in source.entries()} == {""}
    assert "no debian/copyright" in capsys.readouterr().err


def _apt_config(root: Path, uri: str) -> Path:
    (root / "etc").mkdir()
    (root / "etc" / "sources.list").write_text(f"deb [trusted=yes] {uri} ./\n")
    return root / "etc"


COPYRIGHT = (
    b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
    b"Files: *\nLicense: BSD-3-clause\n\nFiles: b/*\nLicense: GPL-2+\n"
)


def _local_repository(root: Path) -> str:
    """A flat package archive on disk with one source package."""
    root.mkdir()
    archive = _tar(root / "tiny_1.0.orig.tar.gz", "w:gz")
    packaging = _tar(root / "tiny_1.0-1.debian.tar.xz", "w:xz", {"debian/copyright": COPYRIGHT})
    (root / "tiny_1.0-1.dsc").write_bytes(b"Format: 3.0 (quilt)\nSource: tiny\nVersion: 1.0-1\n")
    files = [(path.name, path.read_bytes()) for path in (archive, packaging, root / "tiny_1.0-1.dsc")]
    sums = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in files)
    (root / "Sources").write_text(
        "Package: tiny\nBinary: tiny\nVersion: 1.0-1\nFormat: 3.0 (quilt)\nDirectory: .\n"
        f"Checksums-Sha256:\n{sums}"
    )
    return f"file:{root}"


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs APT")
def test_download_with_derived_entries(tmp_path: Path) -> None:
    apt_config = _apt_config(tmp_path, _local_repository(tmp_path / "repository"))
    cache = tmp_path / "cache"
    cache.mkdir()
    source = open_debian(["tiny", "absent"], cache, LIMITS, skip_missing=True, apt_config=apt_config)
    assert _contents(source) == {f"tiny_1.0.orig/{path}": content for path, content in FILES.items()}
    assert list(source.missing) == ["absent"]
    assert {entry.path: entry.licence for entry in source.entries()} == {
        "tiny_1.0.orig/p/a.c": "BSD-3-Clause",
        "tiny_1.0.orig/p/b/c.f90": "GPL-2.0-or-later",
        "tiny_1.0.orig/p/LICENSE": "BSD-3-Clause",
    }
    shutil.rmtree(tmp_path / "repository")  # what is in the cache is not downloaded again
    again = open_debian(["tiny"], cache, LIMITS, skip_missing=False, apt_config=apt_config)
    assert again.fingerprint() == source.fingerprint()
    with pytest.raises(DataError, match="absent"):
        open_debian(["tiny", "absent"], cache, LIMITS, skip_missing=False, apt_config=apt_config)


def test_machine_without_package_archives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="x: "):
        open_debian(["x"], tmp_path, LIMITS, skip_missing=False, apt_config=tmp_path)
