"""Debian's machine-readable copyright files (DEP-5): which files of a package are under which licence.

The format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from hpctrain.corpus.licences import LicenceReader
from hpctrain.corpus.notices import PUBLIC_DOMAIN

MAX_PATTERNS = 100_000
_FORMAT = re.compile(
    r"\s*Format(-Specification)?:\s*\S*(copyright-format|dep\.debian\.net|svn\.debian\.org)", re.I
)
_FIELD = re.compile(r"([A-Za-z][A-Za-z-]*):[ \t]*(.*)")
_WILDCARD = re.compile(r"[*?\\]")


def is_machine_readable(text: str) -> bool:
    """True if a copyright file says that it is in this format."""
    return _FORMAT.match(text.lstrip("\ufeff")) is not None


def read_copyright(text: str, reader: LicenceReader) -> list[tuple[str, str]]:
    """Pairs of file pattern and SPDX expression ("" if not known), in the order of the file: the last that
    matches a path holds."""
    stanzas = list(_stanzas(text))
    texts: dict[str, str] = {}
    for stanza in stanzas:
        name, _, words = stanza.get("license", "").partition("\n")
        if words.strip():
            texts.setdefault(" ".join(name.lower().split()), words)
    names = _Names(reader, texts)
    pairs: list[tuple[str, str]] = []
    for stanza in stanzas:
        if patterns := stanza.get("files", "").split():
            name, _, words = stanza.get("license", "").partition("\n")
            licence = names.expression(name, words)
            pairs += [(pattern, licence) for pattern in patterns[: MAX_PATTERNS - len(pairs)]]
    return pairs


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs as fields by lower-case name; continuation lines are kept, ` .` is an empty line."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.lstrip("\ufeff").splitlines(), ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + ("" if line.strip() == "." else line.strip())
        elif match := _FIELD.match(line):
            name = match[1].lower()
            fields[name] = match[2].strip()
    # a file may lack its last line end: the empty line added above closes the last paragraph


# --- licence names ----------------------------------------------------------------------------------------

_NAMES = {
    "expat": "MIT", "mit/x11": "MIT", "apache-2": "Apache-2.0", "apache2": "Apache-2.0",
    "apache-2-llvm-exceptions": "Apache-2.0 WITH LLVM-exception", "artistic": "Artistic-1.0-Perl",
    "artistic-1": "Artistic-1.0-Perl", "artistic-2": "Artistic-2.0",
    "perl": "GPL-1.0-or-later OR Artistic-1.0-Perl", "python-2": "Python-2.0", "psf-2": "PSF-2.0",
    "bsd-2": "BSD-2-Clause", "bsd-3": "BSD-3-Clause", "bsd-4": "BSD-4-Clause", "boost-1.0": "BSL-1.0",
    "cc0": "CC0-1.0", "mpl-2": "MPL-2.0", "cc-by-3": "CC-BY-3.0", "cc-by-4": "CC-BY-4.0",
    "zlib/libpng": "Zlib", "openldap-2.8": "OLDAP-2.8", "fsf-all-permissive": "FSFAP",
    "gnu-all-permissive-license": "FSFAP", "fsf-unlimited": "FSFUL", "public-domain": PUBLIC_DOMAIN,
    "public domain": PUBLIC_DOMAIN, "pd": PUBLIC_DOMAIN, "cecill-b": "CECILL-B", "cecill-c": "CECILL-C",
}  # fmt: skip
_AMBIGUOUS = {"bsd", "mit", "x11", "python", "apache", "bsl", "mpl", "cecill", "other", "custom"}
_GNU = re.compile(r"(l|a)?gpl[- ]?(?:v\.? ?)?(?:(\d)(?:\.(\d))?(?:\.\d)?)?(\+|-or-later|-only)?")
_GFDL = re.compile(r"gfdl(-niv)?-?(1\.\d)(\+|-or-later|-only)?")
_BSD = re.compile(r"bsd[-_ ]?([234])(?:[-_ ]clause)?(?![0-9])")
_WITH = re.compile(r"(.+?)[\s_-]+with[\s_-]+(?:the[\s_-]+)?([^\W_]+).*", re.IGNORECASE | re.DOTALL)
_EXCEPTIONS = {
    "gcc": "GCC-exception-3.1", "font": "Font-exception-2.0", "classpath": "Classpath-exception-2.0",
    "bison": "Bison-exception-2.2", "libtool": "Libtool-exception", "llvm": "LLVM-exception",
    "linux": "Linux-syscall-note",
}  # fmt: skip
_OPERATORS = (
    ("OR", re.compile(r"\s*,\s*or\s+", re.IGNORECASE)),
    ("AND", re.compile(r"\s*,\s*and\s+", re.IGNORECASE)),
    ("OR", re.compile(r"\s+(?:and/)?or\s+|_or_|\s*\|\s*", re.IGNORECASE)),
    ("AND", re.compile(r"\s+and\s+|_and_|\s*[,&]\s*", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class _Names:
    """Reads short names of licences, with the texts that the file gives for them."""

    reader: LicenceReader
    texts: Mapping[str, str]

    def expression(self, name: str, words: str) -> str:
        """The SPDX expression of a License field, or "" where a part that binds is not known.

        `and` binds closer than `or`, and a comma before either makes it bind less. Of alternatives the known
        ones stay. A name that says nothing is known by its words.
        """
        for operator, pattern in _OPERATORS:
            parts = [part for part in pattern.split(name.strip()) if part]
            if len(parts) > 1:
                licences = [self.expression(part, "") for part in parts]
                if operator == "AND" and not all(licences):
                    return ""
                return self.reader.parse(f" {operator} ".join(f"({text})" for text in licences if text))
        return self._single(name.strip(" .,;"), words)

    def _single(self, name: str, words: str) -> str:
        key = " ".join(name.lower().split())
        words = words if words.strip() else self.texts.get(key, "")
        if match := _WITH.fullmatch(name):
            base = self._single(match[1], words)
            exception = _EXCEPTIONS.get(match[2].lower(), "")
            # an exception that is not known only grants more
            return self.reader.parse(f"{base} WITH {exception}") or base if base else ""
        if key in _AMBIGUOUS:
            return self.reader.of_text(words) or {"mit": "MIT", "x11": "X11"}.get(key, "")
        known = _NAMES.get(key) or _gnu(key) or self.reader.parse(name) or self.reader.of_text(words)
        bsd = _BSD.match(key)
        return known or (f"BSD-{bsd[1]}-Clause" if bsd else "")


def _gnu(key: str) -> str:
    """GPL-2+, LGPLv2.1 and their like; without a number, any version may be chosen."""
    if match := _GFDL.fullmatch(key):
        scope = "only" if match[3] in (None, "-only") else "or-later"
        return f"GFDL-{match[2]}-{'no-invariants-' if match[1] else ''}{scope}"
    if not (match := _GNU.fullmatch(key)):
        return ""
    kind, major, minor, scope = match.groups()
    if major is None:
        return {None: "GPL-1.0-or-later", "l": "LGPL-2.0-or-later"}.get(kind, "AGPL-3.0-or-later")
    later = "only" if scope in (None, "-only") else "or-later"
    return f"{(kind or '').upper()}GPL-{major}.{minor or 0}-{later}"


# --- files ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class FilePatterns:
    """Looks up a path among patterns, of which the last that matches holds; most need no search."""

    _exact: dict[str, int] = field(default_factory=dict)
    _below: dict[str, int] = field(default_factory=dict)
    _general: list[tuple[int, str]] = field(default_factory=list)
    _licences: list[str] = field(default_factory=list)

    def add(self, pattern: str, licence: str) -> None:
        """Append a pattern: `*` also matches `/`, `?` one character, a backslash takes the meaning away."""
        number = len(self._licences)
        self._licences.append(licence)
        pattern = pattern.removeprefix("./").removeprefix("/")
        if pattern.endswith("/"):
            pattern += "*"
        directory = pattern.removesuffix("*").removesuffix("/")
        if pattern == "*" or (pattern.endswith("/*") and not _WILDCARD.search(directory)):
            self._below[directory] = number
        elif not _WILDCARD.search(pattern):
            self._exact[pattern] = number
            self._below[pattern] = number  # some write a directory like a file
        else:
            self._general.append((number, _to_fnmatch(pattern)))

    def licence_of(self, path: str) -> str | None:
        """The licence of the last pattern that matches, or None."""
        parents = [str(parent) for parent in PurePosixPath(path).parents]
        found = [self._exact.get(path, -1)]
        found += [self._below.get("" if parent == "." else parent, -1) for parent in parents]
        best = max(found)
        for number, pattern in reversed(self._general):
            if number < best:
                break
            if fnmatchcase(path, pattern):
                best = number
                break
        return self._licences[best] if best >= 0 else None


def _to_fnmatch(pattern: str) -> str:
    """In fnmatch brackets mean something, here they do not; a backslash means something here."""
    pattern = pattern.replace("[", "[[]")
    return re.sub(r"\\(.)", lambda match: f"[{match[1]}]" if match[1] != "\\" else "\\", pattern)
