"""Where code comes from: one config record a kind of source, and how each is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hpctrain.config import Section
from hpctrain.corpus.archives import open_archives
from hpctrain.corpus.debian import open_debian
from hpctrain.corpus.entry import Source
from hpctrain.corpus.git import open_git
from hpctrain.corpus.licences import LicenceReader
from hpctrain.corpus.members import Limits
from hpctrain.corpus.rows import Columns, TableLimits
from hpctrain.corpus.tables import open_table
from hpctrain.corpus.trees import open_directory, open_package
from hpctrain.errors import DataError


class _SourceConfig(Section):
    """What every source has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """Name of the source in the corpus; each name once."""
    licence: str = ""
    """SPDX expression for files that state none themselves."""
    include: list[str] = []
    """Shell patterns on the path inside the source, `*` also matching `/`; none: everything."""
    exclude: list[str] = []
    """Shell patterns of what is left out all the same."""
    max_bytes: int | None = Field(None, gt=0)
    """Upper bound on what is read, in bytes of files that could be kept by name and size. Files are chosen by
    a hash of their path, so that the choice is even and always the same."""
    optional: bool = False
    """Whether the build goes on where this source does not exist."""

    @field_validator("licence")
    @classmethod
    def _check_licence(cls, licence: str) -> str:
        normal = LicenceReader().parse(licence) if licence else ""
        if licence and not normal:
            raise ValueError(f"{licence!r} is not an SPDX licence expression")
        return normal


class _PackedConfig(_SourceConfig):
    """What every source has of which parts can be damaged."""

    max_member_bytes: int = Field(64 << 20, gt=0)
    """Larger files (members of archives, objects of repositories, rows and lines of tables) are not read."""
    damaged: Literal["fail", "skip"] = "fail"
    """Whether the build goes on past a damaged archive, repository or table: what can be read of it stays,
    and the rest is counted as `damaged`."""

    @property
    def skip_damaged(self) -> bool:
        """Whether damage is no error."""
        return self.damaged == "skip"


class _ArchiveConfig(_PackedConfig):
    """What every source made of archives has."""

    max_total_bytes: int = Field(8 << 30, gt=0)
    """An archive that unpacks to more than this, archives inside it included, is refused as a decompression
    bomb."""
    max_members: int = Field(1_000_000, gt=0)
    """An archive with more members than this, archives inside it included, is refused as a decompression
    bomb."""
    max_depth: int = Field(2, ge=0, le=8)
    """Archives inside archives are opened down to this depth; 0 leaves them closed."""

    @property
    def limits(self) -> Limits:
        """The bounds on one archive."""
        return Limits(self.max_member_bytes, self.max_total_bytes, self.max_members, self.max_depth)


class DirectorySource(_SourceConfig):
    """A directory tree."""

    kind: Literal["directory"]
    path: str
    """The root; `~` and `${VAR}` are expanded, relative paths start at the current directory."""

    def open(self) -> Source:
        """List the tree. Raises DataError if it does not exist."""
        return open_directory(expand(self.path), self.include, self.exclude)


class PythonPackageSource(_SourceConfig):
    """The files that an installed Python package brought; nothing of it is imported."""

    kind: Literal["python_package"]
    package: str
    """Name of the distribution, or of the import package where it is no distribution."""

    def open(self) -> Source:
        """List the files. Raises DataError if it is not installed."""
        return open_package(self.package, self.include, self.exclude)


class GitSource(_PackedConfig):
    """A git repository, bare or with a work tree, or a directory of them, at a commit. What is not committed
    is not read, and neither is history. Needs the git program."""

    kind: Literal["git"]
    path: str
    """The repository, or a directory with repositories below it."""
    revision: str = "HEAD"
    """A branch, a tag, HEAD, or the full name of a commit; abbreviations and `~` are not understood."""
    max_total_bytes: int = Field(64 << 30, gt=0)
    """A repository with more bytes than this at the commit is refused as a bomb."""
    max_members: int = Field(5_000_000, gt=0)
    """A repository with more files and directories than this at the commit is refused as a bomb."""

    def open(self) -> Source:
        """Find the repositories. Raises DataError if there are none, or not of that revision."""
        limits = Limits(self.max_member_bytes, self.max_total_bytes, self.max_members)
        return open_git(
            expand(self.path), self.revision, limits, self.include, self.exclude, self.skip_damaged
        )


