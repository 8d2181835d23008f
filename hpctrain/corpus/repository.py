"""A git repository on disk, as far as it can be told without running git on it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import DataError

_REF_BYTES = 4096
_PACKED_REFS_BYTES = 64 << 20
_OBJECT_NAME = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF_NAME = re.compile(r"(?!.*(?:\.\.|//|\.lock$|@\{))[A-Za-z0-9_][A-Za-z0-9_.+/@#=-]*")
_REF_PLACES = ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}", "refs/remotes/{}/HEAD")
_SYMBOLIC_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Repository:
    """The directory that holds HEAD, refs and objects."""

    directory: Path

    @property
    def objects(self) -> Path:
        """The directory of the objects."""
        return self.directory / "objects"

    @property
    def work_bytes(self) -> int:
        """Total size of the objects as they lie on disk, history included."""
        return sum(file.lstat().st_size for file in self.objects.glob("*/*"))

    def check(self) -> None:
        """Raises DataError if objects are to come from outside: they might be anybody's."""
        for part in (self.objects, *(self.objects / name for name in ("pack", "info"))):
            if part.is_symlink():
                raise DataError(
                    f"{self.directory}: {part.name} is a link; clone the repository without links"
                )
        alternates = self.objects / "info" / "alternates"
        if alternates.is_symlink() or (alternates.is_file() and alternates.stat().st_size):
            raise DataError(
                f"{self.directory}: it borrows objects from elsewhere (objects/info/alternates); make it "
                "whole with `git repack -a -d`, then remove that file"
            )

    def resolve(self, revision: str) -> str:
        """The object name that a branch, a tag, HEAD or a full object name stands for.

        Raises DataError if there is none.
        """
        name = revision
        for _ in range(_SYMBOLIC_DEPTH):
            if _OBJECT_NAME.fullmatch(name):
                return name
            if not _REF_NAME.fullmatch(name) or not (found := self._look_up(name)):
                break
            name = found.removeprefix("ref: ").strip()
        if (self.directory / "reftable").exists():
            raise DataError(f"{self.directory}: its refs are in a reftable; give the commit as `revision`")
        known = ", ".join(sorted(self._branches())[:8]) or "none"
        raise DataError(
            f"{self.directory}: no revision {revision!r}; give HEAD, a tag, the full name of a commit, or a "
            f"branch: {known}"
        )

    def _look_up(self, name: str) -> str:
        packed = self._packed_refs()
        for place in _REF_PLACES:
            ref = place.format(name)
            if (content := _read_start(self.directory / ref, _REF_BYTES)) or (content := packed.get(ref, "")):
                return content.strip()
        return ""

    def _packed_refs(self) -> dict[str, str]:
        lines = _read_start(self.directory / "packed-refs", _PACKED_REFS_BYTES).splitlines()
        pairs = (line.split(" ", 1) for line in lines if line[:1] not in ("#", "^") and " " in line)
        return {ref: name for name, ref in pairs}

    def _branches(self) -> Iterator[str]:
        heads = self.directory / "refs" / "heads"
        for base, _, names in os.walk(heads):
            yield from (str((Path(base) / name).relative_to(heads)) for name in names)
        yield from (
            ref.removeprefix("refs/heads/") for ref in self._packed_refs() if ref.startswith("refs/heads/")
        )


def _read_start(path: Path, size: int) -> str:
    """The first bytes of a regular file, or "" if there is none; links are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        try:
            return file.read(size).decode("utf-8", "surrogateescape")
        except OSError:
            return ""  # a directory of refs


def find_repositories(root: Path) -> tuple[dict[str, Repository], dict[str, str]]:
    """The repositories at or below a directory, by path relative to it ("" for itself), and those that cannot
    be read with the reason. What lies in a work tree is not searched for more."""
    found: dict[str, Repository] = {}
    missing: dict[str, str] = {}
    pending = [""]
    while pending:
        name = pending.pop()
        place = root / name
        link = place / ".git"
        if _is_repository(place):
            found[name] = Repository(place)
        elif not link.is_symlink() and _is_repository(link):
            found[name] = Repository(link)
        elif link.is_file() or link.is_symlink():
            missing[name or "."] = (
                ".git leads elsewhere (a submodule or a linked work tree); name the repository that it is of"
            )
        else:
            pending += _directories(root, name)
    return _without_suffix(found), missing


def _without_suffix(found: dict[str, Repository]) -> dict[str, Repository]:
    """Bare repositories lose their `.git` where no other has that name."""
    short = {name: name.removesuffix(".git") for name in found}
    return {
        (name if short[name] in found else short[name]): repository
        for name, repository in sorted(found.items())
    }


def _is_repository(place: Path) -> bool:
    return all(not (place / part).is_symlink() for part in ("HEAD", "objects")) and (
        (place / "HEAD").is_file() and (place / "objects").is_dir() and (place / "refs").exists()
    )


def _directories(root: Path, name: str) -> list[str]:
    try:
        with os.scandir(root / name) as listing:
            return sorted(
                f"{name}/{item.name}" if name else item.name
                for item in listing
                if item.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []
