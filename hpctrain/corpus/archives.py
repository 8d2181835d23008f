"""Source archives, read in memory: nothing is unpacked to disk, and no member can leave its archive.

Limits on member size, total size and member count stop decompression bombs. They hold while reading, not
after it: headers are not believed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from hpctrain.config import fingerprint
from hpctrain.corpus.entry import Entry, printable, refuse
from hpctrain.corpus.trees import selected, walk
from hpctrain.errors import DataError

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst")
_SUFFIXES = (*_TAR_SUFFIXES, ".zip")
_HEADER_BYTES = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may hold before it is taken for a bomb."""

    member_bytes: int
    total_bytes: int
    members: int


class ArchiveSource:
    """Archives read one after the other; the path of a member begins with its archive's name."""

    licence = ""

    def __init__(
        self,
        archives: Sequence[Path],
        limits: Limits,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self.missing = missing or {}
        self._archives = sorted(archives)
        self._limits = limits
        self._include, self._exclude = include, exclude

    @property
    def work_bytes(self) -> int:
        """Total size of the archives as they lie on disk."""
        return sum(archive.stat().st_size for archive in self._archives)

    def fingerprint(self) -> str:
        """A hash over name, size and modification time of every archive."""
        status = [(archive.name, archive.stat()) for archive in self._archives]
        return fingerprint([[name, s.st_size, s.st_mtime_ns] for name, s in status])

    def entries(self) -> Iterator[Entry]:
        """The members in the order of the archives. Raises DataError for a damaged archive or a bomb."""
        for archive in self._archives:
            for entry in read_archive(archive, self._limits):
                if selected(entry.path, self._include, self._exclude):
                    yield entry


def find_archives(path: Path) -> list[Path]:
    """The archive at `path`, or every archive below that directory. Raises DataError if there is none."""
    if path.is_file():
        if not path.name.endswith(_SUFFIXES):
            raise DataError(f"{path}: not an archive that can be read; known are {', '.join(_SUFFIXES)}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or directory")
    found = [path / name for name in walk(path) if name.endswith(_SUFFIXES)]
    if not any(archive.is_file() for archive in found):
        raise DataError(f"{path}: holds no archive ({', '.join(_SUFFIXES)})")
    return sorted(archive for archive in found if archive.is_file())


def read_archive(archive: Path, limits: Limits) -> Iterator[Entry]:
    """Every member that is no directory, in archive order; each to be read before the next is asked for."""
    prefix = archive.name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        prefix = prefix.removesuffix(suffix)
    members = _zip_members if archive.name.endswith(".zip") else _tar_members
    total = 0
    with _named_damage(archive):
        for count, entry in enumerate(members(archive, prefix, limits)):
            total += entry.size
            if count >= limits.members or total > limits.total_bytes:
                raise _bomb(archive, limits)
            yield entry


def _bomb(archive: Path, limits: Limits) -> DataError:
    return DataError(
        f"{archive}: unpacks to more than {limits.members} files or {limits.total_bytes} bytes; if it is no "
        "decompression bomb, raise max_members or max_total_bytes of this source"
    )


@contextmanager
def _named_damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as reason:
        detail = str(reason) or type(reason).__name__
        raise DataError(
            f"{archive}: truncated or damaged ({detail}); fetch it again or remove it"
        ) from reason


def _member_path(prefix: str, name: str) -> tuple[str, str]:
    """The path of a member inside the source, and its problem: absolute names and `..` are refused."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    unsafe = not parts or parts[0] == "/" or ".." in parts or "\0" in name or ":" in parts[0]
    return printable("/".join((prefix, *parts))).replace("\0", "?"), "unsafe path" if unsafe else ""


# --- tar --------------------------------------------------------------------------------------------------


def _tar_members(archive: Path, prefix: str, limits: Limits) -> Iterator[Entry]:
    with archive.open("rb") as packed, _decompressed(packed, archive.name) as plain:
        stream = _BoundedStream(plain, archive, limits)
        done = 0
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as tar:
            for member in tar:
                position = os.lseek(packed.fileno(), 0, os.SEEK_CUR)
                if not member.isdir():
                    path, problem = _tar_path(member, prefix, limits)
                    read = refuse if problem else partial(_read_member, archive, tar, member)
                    yield Entry(path, member.size, read, problem, work_bytes=position - done)
                    done = position
        stream.drain()  # checksums stand at the end


def _tar_path(member: tarfile.TarInfo, prefix: str, limits: Limits) -> tuple[str, str]:
    """The path of a member inside the source and its problem."""
    path, problem = _member_path(prefix, member.name)
    if member.issym() or member.islnk():
        return path, "link"
    if not member.isreg() or member.issparse():
        return path, "unreadable"
    return path, problem or ("too large" if member.size > limits.member_bytes else "")


def _read_member(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with _named_damage(archive):
        stream = tar.extractfile(member)
        content = stream.read() if stream else b""
        if len(content) != member.size:
            raise tarfile.ReadError(f"{member.name} ends early")
        return content


@contextmanager
def _decompressed(packed: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """The plain stream of a compressed file, by its name."""
    if name.endswith((".gz", ".tgz")):
        with gzip.GzipFile(fileobj=packed) as plain:
            yield cast(IO[bytes], plain)
    elif name.endswith((".xz", ".txz")):
        with lzma.LZMAFile(packed) as plain:
            yield plain
    elif name.endswith((".bz2", ".tbz2")):
        with bz2.BZ2File(packed) as plain:
            yield plain
    elif name.endswith(".zst"):
        with _zstd(packed) as piped:
            yield piped
    else:
        yield packed


@contextmanager
def _zstd(packed: IO[bytes]) -> Iterator[IO[bytes]]:
    """Decompress with the zstd program: Python has no zstd of its own before 3.14."""
    if (program := shutil.which("zstd")) is None:
        raise DataError("archives in .zst need the zstd program; install it, or compress them otherwise")
    with subprocess.Popen(
        [program, "-dcq"], stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
            process.stdout.read(1)  # the caller has drained it: only the end is left
            if process.wait() != 0:
                raise lzma.LZMAError(process.stderr.read().decode(errors="replace").strip())
        finally:
            process.kill()


class _BoundedStream(io.RawIOBase):
    """Reads and skips forwards, never past the limits: tarfile would swallow any header it is given."""

    def __init__(self, plain: IO[bytes], archive: Path, limits: Limits) -> None:
        self._plain, self._archive, self._limits, self._position = plain, archive, limits, 0
        # every member costs a header block and padding beyond its own bytes
        self._end = limits.total_bytes + 2048 * limits.members + _HEADER_BYTES

    def read(self, size: int | None = -1) -> bytes:
        size = self._end if size is None or size < 0 else size
        if size > max(self._limits.member_bytes, _HEADER_BYTES) or self._position + size > self._end:
            raise _bomb(self._archive, self._limits)
        content = self._plain.read(size)
        self._position += len(content)
        return content

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < self._position:
            raise tarfile.ReadError("it is not in order")
        while self._position < offset and self.read(min(_HEADER_BYTES, offset - self._position)):
            pass
        return self._position

    def drain(self) -> None:
        """Read to the end, where decompressors compare checksums."""
        while self.read(_HEADER_BYTES):
            pass


# --- zip --------------------------------------------------------------------------------------------------


def _zip_members(archive: Path, prefix: str, limits: Limits) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if not info.is_dir():
                path, problem = _zip_path(info, prefix, limits)
                read = refuse if problem else partial(_read_zipped, archive, file, info)
                yield Entry(path, info.file_size, read, problem, work_bytes=info.compress_size)


def _zip_path(info: zipfile.ZipInfo, prefix: str, limits: Limits) -> tuple[str, str]:
    """The path of a member inside the source and its problem."""
    path, problem = _member_path(prefix, info.filename)
    if stat.S_ISLNK(info.external_attr >> 16):
        return path, "link"
    if info.flag_bits & 1:
        return path, "unreadable"  # encrypted
    return path, problem or ("too large" if info.file_size > limits.member_bytes else "")


def _read_zipped(archive: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with _named_damage(archive):
        with file.open(info) as stream:
            content = stream.read(info.file_size + 1)
        if len(content) != info.file_size:
            raise zipfile.BadZipFile(f"{info.filename} is not as long as it says")
        return content
