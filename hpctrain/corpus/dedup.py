"""Exact duplicates: of files with equal bytes the first in corpus order stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar


class Hashed(Protocol):
    """Anything with the digest of its content."""

    @property
    def sha256(self) -> str:
        """Hex digest."""


HashedT = TypeVar("HashedT", bound=Hashed)


def drop_duplicates(items: Iterable[HashedT], on_duplicate: Callable[[HashedT], None]) -> Iterator[HashedT]:
    """Yield the first item of each content; the winner is decided by the order of `items` alone."""
    seen: set[bytes] = set()
    for item in items:
        digest = bytes.fromhex(item.sha256)
        if digest in seen:
            on_duplicate(item)
        else:
            seen.add(digest)
            yield item
