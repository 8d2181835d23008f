"""Source packages of a Debian-like distribution, from the archives that this machine is configured for.

No root and no change to the machine: the `deb-src` entries are derived from its own `deb` entries into a
private APT directory beside the downloads.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.config import fingerprint
from hpctrain.corpus.archives import ArchiveUnit, archive_unit
from hpctrain.corpus.entry import Entry, Salvaged, Unit, UnitSource
from hpctrain.corpus.licences import LicenceReader
from hpctrain.corpus.members import Limits, archive_suffix
from hpctrain.corpus.surroundings import COPYRIGHT_PATH, Surroundings, read_statement
from hpctrain.errors import DataError
from hpctrain.progress import say

_APT_TIMEOUT_SECONDS = 900
_LIST_LIFE_SECONDS = 3600
_ONE_LINE = re.compile(r"^deb(?:-src)?\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$")
_OPTION_FIELDS = {"signed-by": "Signed-By", "trusted": "Trusted"}
_KEPT_FIELDS = ("uris", "suites", "components", "signed-by", "trusted")


@dataclass(frozen=True, slots=True)
class DebianUnit:
    """The upstream archive of a source package, with what its debian/copyright says of each file."""

    archive: ArchiveUnit
    packaging: ArchiveUnit | None
    """The archive that holds debian/copyright, where there is one."""

    @property
    def key(self) -> str:
        """The archive's."""
        return self.archive.key

    @property
    def scope(self) -> str:
        """The archive's."""
        return self.archive.scope

    @property
    def work_bytes(self) -> int:
        """The archive's."""
        return self.archive.work_bytes

    def fingerprint(self) -> str:
        """A hash over the archive and the packaging."""
        parts = [part.fingerprint() for part in (self.archive, self.packaging) if part]
        return fingerprint(["debian", *parts])

    def entries(self) -> Iterator[Entry]:
        """The members of the archive. Raises DataError where one of the two is damaged."""
        surroundings = Surroundings(self._copyright())
        for entry in self.archive.entries():
            # the package's own name and the directory that the archive unpacks to
            inside = entry.path.split("/", 2)[-1]
            licence = "" if entry.problem else surroundings.licence_of(inside)
            yield replace(entry, licence=entry.licence or licence)

    def _copyright(self) -> Iterator[tuple[str, str]]:
        reader = LicenceReader()
        for entry in self.packaging.entries() if self.packaging else ():
            inside = entry.path.removeprefix(f"{entry.path.split('/', 1)[0]}/")
            if inside == COPYRIGHT_PATH and not entry.problem:
                yield inside, read_statement(inside, entry.read(), reader)


def open_debian(
    packages: Sequence[str],
    cache: Path,
    limits: Limits,
    skip_missing: bool,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    skip_damaged: bool = False,
    apt_config: Path = Path("/etc/apt"),
) -> UnitSource:
    """The upstream archives of source packages: those in `cache`, the others downloaded into it.

    With `skip_missing` the source goes on without packages that cannot be had and names them; otherwise it
    raises DataError. `apt_config` is the directory of the machine's APT configuration.
    """
    absent = [name for name in packages if find_upstream_archive(cache, name) is None]
    reasons = _download(absent, cache, apt_config) if absent else {}
    found = {name: archive for name in packages if (archive := find_upstream_archive(cache, name))}
    missing = {
        name: reasons.get(name, "no archive of that name came") for name in packages if name not in found
    }
    if missing and not skip_missing:
        listed = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise DataError(
            f"Debian sources that cannot be had: {listed}; put them into {cache} or set missing: skip"
        )
    for name, reason in missing.items():
        say(f"Debian source {name} is left out: {reason}")
    units: list[Unit] = [
        _unit(name, archive, limits, include, exclude)
        for name, archive in sorted(found.items(), key=lambda item: item[1])
    ]
    return UnitSource([Salvaged(unit) for unit in units] if skip_damaged else units, missing=missing)


def _unit(
    name: str, archive: Path, limits: Limits, include: Sequence[str], exclude: Sequence[str]
) -> DebianUnit:
    key = archive.name.removesuffix(archive_suffix(archive.name))
    upstream = archive_unit(archive, key, limits, include, exclude)
    if (packaging := find_packaging(archive, name)) is None:
        if ".orig." in archive.name:
            say(f"Debian source {name}: no {name}_*.debian.tar.* in {archive.parent}: no debian/copyright; "
                "its own files tell the licences")  # fmt: skip
        return DebianUnit(upstream, None)
    return DebianUnit(upstream, archive_unit(packaging, packaging.name, limits))


