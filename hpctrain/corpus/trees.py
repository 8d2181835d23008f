"""Files that lie unpacked: directory trees, and what a Python package installed."""

from __future__ import annotations

import importlib.util
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib import metadata
from pathlib import Path, PurePosixPath

import xxhash

from hpctrain.config import fingerprint
from hpctrain.corpus.entry import SLICE_BYTES, Entry, UnitSource, printable, refuse
from hpctrain.corpus.licences import is_licence_file
from hpctrain.errors import DataError

_VERSION_CONTROL = {".git", ".hg", ".svn"}
_MEAN_SLICE_FILES = 1024

# Classifiers that name one SPDX licence; "BSD License" and its like name several and are left out.
_CLASSIFIERS = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
}


@dataclass(frozen=True, order=True, slots=True)
class _Found:
    """A path on disk with what `lstat` says of it."""

    path: str
    place: Path
    size: int = 0
    mtime_ns: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class TreeSlice:
    """Files that follow each other in a tree. Links are never followed: what they lead to inside the tree is
    visited anyway."""

    found: tuple[_Found, ...]
    identity: str = ""
    """Where known, it stands for the content instead of the times of the files."""
    scope: str = ""

    @property
    def key(self) -> str:
        """The path of the first file."""
        return self.found[0].path

    @property
    def work_bytes(self) -> int:
        """Total size of the files."""
        return sum(found.size for found in self.found)

    def fingerprint(self) -> str:
        """A hash over path, size and modification time (or the identity) of every file."""
        times = [0 if self.identity else found.mtime_ns for found in self.found]
        files = [[f.path, f.size, time, f.problem] for f, time in zip(self.found, times, strict=True)]
        return fingerprint(["tree", self.identity, files])

    def entries(self) -> Iterator[Entry]:
        """The files, sorted by path."""
        for found in self.found:
            read = refuse if found.problem else partial(read_bounded, found.place, found.size)
            yield Entry(found.path, found.size, read, found.problem, work_bytes=found.size)


def tree_source(root: Path, paths: Iterable[str], licence: str = "", identity: str = "") -> UnitSource:
    """The files at `paths`, relative to `root`, in slices; `identity`, if given, stands for their content."""
    found = sorted(_look(printable(path), root / path) for path in set(paths))
    return UnitSource([TreeSlice(part, identity) for part in _slices(found)], licence)


def _slices(found: Sequence[_Found]) -> Iterator[tuple[_Found, ...]]:
    """Cut where the hash of a path says so: a file more or less changes its own slice only."""
    part: list[_Found] = []
    size = 0
    for item in found:
        chosen = xxhash.xxh3_64_intdigest(item.path.encode()) % _MEAN_SLICE_FILES == 0
        if part and (chosen or size + item.size > SLICE_BYTES):
            yield tuple(part)
            part, size = [], 0
        part.append(item)
        size += item.size
    if part:
        yield tuple(part)


def read_bounded(place: Path, size: int) -> bytes:
    """The content of a regular file of at most `size` bytes. Raises OSError for a link, a special file, or
    one that has grown: what was found when the tree was listed may have been replaced since."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{place} is not a regular file")
        content = file.read(size + 1)
        if len(content) > size:
            raise OSError(f"{place} has grown since it was listed")
        return content


def _look(path: str, place: Path) -> _Found:
    try:
        status = place.lstat()
    except OSError:
        return _Found(path, place, problem="unreadable")
    if stat.S_ISREG(status.st_mode):
        return _Found(path, place, status.st_size, status.st_mtime_ns)
    problem = "link" if stat.S_ISLNK(status.st_mode) else "unreadable"  # a pipe, a socket, a device
    return _Found(path, place, 0, status.st_mtime_ns, problem)


def walk(root: Path) -> Iterator[str]:
    """Paths of everything below `root` that is no directory, relative to it; version control is left out.

    Directories that cannot be listed are yielded like files, so that they are counted as unreadable.
    """
    pending = [""]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(root / directory) as listing:
                for item in listing:
                    path = f"{directory}/{item.name}" if directory else item.name
                    if not item.is_dir(follow_symlinks=False):
                        yield path
                    elif item.name not in _VERSION_CONTROL:
                        pending.append(path)
        except OSError:
            yield directory


def selected(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """True if a path matches one of `include` (or there are none) and none of `exclude`; `*` crosses `/`.

    Licence files need no include: what they say holds for the files beside them.
    """
    if include and not is_licence_file(path) and not any(fnmatchcase(path, p) for p in include):
        return False
    return not any(fnmatchcase(path, pattern) for pattern in exclude)


def open_directory(root: Path, include: Sequence[str], exclude: Sequence[str]) -> UnitSource:
    """The tree below `root`, which may itself be a link. Raises DataError if it is no directory."""
    if not root.is_dir():
        raise DataError(f"{root}: no such directory")
    real = root.resolve()
    return tree_source(real, (path for path in walk(real) if selected(path, include, exclude)))


def open_package(name: str, include: Sequence[str], exclude: Sequence[str]) -> UnitSource:
    """What the distribution (or import package) `name` installed; nothing of it is imported.

    Paths begin with the package's directory. Raises DataError if it is not installed.
    """
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return _open_import_package(name, include, exclude)
    root = Path(str(distribution.locate_file("")))
    files = [str(PurePosixPath(file)) for file in distribution.files or () if ".." not in file.parts]
    if all(PurePosixPath(file).parts[0].endswith((".dist-info", ".egg-info", ".pth")) for file in files):
        return _open_import_package(name, include, exclude)  # an editable install lists no files of its own
    paths = [path for path in files if selected(path, include, exclude)]
    licence = _declared_licence(distribution.metadata)
    return tree_source(root, paths, licence, identity=f"{name}=={distribution.version}")


def _open_import_package(name: str, include: Sequence[str], exclude: Sequence[str]) -> UnitSource:
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the Python package {name} is not installed")
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    paths = (f"{root.name}/{path}" for path in walk(root))
    return tree_source(root.parent, (path for path in paths if selected(path, include, exclude)))


def _declared_licence(fields: metadata.PackageMetadata) -> str:
    """The licence expression of a distribution's metadata, or that of an unambiguous classifier, or ""."""
    if "License-Expression" in fields:
        return str(fields["License-Expression"])
    names = [
        text.rpartition(" :: ")[2] for text in fields.get_all("Classifier") or () if "License ::" in text
    ]
    return _CLASSIFIERS.get(names[0], "") if len(names) == 1 else ""
