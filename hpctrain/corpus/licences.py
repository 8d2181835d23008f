"""Under which licence a file may be used: its own SPDX tag, its own notice, or what its surroundings say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import license_expression
from license_expression import (
    ExpressionError,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    get_spdx_licensing,
)
from pydantic import field_validator

from hpctrain.config import Section
from hpctrain.corpus.notices import LANL, NON_COMMERCIAL, NVIDIA, match_notice

LICENCE_CLASSES = (
    "public-domain", "permissive", "weak-copyleft", "strong-copyleft", "restricted", "unknown",
)  # fmt: skip
"""From what asks least to what asks most. `restricted`: not for everybody, or not for every use. `unknown`:
no licence was found, or it is one that only its authors know."""
_HEAD_BYTES = 1 << 13
_TAIL_BYTES = 1 << 12
_UNPARSABLE = (
    ExpressionError,
    IndexError,
    AssertionError,
)  # the library's parser trips over `( )` and `( AND`


class LicencePolicy(Section):
    """Which licences a corpus accepts."""

    allow: Literal["any"] | list[str] = "any"
    """Classes (permissive, public-domain, weak-copyleft, strong-copyleft) and SPDX identifiers that are
    accepted, or `any`. Of `A OR B` one has to be accepted, of `A AND B` both; `A WITH exception` is accepted
    with `A`, since exceptions only grant more."""
    deny: list[str] = []
    """Classes and SPDX identifiers that are left out all the same."""
    unknown: Literal["keep", "drop"] = "drop"
    """What becomes of files for which no licence is found."""

    @field_validator("allow", "deny")
    @classmethod
    def _check_identifiers(cls, names: str | list[str]) -> str | list[str]:
        if not isinstance(names, list):
            return names
        reader = LicenceReader()
        if wrong := [text for text in names if text not in _POLICY_CLASSES and not reader.parse(text)]:
            raise ValueError(
                f"neither SPDX licence identifiers nor classes: {', '.join(wrong)}; "
                f"classes are {', '.join(_POLICY_CLASSES)}"
            )
        return [text if text in _POLICY_CLASSES else reader.parse(text) for text in names]


_POLICY_CLASSES = LICENCE_CLASSES[:-1]


class LicenceReader:
    """Finds licences in source files and licence texts, as normalised SPDX expressions."""

    _TAG = re.compile(rb"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
    _AFTER_TAG = re.compile(r"(\*/|\*\)|-->|\"|'|\\n|;|,|\s--\s).*$")

    def __init__(self) -> None:
        self._licensing = get_spdx_licensing()
        self._classes = _read_classes()
        self._parsed: dict[str, str] = {}

    def parse(self, text: str) -> str:
        """A normalised SPDX expression (deprecated identifiers renewed), or "" if `text` is none."""
        if len(text) > _MAX_EXPRESSION:
            return ""
        if text not in self._parsed:
            if len(self._parsed) >= _MAX_REMEMBERED:
                self._parsed.clear()
            self._parsed[text] = self._render(text)
        return self._parsed[text]

    def of_source(self, content: bytes) -> str:
        """The licence that a file states in its first lines, or else in its last, by tag, notice or full
        text, or ""."""
        head, tail = content[:_HEAD_BYTES], content[max(_HEAD_BYTES, len(content) - _TAIL_BYTES) :]
        return self._of_part(head) or self._of_part(tail)

    def of_text(self, text: str) -> str:
        """The licence that some words are, or ""."""
        return match_notice(text.encode())

    def class_of(self, licence: str) -> str:
        """One of LICENCE_CLASSES: of alternatives the one that asks least, of what binds together the one
        that asks most."""
        return self._class_of(self._licensing.parse(licence)) if licence else "unknown"

    def accepts(self, licence: str, policy: LicencePolicy) -> bool:
        """True if the policy lets files of this licence ("" for unknown) in."""
        if not licence:
            return policy.unknown == "keep"
        return self._accepts(self._licensing.parse(licence), policy)

    def _of_part(self, part: bytes) -> str:
        for tag in self._TAG.findall(part):
            text = self._AFTER_TAG.sub("", tag.decode("utf-8", "replace")).strip(" \t*/#!-")
            if licence := self.parse(text):
                return licence
        return match_notice(part)

    def _render(self, text: str) -> str:
        try:
            expression = self._licensing.parse(text, validate=False, strict=True)
        except _UNPARSABLE:
            return ""
        if expression is None:
            return ""
        unknown = self._licensing.unknown_license_keys(expression)
        return "" if any(not key.startswith("LicenseRef-") for key in unknown) else str(expression)

    def _class_of(self, expression: Any) -> str:
        if isinstance(expression, LicenseWithExceptionSymbol):
            base = self._class_of(expression.license_symbol)
            # exceptions free what is linked with the work, not the work
            return "weak-copyleft" if base == "strong-copyleft" else base
        if isinstance(expression, LicenseSymbol):
            return self._classes.get(expression.key, "unknown")
        ranks = [LICENCE_CLASSES.index(self._class_of(part)) for part in expression.args]
        return LICENCE_CLASSES[min(ranks) if isinstance(expression, self._licensing.OR) else max(ranks)]

    def _accepts(self, expression: Any, policy: LicencePolicy) -> bool:
        if isinstance(expression, LicenseSymbol | LicenseWithExceptionSymbol):
            names = {str(expression), self._class_of(expression)}
            if isinstance(expression, LicenseWithExceptionSymbol):
                names.add(expression.license_symbol.key)
            return (policy.allow == "any" or not names.isdisjoint(policy.allow)) and names.isdisjoint(
                policy.deny
            )
        verdicts = [self._accepts(part, policy) for part in expression.args]
        return any(verdicts) if isinstance(expression, self._licensing.OR) else all(verdicts)


_MAX_EXPRESSION = 1000
_MAX_REMEMBERED = 10_000
_CATEGORIES = {
    "Permissive": "permissive", "Public Domain": "public-domain", "Copyleft Limited": "weak-copyleft",
    "Copyleft": "strong-copyleft", "Unstated License": "unknown",
}  # fmt: skip
_OWN_CLASSES = {
    NVIDIA: "restricted", NON_COMMERCIAL: "restricted", LANL: "permissive", "FSFUL": "permissive",
    # the library has CeCILL, which is a GPL, and CeCILL-C, which is an LGPL, the other way round
    **dict.fromkeys(("CECILL-1.0", "CECILL-1.1", "CECILL-2.0", "CECILL-2.1"), "strong-copyleft"),
    "CECILL-C": "weak-copyleft",
}  # fmt: skip


def _read_classes() -> dict[str, str]:
    """The class of each SPDX identifier, from the categories that come with license-expression."""
    index = Path(license_expression.__file__).parent / "data" / "scancode-licensedb-index.json"
    classes = {
        key: _CATEGORIES.get(record["category"], "restricted")
        for record in json.loads(index.read_text(encoding="utf-8"))
        for key in (record["spdx_license_key"], *record["other_spdx_license_keys"])
        if key
    }
    return classes | _OWN_CLASSES


_LICENCE_FILE = re.compile(r"(?i)((un)?licen[sc]e|copying|copyright)([._-].*)?$|dep5$|.+\.license$")
_NOT_TEXT = {".py", ".c", ".h", ".cpp", ".js", ".in", ".html", ".f", ".f90"}


def is_licence_file(path: str) -> bool:
    """True for LICENSE, COPYING.LIB, LICENSE-MIT.txt and their like."""
    name = PurePosixPath(path)
    return _LICENCE_FILE.match(name.name) is not None and name.suffix.lower() not in _NOT_TEXT


def combine(licences: Iterable[str]) -> str:
    """Several licence texts side by side, read conservatively: all of them bind."""
    distinct = sorted(set(filter(None, licences)))
    if len(distinct) == 1:
        return distinct[0]
    return " AND ".join(f"({text})" if " OR " in text else text for text in distinct)


def nearest(path: str, by_directory: Mapping[str, str]) -> str:
    """The licence of the closest directory above `path` that has one ("" for the root's key), or ""."""
    for parent in PurePosixPath(path).parents:
        key = "" if str(parent) == "." else str(parent)
        if by_directory.get(key):
            return by_directory[key]
    return ""