def find_packaging(archive: Path, name: str) -> Path | None:
    """The newest packaging of an upstream archive, beside it, or None; a native package is its own."""
    if ".orig." not in archive.name:
        return None
    version = archive.name.removeprefix(f"{name}_").partition(".orig.")[0]
    pattern = re.compile(rf"{re.escape(f'{name}_{version}')}-[^_]+\.debian\.tar\.(?:gz|xz|bz2|zst)")
    found = [path for path in archive.parent.glob(f"{name}_*") if pattern.fullmatch(path.name)]
    return max(found, key=_version_key, default=None)


def find_upstream_archive(cache: Path, name: str) -> Path | None:
    """The newest upstream archive of a source package in a directory, or None."""
    pattern = re.compile(rf"{re.escape(name)}_[^_]+?(?:\.orig)?\.tar\.(?:gz|xz|bz2|zst)")
    archives = [path for path in cache.glob(f"{name}_*") if pattern.fullmatch(path.name)]
    upstream = [path for path in archives if ".orig." in path.name]
    native = [path for path in archives if ".orig" not in path.name and ".debian." not in path.name]
    return max(upstream or native, key=_version_key, default=None)


def _version_key(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _download(names: Sequence[str], cache: Path, apt_config: Path) -> dict[str, str]:
    """Fetch what can be fetched; returns the reasons for the rest."""
    if (apt := shutil.which("apt-get")) is None:
        return dict.fromkeys(names, "apt-get is not on this machine")
    if not (entries := source_entries(apt_config)):
        return dict.fromkeys(names, "this machine's APT has no package archive configured")
    options = _private_apt(cache / "apt", entries)
    if not _is_fresh(cache / "apt" / "lists"):
        say("Debian sources: updating the list")
        _run([apt, *options, "update"], cache)  # some archives carry no sources: the downloads will tell
    reasons = {}
    incoming = cache / "apt" / "incoming"  # the cache itself only ever holds whole archives
    incoming.mkdir(exist_ok=True)
    for name in names:
        say(f"Debian sources: fetching {name}")
        if problem := _run([apt, *options, "source", "--download-only", name], incoming):
            reasons[name] = problem
        elif archive := find_upstream_archive(incoming, name):
            if packaging := find_packaging(archive, name):
                _move_whole(packaging, cache)
            _move_whole(archive, cache)
    return reasons


def _move_whole(archive: Path, cache: Path) -> None:
    whole = archive.with_name(f".{archive.name}")
    shutil.copy2(archive, whole)  # of a local repository APT only makes a link
    archive.unlink()
    whole.replace(cache / archive.name)


def _is_fresh(lists: Path) -> bool:
    newest = max((path.stat().st_ctime for path in lists.glob("*Sources*")), default=0.0)
    return time.time() - newest < _LIST_LIFE_SECONDS


def _run(command: Sequence[str], directory: Path) -> str:
    """Run APT; returns the last error line, or "" if it went well."""
    try:
        result = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, errors="replace",
            timeout=_APT_TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"apt-get took more than {_APT_TIMEOUT_SECONDS} seconds"
    errors = [line[3:] for line in result.stderr.splitlines() if line.startswith("E: ")]
    return "" if result.returncode == 0 else " ".join(errors) or f"apt-get ended with {result.returncode}"


def _private_apt(directory: Path, entries: str) -> list[str]:
    """Write the derived entries; returns the options that keep APT inside `directory`."""
    for name in ("lists/partial", "cache/archives/partial", "sources"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "sources" / "derived.sources").write_text(entries, encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": directory / "sources",
        "Dir::State::Lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "APT::Sandbox::User": "root",  # an unprivileged download user could not write here
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def source_entries(apt: Path) -> str:
    """The machine's package archives as deb822 `deb-src` stanzas, from one-line and deb822 files alike."""
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    stanzas: list[str] = []
    for file in files:
        if file.is_file() and file.suffix in {".list", ".sources"}:
            text = file.read_text(encoding="utf-8", errors="replace")
            stanzas += _from_lines(text) if file.suffix == ".list" else _from_stanzas(text)
    return "\n".join(dict.fromkeys(stanzas))


def _from_lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if match := _ONE_LINE.match(line.partition("#")[0].strip()):
            options, uri, suite, components = match.groups()
            fields = {"URIs": uri, "Suites": suite, "Components": components}
            pairs = (option.partition("=") for option in (options or "").split())
            fields |= {_OPTION_FIELDS[key]: value for key, _, value in pairs if key in _OPTION_FIELDS}
            yield _stanza(fields)


def _from_stanzas(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        fields = _parse_stanza(block)
        types = fields.get("types", "").split()
        if {"deb", "deb-src"}.intersection(types) and fields.get("enabled", "yes").strip().lower() != "no":
            yield _stanza({key: fields[key] for key in _KEPT_FIELDS if key in fields})


def _parse_stanza(block: str) -> dict[str, str]:
    """The fields of one deb822 stanza by lower-case name; continuation lines (keys in armour) are kept."""
    fields: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _stanza(fields: dict[str, str]) -> str:
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\n".join(["Types: deb-src", *lines, ""])
