"""Archives inside archives, hostile archives, and directories of archives."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from hpctrain.corpus.archives import open_archives
from hpctrain.corpus.entry import UnitSource
from hpctrain.corpus.members import Limits
from hpctrain.errors import DataError

LIMITS = Limits(member_bytes=1 << 20, total_bytes=1 << 22, members=100, depth=2)


def _tar(members: dict[str, bytes], compression: str = "gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def _open(tmp_path: Path, content: bytes, name: str = "x.tar.gz", limits: Limits = LIMITS) -> UnitSource:
    (tmp_path / name).write_bytes(content)
    return open_archives(tmp_path / name, limits)


def _read(source: UnitSource) -> tuple[dict[str, bytes], dict[str, str]]:
    """Contents and problems by path."""
    contents, problems = {}, {}
    for entry in source.entries():
        if entry.problem:
            problems[entry.path] = entry.problem
        else:
            try:
                contents[entry.path] = entry.read()
                assert len(contents[entry.path]) == entry.size
            except OSError:
                problems[entry.path] = "unreadable"
    return contents, problems


# --- nesting ----------------------------------------------------------------------------------------------


def test_archives_inside_archives_are_read(tmp_path: Path) -> None:
    inner = _tar({"deep/c.f90": b"end\n" * 99}, "xz")
    middle = _zip({"lib/b.c": b"int b;\n" * 50, "more.tar.xz": inner})
    source = _open(tmp_path, _tar({"a.c": b"int a;\n", "sub/middle.zip": middle, "z.c": b"int z;\n"}))
    contents, problems = _read(source)
    assert contents == {
        "x/a.c": b"int a;\n",
        "x/sub/middle.zip/lib/b.c": b"int b;\n" * 50,
        "x/sub/middle.zip/more.tar.xz/deep/c.f90": b"end\n" * 99,
        "x/z.c": b"int z;\n",
    }
    assert problems == {"x/sub/middle.zip": "archive", "x/sub/middle.zip/more.tar.xz": "archive"}


def test_a_sample_can_be_chosen_without_reading(tmp_path: Path) -> None:
    members = {f"{number}.c": f"int x{number};\n".encode() * number for number in range(1, 9)}
    source = _open(
        tmp_path, _tar(members | {"inner.zip": _zip(members), "inner.tar.xz": _tar(members, "xz")})
    )
    sizes = {entry.path: entry.size for entry in source.entries() if not entry.problem}
    assert len(sizes) == 24
    chosen = set(sorted(sizes)[::3])
    read = {entry.path: entry.read() for entry in source.entries() if entry.path in chosen}
    assert read == {path: members[path.rpartition("/")[2]] for path in chosen}


def test_depth_is_limited(tmp_path: Path) -> None:
    content = _tar({"core.c": b"int core;\n"})
    for level in range(5):
        content = _tar({f"level{level}.tar.gz": content})
    contents, problems = _read(_open(tmp_path, content))
    assert contents == {}
    assert list(problems.values()) == ["nested too deep", "archive", "archive"]


def test_depth_zero_leaves_them_closed(tmp_path: Path) -> None:
    inner = _zip({"b.c": b"int b;\n"})
    limits = Limits(LIMITS.member_bytes, LIMITS.total_bytes, LIMITS.members, depth=0)
    assert _read(_open(tmp_path, _tar({"i.zip": inner}), limits=limits)) == ({"x/i.zip": inner}, {})


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar.gz", "broken.tar", "broken.tar.xz"])
@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_damaged_inner_archive_costs_only_itself(tmp_path: Path, name: str, damage: str) -> None:
    whole = _zip({"b.c": bytes(9000)}) if name.endswith("zip") else _tar({"b.c": bytes(9000)}, name[11:])
    inner = {"cut": whole[: len(whole) // 3], "junk": b"junk" * 500, "empty": b""}[damage]
    contents, problems = _read(_open(tmp_path, _tar({"a.c": b"int a;\n", name: inner, "z.c": b"int z;\n"})))
    assert {"x/a.c", "x/z.c"} <= set(contents)
    assert problems[f"x/{name}"] == "damaged"


def test_inner_members_that_cannot_be_read_are_os_errors(tmp_path: Path) -> None:
    inner = bytearray(_zip({"b.c": bytes(range(256)) * 20}))
    inner[60] ^= 0xFF
    contents, problems = _read(_open(tmp_path, _tar({"i.zip": bytes(inner), "z.c": b"int z;\n"})))
    assert contents == {"x/z.c": b"int z;\n"}
    assert problems == {"x/i.zip/b.c": "unreadable", "x/i.zip": "archive"}


def test_inner_members_cannot_leave_and_links_are_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("../../up.c", "/etc/passwd"):
            tar.addfile(tarfile.TarInfo(name))
        link = tarfile.TarInfo("link.c")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../etc/passwd"
        tar.addfile(link)
    contents, problems = _read(_open(tmp_path, _zip({"i.tar": buffer.getvalue()}), "x.zip"))
    assert contents == {}
    assert sorted(problems.values()) == ["archive", "link", "unsafe path", "unsafe path"]


# --- bombs ------------------------------------------------------------------------------------------------


def test_members_of_inner_archives_count(tmp_path: Path) -> None:
    inner = _tar({f"{number}.c": b"" for number in range(60)})
    with pytest.raises(DataError, match=r"x\.tar\.gz: unpacks to more than 100 files"):
        _read(_open(tmp_path, _tar({"a.tar.gz": inner, "b.tar.gz": inner})))


def test_bytes_of_inner_archives_count(tmp_path: Path) -> None:
    inner = _tar({f"{number}.c": bytes(900_000) for number in range(3)})
    with pytest.raises(DataError, match="bomb"):
        _read(_open(tmp_path, _zip({"a.tar.gz": inner, "b.tar.gz": inner}), "x.zip"))


def test_padding_behind_the_end_of_inner_archives_counts(tmp_path: Path) -> None:
    inner = gzip.compress(bytes(3 << 20))  # nothing but the zeros that end a tar file
    members = {f"{number}.tar.gz": inner for number in range(50)}
    with pytest.raises(DataError, match="bomb"):
        _read(_open(tmp_path, _tar(members)))


def test_zip_directory_larger_than_its_members_may_be(tmp_path: Path) -> None:
    record = struct.pack("<4s6H3L5H2L", b"PK\1\2", *[0] * 9, 1, *[0] * 6) + b"x"
    directory = record * 20_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory), 0, 0)
    with pytest.raises(DataError, match="bomb"):
        _read(_open(tmp_path, directory + end, "x.zip"))


def test_path_given_twice_is_read_once(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for content in (b"first\n", b"second\n"):
            info = tarfile.TarInfo("a.c")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert _read(_open(tmp_path, buffer.getvalue())) == (
        {"x/a.c": b"first\n"},
        {"x/a.c": "repeated path"},
    )


# --- damage -----------------------------------------------------------------------------------------------


def test_salvaged_archive_gives_what_comes_before_the_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = _tar({f"{number}.c": f"int x{number};\n".encode() * 300 for number in range(8)}, "")
    (tmp_path / "x.tar").write_bytes(content[:20_000])
    with pytest.raises(DataError, match=r"x\.tar: truncated or damaged"):
        _read(open_archives(tmp_path, LIMITS))
    salvaged = open_archives(tmp_path, LIMITS, skip_damaged=True)
    found = list(salvaged.entries())
    assert [entry.path for entry in found[:3]] == ["x/0.c", "x/1.c", "x/2.c"]
    assert (found[-1].path, found[-1].problem) == ("x", "damaged")
    assert "x.tar" in found[-1].detail
    assert "truncated or damaged" in capsys.readouterr().err


def test_archive_that_is_gone_is_not_called_damaged(tmp_path: Path) -> None:
    source = _open(tmp_path, _tar({"a.c": b"int a;\n"}))
    (tmp_path / "x.tar.gz").unlink()
    with pytest.raises(DataError, match=r"x\.tar\.gz: cannot be read: No such file"):
        _read(source)


def test_header_that_ends_early(tmp_path: Path) -> None:
    content = _tar({"a.c": b"int a;\n", "b.c": b"int b;\n"}, "")
    (tmp_path / "x.tar").write_bytes(content[: 1024 + 100])
    with pytest.raises(DataError, match="truncated or damaged"):
        _read(open_archives(tmp_path, LIMITS))


# --- directories of archives ------------------------------------------------------------------------------


def test_mirror_with_links_names_each_archive_once(tmp_path: Path) -> None:
    mirror, outside = tmp_path / "mirror", tmp_path / "outside.tar.gz"
    (mirror / "_source-cache/archive/ab").mkdir(parents=True)
    (mirror / "zlib").mkdir()
    (mirror / "_source-cache/archive/ab/abcd.tar.gz").write_bytes(_tar({"z.c": b"int z;\n"}))
    (mirror / "zlib/zlib-1.3.tar.gz").symlink_to("../_source-cache/archive/ab/abcd.tar.gz")
    outside.write_bytes(_tar({"secret.c": b"int secret;\n"}))
    (mirror / "zlib/out.tar.gz").symlink_to(outside)
    (mirror / "zlib/loop.tar.gz").symlink_to("loop.tar.gz")
    (mirror / "zlib/old.tar.Z").write_bytes(b"\x1f\x9d")
    source = open_archives(mirror, LIMITS)
    assert _read(source) == ({"zlib/zlib-1.3/z.c": b"int z;\n"}, {})
    assert {name: reason.split(";")[0].split(",")[0] for name, reason in source.missing.items()} == {
        "zlib/out.tar.gz": "a link that leaves the directory",
        "zlib/loop.tar.gz": "not a file",
        "zlib/old.tar.Z": "an archive in a format that is not read",
    }


def test_archives_of_one_name_keep_apart(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(_tar({"a.c": b"tar\n"}))
    (tmp_path / "x.zip").write_bytes(_zip({"a.c": b"zip\n"}))
    source = open_archives(tmp_path, LIMITS)
    assert _read(source)[0] == {"x.tar.gz/a.c": b"tar\n", "x.zip/a.c": b"zip\n"}
    assert len({unit.key for unit in source.units()}) == 2


def test_units_can_be_sent_and_their_fingerprint_follows_the_limits(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(_zip({"a.c": b"int a;\n"}))
    (unit,) = open_archives(tmp_path, LIMITS).units()
    sent = pickle.loads(pickle.dumps(unit))
    assert [entry.path for entry in sent.entries()] == ["x/a.c"]
    assert sent.fingerprint() == unit.fingerprint()
    others = [
        open_archives(tmp_path, Limits(9, 1 << 22, 100)),
        open_archives(tmp_path, LIMITS, ["*.h"]),
        open_archives(tmp_path, LIMITS, skip_damaged=True),
    ]
    assert len({unit.fingerprint(), *(source.units()[0].fingerprint() for source in others)}) == 4
