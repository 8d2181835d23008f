"""Compressed streams of strangers: by the name of the file, forwards only, and never past a bound."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from hpctrain.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import Buffer

DAMAGE = (zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)
"""What decompressors raise for a truncated or damaged stream."""
COMPRESSIONS = (".gz", ".xz", ".bz2", ".lzma", ".zst")
"""Suffixes of the compressions that are read."""
CHUNK_BYTES = 1 << 20


def damage_error(name: str, reason: BaseException) -> DataError:
    """The error for a file that cannot be read to its end: told are the file, the reason and the remedy."""
    if isinstance(reason, OSError) and reason.errno:
        return DataError(f"{name}: cannot be read: {reason.strerror}")
    words = (str(reason).splitlines() or [""])[0] or type(reason).__name__
    return DataError(f"{name}: truncated or damaged ({words}); fetch it again or remove it")


@contextmanager
def decompressed(packed: IO[bytes], compression: str) -> Iterator[IO[bytes]]:
    """The plain stream of a packed one; `compression` is one of COMPRESSIONS, or "" for none."""
    if compression == ".gz":
        with gzip.GzipFile(fileobj=packed) as plain:
            yield cast(IO[bytes], plain)
    elif compression in (".xz", ".lzma"):
        with lzma.LZMAFile(packed) as plain:
            yield plain
    elif compression == ".bz2":
        with bz2.BZ2File(packed) as plain:
            yield plain
    elif compression == ".zst":
        import pyarrow as pa  # the only compression that Python itself lacks

        with pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd") as plain:
            yield plain
    else:
        yield packed


class BoundedStream(io.RawIOBase):
    """Reads and skips forwards and reports every byte, so that whoever counts can stop a bomb."""

    def __init__(self, plain: IO[bytes], spend: Callable[[int], None], max_read: int = 0) -> None:
        """`spend` is told how many bytes were read, and raises where they are too many. A single read of more
        than `max_read` bytes (0: any) is: only a header that lies asks for so much."""
        self._plain, self._spend, self._max_read, self._position = plain, spend, max_read, 0

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, which must be said."""
        if size is None or size < 0:
            raise ValueError("a bounded stream is read in pieces")
        if self._max_read and size > self._max_read:
            self._spend(1 << 62)
        content = self._plain.read(size)
        self._spend(len(content))
        self._position += len(content)
        return content

    def readinto(self, buffer: Buffer) -> int:
        """Fill the buffer."""
        view = memoryview(buffer).cast("B")
        content = self.read(len(view))
        view[: len(content)] = content
        return len(content)

    def tell(self) -> int:
        """Bytes read or skipped so far."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Skip forwards. Raises OSError for a way back."""
        if whence != os.SEEK_SET or offset < self._position:
            raise OSError("it is not in order")
        while self._position < offset and self.read(min(CHUNK_BYTES, offset - self._position)):
            pass
        return self._position

    def drain(self) -> None:
        """Read to the end, where decompressors compare checksums."""
        while self.read(CHUNK_BYTES):
            pass