class TableSource(_PackedConfig):
    """Tables with a file a row: JSON lines (plain or compressed) and Parquet, as The Stack and HPCorpus."""

    kind: Literal["table"]
    path: str
    """A table, or a directory with tables below it (.jsonl, .ndjson, .json, each also with .gz, .zst, .xz or
    .bz2, and .parquet)."""
    columns: Columns = Columns()
    """What the columns are called."""
    extension: str = Field("", pattern=r"^(\.[A-Za-z0-9_]+)?$")
    """Ends the names of rows without a path, such as `.f90`: it may decide the language."""
    max_total_bytes: int = Field(1 << 40, gt=0)
    """A table that unpacks to more than this is refused as a decompression bomb."""

    @model_validator(mode="after")
    def _check_columns(self) -> TableSource:
        if not self.columns.content:
            raise ValueError("columns.content: a table without a column of contents holds no files")
        return self

    def open(self) -> Source:
        """Find the tables. Raises DataError if there are none."""
        limits = TableLimits(self.max_member_bytes, self.max_total_bytes)
        return open_table(
            expand(self.path), self.columns, limits, self.extension, self.include, self.exclude,
            self.skip_damaged,
        )  # fmt: skip


class ArchivesSource(_ArchiveConfig):
    """A source archive, or a directory of them such as a Spack mirror."""

    kind: Literal["archives"]
    path: str
    """An archive or a directory: .tar, plain or as .gz, .xz, .bz2, .lzma or .zst, .zip and .whl."""

    def open(self) -> Source:
        """Find the archives. Raises DataError if there are none."""
        return open_archives(expand(self.path), self.limits, self.include, self.exclude, self.skip_damaged)


class DebianSource(_ArchiveConfig):
    """Upstream archives of Debian source packages, downloaded once into a cache, with the licences that
    debian/copyright states for each file."""

    kind: Literal["debian_source"]
    packages: list[str] = Field(min_length=1)
    """Names of source packages."""
    cache: str = "~/.cache/hpctrain/debian"
    """Directory of the archives; what lies there already is not downloaded, so it may be filled by hand."""
    missing: Literal["skip", "fail"] = "fail"
    """Whether the build goes on without packages that cannot be had."""

    @field_validator("packages")
    @classmethod
    def _check_packages(cls, packages: list[str]) -> list[str]:
        # the names become arguments of apt-get: none may look like an option
        if wrong := [name for name in packages if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name)]:
            raise ValueError(f"not names of Debian source packages: {', '.join(wrong)}")
        return packages

    def open(self) -> Source:
        """Fetch what is missing. Raises DataError if something cannot be had and `missing` is `fail`."""
        cache = expand(self.cache)
        cache.mkdir(parents=True, exist_ok=True)
        return open_debian(
            self.packages, cache.resolve(), self.limits, self.missing == "skip", self.include, self.exclude,
            self.skip_damaged,
        )  # fmt: skip


SourceConfig = Annotated[
    DirectorySource | PythonPackageSource | GitSource | ArchivesSource | DebianSource | TableSource,
    Field(discriminator="kind"),
]
"""One source of a corpus, by its `kind`."""


def expand(path: str) -> Path:
    """A path of the config with `~` and `${VAR}` replaced. Raises DataError for an unset variable."""
    expanded = os.path.expandvars(path)
    if unset := re.search(r"\$\{?(\w+)", expanded):
        raise DataError(f"{path}: the environment variable {unset[1]} is not set")
    return Path(expanded).expanduser()
