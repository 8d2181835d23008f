"""What is in an archive, and in the archives inside it, read in memory.

Nothing is unpacked to disk, no link is followed, and no member can leave its archive. Limits on member size,
total size, member count and depth stop decompression bombs. They hold while reading, not after it: headers
are not believed.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import IO, cast

import xxhash

from hpctrain.corpus.compression import DAMAGE, BoundedStream, damage_error, decompressed
from hpctrain.corpus.entry import Entry, printable, refuse
from hpctrain.errors import DataError

_TAR_COMPRESSIONS = {
    ".tar": "", ".tar.gz": ".gz", ".tgz": ".gz", ".taz": ".gz", ".tar.xz": ".xz", ".txz": ".xz",
    ".tar.bz2": ".bz2", ".tbz2": ".bz2", ".tbz": ".bz2", ".tz2": ".bz2",
    ".tar.lzma": ".lzma", ".tlz": ".lzma", ".tar.zst": ".zst", ".tzst": ".zst",
}  # fmt: skip
_ZIP_SUFFIXES = (".zip", ".whl")
ARCHIVE_SUFFIXES = (*_TAR_COMPRESSIONS, *_ZIP_SUFFIXES)
OTHER_SUFFIXES = (".tar.Z", ".tar.lz", ".tar.lzo", ".tar.br", ".7z", ".rar")
"""Archives too, but not read."""
_MAX_HEADER_BYTES = 1 << 20
_ARCHIVE_DAMAGE = (*DAMAGE, tarfile.TarError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may hold before it is taken for a bomb."""

    member_bytes: int
    """Larger members are not unpacked, archives inside the archive among them."""
    total_bytes: int
    """Bytes unpacked, those of archives inside it and of their members counted both."""
    members: int
    """Members, those of archives inside it included."""
    depth: int = 2
    """Archives inside archives are opened down to this depth; 0 leaves them closed."""


class Budget:
    """What is left of the limits of one archive file, shared with the archives inside it."""

    def __init__(self, name: str, limits: Limits) -> None:
        """`name` is the archive's in messages."""
        self.name, self.limits = name, limits
        # every member costs a header block and padding beyond its own bytes
        self._raw_bytes = limits.total_bytes + 2048 * limits.members + _MAX_HEADER_BYTES
        self._stated_bytes, self._members = limits.total_bytes, limits.members
        self._paths: set[int] = set()

    def spend(self, raw_bytes: int) -> None:
        """Count bytes that were unpacked. Raises DataError where they are too many."""
        self._raw_bytes -= raw_bytes
        if self._raw_bytes < 0:
            raise self._bomb()

    def member(self, stated_bytes: int) -> None:
        """Count a member by what its header says. Raises DataError where they are too many."""
        self._members -= 1
        self._stated_bytes -= stated_bytes
        if self._members < 0 or self._stated_bytes < 0:
            raise self._bomb()

    def is_first(self, path: str) -> bool:
        """True if no member had this path before."""
        key = xxhash.xxh3_64_intdigest(path.encode())
        known = key in self._paths
        self._paths.add(key)
        return not known

    def _bomb(self) -> DataError:
        return DataError(
            f"{self.name}: unpacks to more than {self.limits.members} files or {self.limits.total_bytes} "
            "bytes; if it is no decompression bomb, raise max_members or max_total_bytes of this source"
        )


def archive_suffix(name: str) -> str:
    """The suffix that says which archive a file is, or ""."""
    return max((s for s in ARCHIVE_SUFFIXES if name.lower().endswith(s)), key=len, default="")


def read_members(packed: IO[bytes], suffix: str, prefix: str, budget: Budget) -> Iterator[Entry]:
    """Every member that is no directory, in archive order; each to be read before the next is asked for.

    Paths begin with `prefix`. The members of an archive inside it come before it, below its path. One that is
    damaged is an entry with a problem; damage of the archive itself raises DataError, here or from `read`.
    """
    with named_damage(budget.name):
        for entry in _read_nested(packed, suffix, prefix, budget, depth=0):
            yield replace(entry, read=partial(_read_outer, budget.name, entry.read))


class _InnerDamageError(OSError):
    """What cannot be read inside an archive that is sound as a whole."""


@contextmanager
def named_damage(name: str) -> Iterator[None]:
    """Turns what libraries raise for damaged archives into one DataError that names the file."""
    try:
        yield
    except _InnerDamageError:
        raise
    except _ARCHIVE_DAMAGE as reason:
        raise damage_error(name, reason) from reason


def _words(reason: BaseException) -> str:
    return str(reason) or type(reason).__name__


def _read_outer(name: str, read: Callable[[], bytes]) -> bytes:
    with named_damage(name):
        return read()


