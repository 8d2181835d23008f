"""Which licence a notice or a licence text is, by its key phrases."""

from __future__ import annotations

import re
from collections.abc import Iterator

PUBLIC_DOMAIN = "LicenseRef-scancode-public-domain"
US_WORK = "LicenseRef-scancode-us-govt-public-domain"
NON_COMMERCIAL = "LicenseRef-NonCommercial"
PROPRIETARY = "LicenseRef-scancode-proprietary-license"
NVIDIA = "LicenseRef-NvidiaProprietary"
LANL = "LicenseRef-LANL-Notice"

_COMMENT_MARKS = re.compile(
    rb"^[ \t]*(?:/?\*+/?|//+!?|!+|#+|[cC](?=\s)|;+|dnl\b|--|\|)?[ \t]*|[ \t]*(?:\*/|\|)[ \t]*$", re.MULTILINE
)
_QUOTES = re.compile(rb"\xe2\x80[\x98-\x9f]|``|''|[`\"\x91-\x94]")
_LINE_ENDS = re.compile(rb"\r\n?")
_HINTS = (
    b"license", b"licence", b"redistribut", b"permission", b"public domain", b"public-domain", b"copyright",
    b"without an express", b"without charge", b"proprietary", b"commercial", b"academic",
)  # fmt: skip
_HINT_NAMES = re.compile(rb"\b(?:gpl|cecill)\b")


def match_notice(text: bytes) -> str:
    """The licence of a file or licence text, or "".

    Terms that keep the public out hold whatever else is said. Of several licences the first holds: what comes
    later belongs to bundled parts. That a work is in the public domain counts where no licence is given.
    """
    found = find_notices(text)
    restricted = [licence for licence in found if licence in (NVIDIA, NON_COMMERCIAL, PROPRIETARY)]
    return next(iter(restricted or found), "")


