"""What LICENSE, COPYING and debian/copyright files say of the files around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from hpctrain.corpus.dep5 import FilePatterns, is_machine_readable, read_copyright
from hpctrain.corpus.licences import LicenceReader, combine
from hpctrain.corpus.notices import find_notices

COPYRIGHT_PATH = "debian/copyright"
_PACKAGING = {"debian", ".reuse"}
"""Directories whose copyright files speak of the directory above them."""
_SIDECAR = ".license"


def read_statement(path: str, content: bytes, reader: LicenceReader) -> str:
    """What a licence file says, for `Surroundings`: an SPDX expression, or "" if it is not understood.

    A machine-readable copyright file gives a line for each of its patterns: licence, tab, pattern.
    """
    text = content.decode("utf-8", "replace")
    if is_machine_readable(text):
        pairs = read_copyright(text, reader)
        return "\n".join(f"{licence}\t{pattern}" for pattern, licence in pairs)
    if path == COPYRIGHT_PATH or path.endswith(f"/{COPYRIGHT_PATH}"):
        return combine(find_notices(content))  # no telling which of them holds for which file
    return reader.of_source(content)


class Surroundings:
    """Looks up what the licence files of a source say of a path; the nearest file that says something holds.

    Memory: the statements.
    """

    def __init__(self, statements: Iterable[tuple[str, str]]) -> None:
        """Pairs of a licence file's path and its statement, as from `read_statement`."""
        texts: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        self._patterns: defaultdict[str, FilePatterns] = defaultdict(FilePatterns)
        for path, statement in statements:
            directory, _, name = path.rpartition("/")
            parent, _, last = directory.rpartition("/")
            scope = parent if last in _PACKAGING else directory
            if "\t" in statement:
                for line in statement.split("\n"):
                    licence, _, pattern = line.partition("\t")
                    self._patterns[scope].add(pattern, licence)
            elif name.endswith(_SIDECAR) and name != _SIDECAR:
                self._patterns[directory].add(_literal(name.removesuffix(_SIDECAR)), statement)
            elif statement:
                texts[scope].append((name, statement))
        self._texts = {directory: _combined(found) for directory, found in texts.items()}
        self._by_directory: dict[str, str] = {}

    def licence_of(self, path: str) -> str:
        """An SPDX expression, or ""."""
        directory = path.rpartition("/")[0]
        if not self._patterns:
            if directory not in self._by_directory:
                self._by_directory[directory] = self._search(path)
            return self._by_directory[directory]
        return self._search(path)

    def _search(self, path: str) -> str:
        for parent in PurePosixPath(path).parents:
            directory = "" if str(parent) == "." else str(parent)
            if directory in self._patterns:
                inside = path[len(directory) + 1 :] if directory else path
                if licence := self._patterns[directory].licence_of(inside):
                    return licence
            if licence := self._texts.get(directory, ""):
                return licence
        return ""


def _literal(name: str) -> str:
    """A file name as a pattern that matches nothing else."""
    return "".join(f"\\{char}" if char in "*?\\" else char for char in name)


def _combined(found: list[tuple[str, str]]) -> str:
    """The licence files of one directory all bind; but an LGPL comes with the GPL that it refers to, and the
    texts of alternatives stand beside the file that offers them."""
    licences = {licence for _, licence in found}
    if any(licence.startswith("LGPL-") for licence in licences):
        licences = {licence for licence in licences if not licence.startswith("GPL-")}
    for choice in [licence for licence in licences if " OR " in licence and " AND " not in licence]:
        licences -= set(choice.split(" OR "))
    return combine(licences)