def _read_inner(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except _ARCHIVE_DAMAGE as reason:
        raise _InnerDamageError(_words(reason)) from None


def _read_nested(packed: IO[bytes], suffix: str, prefix: str, budget: Budget, depth: int) -> Iterator[Entry]:
    members = (
        _zip_members(packed, prefix, budget)
        if suffix in _ZIP_SUFFIXES
        else _tar_members(packed, suffix, prefix, budget)
    )
    for entry in members:
        budget.member(entry.size)
        if not budget.is_first(entry.path):
            yield replace(entry, problem="repeated path", read=refuse)
        elif entry.problem or not (inner := archive_suffix(entry.path)) or not budget.limits.depth:
            yield entry
        elif depth == budget.limits.depth:
            yield replace(entry, problem="nested too deep", read=refuse)
        else:
            yield from _open_nested(entry, inner, budget, depth + 1)


def _open_nested(entry: Entry, suffix: str, budget: Budget, depth: int) -> Iterator[Entry]:
    """The members of an archive inside an archive, and then itself."""
    problem, detail = "archive", "opened"
    content = io.BytesIO(entry.read())
    try:
        for member in _read_nested(content, suffix, entry.path, budget, depth):
            yield replace(member, work_bytes=0, read=partial(_read_inner, member.read))
    except _ARCHIVE_DAMAGE as reason:
        problem, detail = "damaged", _words(reason)
    yield replace(entry, problem=problem, detail=detail, read=refuse)


def _member_path(prefix: str, name: str) -> tuple[str, str]:
    """The path of a member inside the source, and its problem: absolute names and `..` are refused."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    unsafe = not parts or parts[0] == "/" or ".." in parts or "\0" in name or ":" in parts[0]
    return printable("/".join((prefix, *parts))).replace("\0", "?"), "unsafe path" if unsafe else ""


# --- tar --------------------------------------------------------------------------------------------------


def _tar_members(packed: IO[bytes], suffix: str, prefix: str, budget: Budget) -> Iterator[Entry]:
    limits = budget.limits
    with decompressed(packed, _TAR_COMPRESSIONS[suffix]) as plain:
        stream = BoundedStream(plain, budget.spend, max(limits.member_bytes, _MAX_HEADER_BYTES))
        done = 0
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as tar:
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember every member
                position = _position(packed)
                if not member.isdir():
                    path, problem, detail = _tar_path(member, prefix, limits)
                    read = refuse if problem else partial(_read_member, tar, member)
                    size = member.size if member.isreg() else 0
                    yield Entry(path, size, read, problem, position - done, detail=detail)
                    done = position
        if stream.tell() % tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends inside a header")
        stream.drain()  # checksums stand at the end


def _position(packed: IO[bytes]) -> int:
    """How far the packed file has been read, past what buffers hold."""
    try:
        return os.lseek(packed.fileno(), 0, os.SEEK_CUR)
    except io.UnsupportedOperation:
        return 0  # in memory: it lies inside another archive, which counts


def _tar_path(member: tarfile.TarInfo, prefix: str, limits: Limits) -> tuple[str, str, str]:
    """The path of a member inside the source, its problem and the details of it."""
    path, problem = _member_path(prefix, member.name)
    if member.issym() or member.islnk():
        return path, "link", f"to {printable(member.linkname)}"
    if not member.isreg() or member.issparse():
        return path, "unreadable", "a special or sparse file"
    return path, problem or ("too large" if member.size > limits.member_bytes else ""), ""


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return content


# --- zip --------------------------------------------------------------------------------------------------

_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP_RECORD_BYTES = 256


def _zip_members(packed: IO[bytes], prefix: str, budget: Budget) -> Iterator[Entry]:
    if _directory_bytes(packed) > _ZIP_RECORD_BYTES * (budget.limits.members + 1):
        budget.member(1 << 62)  # zipfile would read the whole directory before the first member
    with zipfile.ZipFile(packed) as file:
        for info in file.infolist():
            if not info.is_dir():
                path, problem, detail = _zip_path(info, prefix, budget.limits)
                read = refuse if problem else partial(_read_zipped, file, info, budget)
                yield Entry(path, info.file_size, read, problem, info.compress_size, detail=detail)


def _directory_bytes(packed: IO[bytes]) -> int:
    """How large the directory at the end of a zip file says it is; 0 where there is none."""
    end = packed.seek(0, os.SEEK_END)
    start = packed.seek(max(0, end - (1 << 16) - _ZIP_END.size - _ZIP64_LOCATOR.size))
    tail = packed.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _ZIP_END.size > len(tail):
        return 0
    stated = int(_ZIP_END.unpack_from(tail, at)[5])
    if (locator := at - _ZIP64_LOCATOR.size) >= 0 and tail.startswith(b"PK\6\7", locator):
        packed.seek(min(int(_ZIP64_LOCATOR.unpack_from(tail, locator)[2]), start + locator))
        record = packed.read(_ZIP64_END.size)
        if len(record) == _ZIP64_END.size and record.startswith(b"PK\6\6"):
            return max(stated if stated != 0xFFFFFFFF else 0, int(_ZIP64_END.unpack(record)[8]))
    return stated


def _zip_path(info: zipfile.ZipInfo, prefix: str, limits: Limits) -> tuple[str, str, str]:
    """The path of a member inside the source, its problem and the details of it."""
    path, problem = _member_path(prefix, info.filename)
    if stat.S_ISLNK(info.external_attr >> 16):
        return path, "link", ""
    if info.flag_bits & 1:
        return path, "unreadable", "encrypted"
    return path, problem or ("too large" if info.file_size > limits.member_bytes else ""), ""


def _read_zipped(file: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> bytes:
    try:
        with file.open(info) as stream:
            content = stream.read(info.file_size + 1)
    except NotImplementedError as reason:  # a compression that Python lacks
        raise _InnerDamageError(str(reason)) from None
    budget.spend(len(content))
    if len(content) != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is not as long as it says")
    return content
