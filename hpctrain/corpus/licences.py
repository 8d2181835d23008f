"""Under which licence a file may be used: its own SPDX tag, its own notice, or what its surroundings say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from license_expression import (
    ExpressionError,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    get_spdx_licensing,
)
from pydantic import field_validator

from hpctrain.config import Section

_HEAD_BYTES = 1 << 13
_UNPARSABLE = (
    ExpressionError,
    IndexError,
    AssertionError,
)  # the library's parser trips over `( )` and `( AND`


class LicencePolicy(Section):
    """Which licences a corpus accepts."""

    allow: Literal["any"] | list[str] = "any"
    """SPDX identifiers that are accepted, or `any`. Of `A OR B` one has to be accepted, of `A AND B` both;
    `A WITH exception` is accepted with `A`, since exceptions only grant more."""
    unknown: Literal["keep", "drop"] = "drop"
    """What becomes of files for which no licence is found."""

    @field_validator("allow")
    @classmethod
    def _check_identifiers(cls, allow: str | list[str]) -> str | list[str]:
        if isinstance(allow, list):
            reader = LicenceReader()
            if wrong := [text for text in allow if not reader.parse(text)]:
                raise ValueError(f"not SPDX licence identifiers: {', '.join(wrong)}")
            return [reader.parse(text) for text in allow]
        return allow


class LicenceReader:
    """Finds licences in source files and licence texts, as normalised SPDX expressions."""

    _TAG = re.compile(rb"SPDX-License-Identifier:[ \t]*([^\r\n]+)")
    _AFTER_TAG = re.compile(r"(\*/|\*\)|-->|\"|'|\\n|;|,|\s--\s).*$")

    def __init__(self) -> None:
        self._licensing = get_spdx_licensing()
        self._parsed: dict[str, str] = {}

    def parse(self, text: str) -> str:
        """A normalised SPDX expression (deprecated identifiers renewed), or "" if `text` is none."""
        if text not in self._parsed:
            self._parsed[text] = self._render(text)
        return self._parsed[text]

    def of_source(self, content: bytes) -> str:
        """The licence that a file states in its first lines, by tag, notice or full text, or ""."""
        head = content[:_HEAD_BYTES]
        for tag in self._TAG.findall(head):
            text = self._AFTER_TAG.sub("", tag.decode("utf-8", "replace")).strip(" \t*/#!-")
            if licence := self.parse(text):
                return licence
        return match_notice(head)

    def accepts(self, licence: str, policy: LicencePolicy) -> bool:
        """True if the policy lets files of this licence ("" for unknown) in."""
        if not licence:
            return policy.unknown == "keep"
        if policy.allow == "any":
            return True
        return self._accepts(self._licensing.parse(licence), set(policy.allow))

    def _render(self, text: str) -> str:
        try:
            expression = self._licensing.parse(text, validate=False, strict=True)
        except _UNPARSABLE:
            return ""
        if expression is None:
            return ""
        unknown = self._licensing.unknown_license_keys(expression)
        return "" if any(not key.startswith("LicenseRef-") for key in unknown) else str(expression)

    def _accepts(self, expression: Any, allowed: set[str]) -> bool:
        if isinstance(expression, LicenseWithExceptionSymbol):
            return str(expression) in allowed or expression.license_symbol.key in allowed
        if isinstance(expression, LicenseSymbol):
            return expression.key in allowed
        verdicts = [self._accepts(part, allowed) for part in expression.args]
        return any(verdicts) if isinstance(expression, self._licensing.OR) else all(verdicts)


_COMMENT_MARKS = re.compile(rb"^[ \t]*(?:/?\*+/?|//+!?|!+|#+|[cC](?=\s)|;+|dnl\b|--)?[ \t]*", re.MULTILINE)
_NOTICE_HINT = re.compile(rb"(?i)licen[sc]e|redistribut|permission|public domain|without an express")


def match_notice(text: bytes) -> str:
    """The licence whose key phrases come first in a notice or licence text, or ""."""
    if not _NOTICE_HINT.search(text):
        return ""
    plain = b" ".join(_COMMENT_MARKS.sub(b"", text).split()).decode("latin-1").lower()
    found = [
        (plain.index(phrases[0]), licence)
        for licence, phrases in _PHRASES
        if all(phrase in plain for phrase in phrases)
    ]
    for start, licence in (_match_bsd(plain), _match_gnu(plain)):
        if licence:
            found.append((start, licence))
    return min(found, key=lambda match: match[0], default=(0, ""))[1]


_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("LicenseRef-NvidiaProprietary", ("nvidia", "without an express license agreement")),
    ("LicenseRef-NvidiaProprietary", ("nvidia", "end user license agreement")),
    ("LicenseRef-NvidiaProprietary", ("nvidia", "notice to licensee")),
    ("Apache-2.0 WITH LLVM-exception", ("apache license", "llvm exceptions")),
    ("Apache-2.0", ("licensed under the apache license, version 2.0",)),
    ("Apache-2.0", ("apache license version 2.0, january 2004",)),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("MPL-2.0", ("mozilla public license, v. 2.0",)),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("MIT", ("permission is hereby granted, free of charge, to any person obtaining a copy",)),
    ("MIT", ("under the mit license",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software", "with or without fee")),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software", "with or without fee")),
    ("Zlib", ("provided 'as-is', without any express or implied warranty", "altered source versions")),
)


def _match_bsd(plain: str) -> tuple[int, str]:
    """Where a BSD licence begins, and which it is."""
    start = plain.find("redistribution and use in source and binary forms")
    if start < 0:
        return 0, ""
    if "all advertising materials mentioning" in plain:
        return start, "BSD-4-Clause"
    return start, "BSD-3-Clause" if "endorse or promote products" in plain else "BSD-2-Clause"


_GNU_NAME = re.compile(r"gnu (affero |lesser |library )?general public licen[sc]e")
_GNU_VERSION = re.compile(r"(?:version|v) ?([123](?:\.[01])?)")


def _match_gnu(plain: str) -> tuple[int, str]:
    """Where GPL, LGPL or AGPL is named, and in which version.

    Without the words "any later version" the narrow reading is taken: a bare COPYING file does not say that
    later versions may be used.
    """
    if (name := _GNU_NAME.search(plain)) is None:
        return 0, ""
    if (version := _GNU_VERSION.search(plain, name.end(), name.end() + 200)) is None:
        return 0, ""
    kind = {None: "GPL", "affero ": "AGPL"}.get(name[1], "LGPL")
    number = version[1] if "." in version[1] else version[1] + ".0"
    notice = plain[max(0, name.start() - 100) : version.end() + 100]
    scope = "or-later" if "any later version" in notice else "only"
    exception = " WITH GCC-exception-3.1" if "gcc runtime library exception" in plain else ""
    return name.start(), f"{kind}-{number}-{scope}{exception}"


_LICENCE_FILE = re.compile(r"(?i)(licen[sc]e|copying|copyright)([._-].*)?$")
_NOT_TEXT = {".py", ".c", ".h", ".cpp", ".js", ".in", ".html"}


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