def find_notices(text: bytes) -> list[str]:
    """Every licence that a text holds or grants, in its order, each once; public domain comes last."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = text[: len(text) & ~1].decode("utf-16", "replace").encode()
    folded = text.lower()
    if not any(hint in folded for hint in _HINTS) and not _HINT_NAMES.search(folded):
        return []
    text = _QUOTES.sub(b"'", _LINE_ENDS.sub(b"\n", text))
    plain = b" ".join(_COMMENT_MARKS.sub(b"", text).split()).decode("latin-1").lower()
    licences = sorted(_matches(plain), key=lambda match: match[0])
    return list(dict.fromkeys([*(licence for _, licence in licences), *_public_domain(plain)]))


def _matches(plain: str) -> Iterator[tuple[int, str]]:
    """Where each licence begins, and which it is. `plain` is one line of lower-case words."""
    for licence, phrases in _PHRASES:
        if all(phrase in plain for phrase in phrases):
            yield plain.index(phrases[0]), licence
    for licence, words, pattern in _PATTERNS:
        if any(word in plain for word in words) and (match := pattern.search(plain)):
            yield match.start(), licence.format(*map(str.upper, match.groups()))
    yield from _bsd(plain)
    yield from _mit(plain)
    yield from _gnu(plain)
    if match := _DEBIAN_TEXT.search(plain):
        yield len(plain), _DEBIAN_TEXTS[match[1]]


# --- fixed phrases ----------------------------------------------------------------------------------------

_PHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (NVIDIA, ("nvidia", "without an express license agreement")),
    (NVIDIA, ("nvidia", "end user license agreement")),
    (NVIDIA, ("nvidia", "notice to licensee")),
    (PROPRIETARY, ("proprietary and confidential",)),
    (PROPRIETARY, ("confidential and proprietary",)),
    (PROPRIETARY, ("unauthorized copying of this file",)),
    (PROPRIETARY, ("no license under any patent, copyright, trade secret",)),
    ("Apache-2.0 WITH LLVM-exception", ("apache license", "llvm exceptions")),
    ("Apache-2.0", ("apache license version 2.0, january 2004",)),
    ("Apache-2.0", ("www.apache.org/licenses/license-2.0",)),
    ("BSL-1.0", ("boost software license", "version 1.0")),
    ("BSL-1.0", ("permission is hereby granted, free of charge, to any person or organization obtaining",)),
    ("MPL-2.0", ("mozilla public license, v. 2.0",)),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("MPL-1.1", ("mozilla public license version 1.1",)),
    ("Zlib", ("provided 'as-is', without any express or implied warranty", "altered source versions")),
    ("UPL-1.0", ("universal permissive license", "1.0")),
    ("Artistic-2.0", ("artistic license 2.0",)),
    ("OFL-1.1", ("open font license",)),
    ("NASA-1.3", ("nasa open source agreement version 1.3",)),
    ("FSFAP", ("copying and distribution of this file, with or without modification, are permitted",)),
    ("FSFULLR", ("gives unlimited permission to copy and/or distribute it, with or without modifications",)),
    ("FSFUL", ("gives unlimited permission to copy, distribute and modify",)),
    ("Unlicense", ("free and unencumbered software released into the public domain",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC0-1.0", ("creativecommons.org/publicdomain/zero/1.0",)),
    ("CC0-1.0", ("the laws of most jurisdictions throughout the world automatically confer",)),
    # Argonne: MPICH, and PETSc before it took BSD-2-Clause
    ("mpich2", ("use, reproduce, prepare derivative works, and to redistribute to others",)),
    (LANL, ("the public may copy, distribute, prepare derivative works and publicly display",)),
    ("NIST-PD-fallback", ("nist-developed software is provided by nist as a public service",)),
    ("NetCDF", ("unidata", "access and use of this software shall impose the following obligations")),
)

# --- licences with versions, and terms in many wordings ---------------------------------------------------

_VERSION = r"[, -]*(?:\(?\w*pl\)?[, -]*)?(?:version |v\.? ?)?(\d\.\d)"
_PURPOSES = r"(?:personal|academic|education(?:al)?|research|non-?commercial|non-?profit)"
_PATTERNS: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    (
        "Apache-2.0",
        ("apache",),
        re.compile(
            r"(?:under|of) (?:the )?(?:terms of the )?apache (?:software )?licen[sc]e,?"
            r"(?: \(?version| v\.?)? ?2\b(?!\.0 with llvm)"
        ),
    ),
    ("GFDL-{}-or-later", ("gnu free doc",), re.compile(rf"gnu free documentation licen[sc]e{_VERSION}")),
    ("EPL-{}", ("eclipse",), re.compile(rf"eclipse public licen[sc]e{_VERSION}")),
    (
        "CDDL-{}",
        ("common development",),
        re.compile(r"common development and distribution licen[sc]e[^.]{0,40}?(\d\.\d)"),
    ),
    ("EUPL-{}", ("european union",), re.compile(rf"european union public licen[cs]e{_VERSION}")),
    ("CECILL-{}", ("cecill",), re.compile(r"\bcecill-([bc])\b")),
    ("CECILL-{}", ("cecill",), re.compile(r"\bcecill free software license agreement version (\d\.\d)")),
    (
        "CECILL-2.0",
        ("cecill",),
        re.compile(r"\bcecill(?!-[bc]\b)[ -](?:free software )?licen[cs]e(?! agreement version)"),
    ),
    (
        "CC-{}-{}",
        ("creativecommons",),
        re.compile(r"creativecommons\.org/licenses/(by(?:-nc)?(?:-sa|-nd)?)/(\d\.\d)"),
    ),
    (
        "CC-BY-{}",
        ("creative commons",),
        re.compile(r"creative commons [^.]{0,40}?attribution (\d\.\d) (?:unported|international)"),
    ),
    (
        "CC-BY-SA-{}",
        ("creative commons",),
        re.compile(r"creative commons [^.]{0,40}?attribution-sharealike (\d\.\d) (?:unported|international)"),
    ),
    (
        "CC-BY-NC-4.0",
        ("creative commons",),
        re.compile(r"creative commons attribution[ -]non-?commercial"),
    ),
    (
        NON_COMMERCIAL,
        (" only", "free", "fee", "solely", "limited to", "restricted to", "commercial"),
        re.compile(
            r"\b(?:only|solely|limited to|restricted to|free(?: of charge)?)\b[a-z, ]{0,20}"
            rf"\bfor (?:your |any )?{_PURPOSES}\b[a-z, /-]{{0,60}}\b(?:use|purposes?|research|institutions)\b"
            r"|\b(?:licen[sc]|permi|cop[iy]|distribut|used|free|provided|granted)[a-z]*[^.;]{0,60}"
            rf"\bfor {_PURPOSES}[a-z, /-]{{0,60}}\b(?:use|purposes?) only"
            rf"|\bfor {_PURPOSES}[a-z, /-]{{0,60}} purposes?,? without fee"
            r"|\bnot (?:be )?(?:used|sold|distributed) (?:for|in) (?:any )?commercial"
        ),
    ),
)
"""Licences with the words of which one must be there for the pattern to be worth a search."""

# --- families of licences ---------------------------------------------------------------------------------

_BSD = re.compile(
    r"redistributions? and use(?: of this (?:software|work))?,? (?:in|of) source (?:and|or) binary"
)
_BSD_ENDORSE = re.compile(
    r"(?:endorse|promote)(?: or |/)(?:promote|endorse)|used (?:to|in) (?:endorse|promot|advertis)"
)
_BSD_VARIANTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Sleepycat", ("information on how to obtain complete source code",)),
    ("BSD-4-Clause-UC", ("all advertising materials mentioning", "university of california, berkeley")),
    ("BSD-4-Clause", ("all advertising materials mentioning",)),
    ("HDF5", ("for any purpose (including commercial purposes)", "neither the name of the hdf group")),
    # Berkeley Lab asks that enhancements may flow back
    ("BSD-3-Clause-LBNL", ("enhancements", "features, functionality or performance of the source code")),
    ("BSD-3-Clause-No-Nuclear-License", ("not designed, licensed or intended", "nuclear facility")),
    ("BSD-3-Clause-No-Nuclear-Warranty", ("not designed or intended", "nuclear facility")),
    ("BSD-3-Clause-Clear", ("no express or implied licenses to any party's patent rights",)),
    # LAPACK's and Open MPI's paragraph on the rights of third parties
    ("BSD-3-Clause-Open-MPI", ("no reassurances that the source code provided does not infringe",)),
    ("BSD-2-Clause-Patent", ("each copyright holder and contributor hereby grants",)),
)


def _bsd(plain: str) -> Iterator[tuple[int, str]]:
    """The BSD licences, those of the national laboratories among them."""
    if match := _BSD.search(plain):
        own = plain[match.start() :]
        for licence, phrases in _BSD_VARIANTS:
            if all(phrase in own for phrase in phrases):
                yield match.start(), licence
                return
        yield match.start(), "BSD-3-Clause" if _BSD_ENDORSE.search(own) else "BSD-2-Clause"


_MIT = re.compile(
    r"permission is hereby granted, (?:free of charge|without written agreement)[^.]{0,40}to any person "
    r"obtaining a copy|\b(?:under|with|:) (?:the )?(?:terms of the )?'?mit'? licen[cs]e"
)
_ISC = re.compile(
    r"permission to use, copy, modify,? and(?:/or)? distribute this software "
    r"(for any purpose|and its documentation|is freely granted|is hereby granted)?"
)


def _mit(plain: str) -> Iterator[tuple[int, str]]:
    """MIT, ISC and their relatives."""
    if any(word in plain for word in ("mit", "to any person")) and (match := _MIT.search(plain)):
        if "deal with the software without restriction" in plain:
            yield match.start(), "NCSA"
        else:
            yield match.start(), "X11" if "except as contained in this notice, the name" in plain else "MIT"
    if match := _ISC.search(plain):
        terms = plain[match.start() : match.start() + 400]
        if "without fee" in terms or "freely granted" in terms or "without charge" in terms:
            if match[1] != "for any purpose":
                yield match.start(), "HPND"
            else:
                yield match.start(), "ISC" if "provided that" in terms else "0BSD"


_GNU_NAME = re.compile(
    r"(?:version (\d(?:\.\d)?) of the )?gnu (affero |lesser |library )?general public licen[sc]e"
    r"|\b(?:licen[sc]ed?|distributed|released|available|covered|terms)\b[^.;]{0,60}?\b(a|l)?gpl(?=\b|v?\d)"
)
_GNU_VERSION = re.compile(r"(?:version|v\.?|gpl-?) ?([123](?:\.[01])?)")
_LATER = re.compile(r"(?:any |or )later|\d\+")


def _gnu(plain: str) -> Iterator[tuple[int, str]]:
    """GPL, LGPL and AGPL by name and version.

    Without the words "any later version" the narrow reading is taken: a bare COPYING file does not say that
    later versions may be used. Without a version, any may be chosen.
    """
    if not any(word in plain for word in ("general public", "gpl")) or not (name := _GNU_NAME.search(plain)):
        return
    before, long_kind, short_kind = name.groups()
    kind = short_kind or {None: "", "affero ": "a"}.get(long_kind, "l")
    version = _GNU_VERSION.search(plain, max(0, name.end() - 4), name.end() + 200)
    end = version.end() if version else name.end()
    if not (number := before or (version[1] if version else "")):
        yield name.start(), {"": "GPL-1.0-or-later", "l": "LGPL-2.0-or-later"}.get(kind, "AGPL-3.0-or-later")
        return
    number = number if "." in number else number + ".0"
    scope = "or-later" if _LATER.search(plain, max(0, name.start() - 100), end + 100) else "only"
    exception = " WITH GCC-exception-3.1" if "gcc runtime library exception" in plain else ""
    yield name.start(), f"{kind.upper()}GPL-{number}-{scope}{exception}"


_DEBIAN_TEXTS = {
    "apache-2.0": "Apache-2.0", "artistic": "Artistic-1.0-Perl", "bsd": "BSD-3-Clause", "cc0-1.0": "CC0-1.0",
    "gpl-1": "GPL-1.0-or-later", "gpl-2": "GPL-2.0-only", "gpl-3": "GPL-3.0-only",
    "lgpl-2": "LGPL-2.0-only", "lgpl-2.1": "LGPL-2.1-only", "lgpl-3": "LGPL-3.0-only",
    "mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0",
}  # fmt: skip
_DEBIAN_TEXT = re.compile(
    rf"/usr/share/common-licenses/({'|'.join(map(re.escape, sorted(_DEBIAN_TEXTS, reverse=True)))})\b"
)

# --- public domain ----------------------------------------------------------------------------------------

_US_WORK = re.compile(
    r"title 17,? (?:of the )?(?:united states code,? |u\.?s\.? code,? |u\.?s\.?c\.?,? )?section 105"
    r"|section 105 of (?:the )?title 17|17 ?u\.? ?s\.? ?c\.?[^0-9;]{0,12}105"
    r"|works? of the (?:u\.s\.|us|united states) government|'united states government work'"
    r"|not subject to (?:u\.?s\.? |united states )?copyright"
)
_GIVEN = re.compile(
    r"\b(?:this|these|the following|all|the) (?:\w+ ){0,4}?(?:is|are|has been|have been|was|were)"
    r"(?: hereby| all)? (?:\w+ ){0,5}?(?:in|into|to|under|as) (?:the )?public[- ]domain"
    r"|\b(?:place|release|dedicate|donate|put)[sd]?\b[^.;]{0,80}\b(?:in|into|to) (?:the )?public[- ]domain"
    r"|\b(?:this|it|code|file|software|routine|package)(?: file| code| software)? is (?:a )?public[- ]domain"
    r"|^public[- ]domain\b|\blicen[sc]e:? public[- ]domain|(?:^|[.:] )public[- ]domain\.?(?:$| no | code)"
)
_DENIED = re.compile(r"\b(?:not|never|neither|nor)\b[^.;]{0,40}public[- ]domain")


def _public_domain(plain: str) -> Iterator[str]:
    """Works of the United States' government, and what its authors gave to the public domain."""
    if any(word in plain for word in ("105", "government", "not subject")) and _US_WORK.search(plain):
        yield "NIST-PD" if "national institute of standards" in plain else US_WORK
    elif "public" in plain and (match := _GIVEN.search(plain)) and not _DENIED.search(match[0]):
        yield PUBLIC_DOMAIN
