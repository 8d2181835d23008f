"""Source archives on disk: one, or every one below a directory such as a Spack mirror."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from hpctrain.config import fingerprint
from hpctrain.corpus.entry import Entry, Salvaged, Unit, UnitSource, printable
from hpctrain.corpus.members import (
    ARCHIVE_SUFFIXES,
    OTHER_SUFFIXES,
    Budget,
    Limits,
    archive_suffix,
    named_damage,
    read_members,
)
from hpctrain.corpus.trees import selected, walk
from hpctrain.errors import DataError

_READER = 2
"""Goes up with every change of what is read from the same archive."""


@dataclass(frozen=True, slots=True)
class ArchiveUnit:
    """One archive; the path of a member begins with the archive's key."""

    key: str
    place: Path
    size: int
    mtime_ns: int
    limits: Limits
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """Its own: what stands in an archive belongs together."""
        return self.key

    @property
    def work_bytes(self) -> int:
        """Size of the archive as it lies on disk."""
        return self.size

    def fingerprint(self) -> str:
        """A hash over name, size and modification time, and how it is read."""
        how = [astuple(self.limits), self.include, self.exclude]
        return fingerprint(["archive", _READER, self.key, self.size, self.mtime_ns, how])

    def entries(self) -> Iterator[Entry]:
        """The members in the order of the archive. Raises DataError for a damaged archive or a bomb."""
        budget = Budget(str(self.place), self.limits)
        with named_damage(budget.name), self.place.open("rb") as packed:
            suffix = archive_suffix(self.place.name)
            for entry in read_members(packed, suffix, self.key, budget):
                if selected(entry.path, self.include, self.exclude):
                    yield entry


def archive_unit(
    place: Path, key: str, limits: Limits, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> ArchiveUnit:
    """The unit of an archive that exists. Raises DataError if it does not."""
    try:
        status = place.stat()
    except OSError as reason:
        raise DataError(f"{place}: cannot be read: {reason.strerror}") from None
    return ArchiveUnit(key, place, status.st_size, status.st_mtime_ns, limits, tuple(include), tuple(exclude))


def open_archives(
    path: Path,
    limits: Limits,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip_damaged: bool = False,
) -> UnitSource:
    """The archive at `path`, or every archive below that directory. Raises DataError if there is none.

    A file that has several names through links, as in a Spack mirror, is read once, under the name of the
    first link. Links that lead out of the directory, and archives in formats that are not read, are missing
    parts. With `skip_damaged` a damaged archive costs only what cannot be read of it.
    """
    missing: dict[str, str] = {}
    if path.is_file():
        if not archive_suffix(path.name):
            known = ", ".join(ARCHIVE_SUFFIXES)
            raise DataError(f"{path}: not an archive that can be read; known are {known}")
        found = {path.name: path}
    elif path.is_dir():
        found, missing = _find(path)
        if not found and not missing:
            raise DataError(f"{path}: holds no archive ({', '.join(ARCHIVE_SUFFIXES)})")
    else:
        raise DataError(f"{path}: no such file or directory")
    units: list[Unit] = [
        archive_unit(place, key, limits, include, exclude) for key, place in _keys(found).items()
    ]
    return UnitSource([Salvaged(unit) for unit in units] if skip_damaged else units, missing=missing)


def _find(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The archives below a directory by relative path, and what cannot be read with the reason."""
    real_root = root.resolve()
    by_file: dict[Path, tuple[bool, str]] = {}
    missing = {}
    for name in walk(root):
        place = root / name
        if name.endswith(OTHER_SUFFIXES):
            missing[printable(name)] = "an archive in a format that is not read; pack it as .tar.gz"
        elif archive_suffix(name):
            real = Path(os.path.realpath(place))
            if not real.is_file():
                missing[printable(name)] = "not a file, or a link that leads nowhere"
            elif not real.is_relative_to(real_root):
                missing[printable(name)] = "a link that leaves the directory; name its target as a source"
            else:
                mine = (not place.is_symlink(), name)
                by_file[real] = min(mine, by_file.get(real, mine))
    return {name: root / name for _, name in sorted(by_file.values(), key=lambda item: item[1])}, missing


def _keys(found: dict[str, Path]) -> dict[str, Path]:
    """Archives by the beginning of their members' paths: the name, without its suffix if no other has it."""
    stems = [name[: len(name) - len(archive_suffix(name))] for name in found]
    counts = Counter(stems)
    keys = (stem if counts[stem] == 1 else name for stem, name in zip(stems, found, strict=True))
    return {printable(key): place for key, place in zip(keys, found.values(), strict=True)}
