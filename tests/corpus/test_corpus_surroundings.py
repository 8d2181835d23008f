"""What licence files say of the files around them: LICENSE, COPYING, and debian/copyright per file."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.dep5 import FilePatterns, is_machine_readable, read_copyright
from hpctrain.corpus.licences import LicenceReader
from hpctrain.corpus.surroundings import Surroundings, read_statement

READER = LicenceReader()
PUBLIC_DOMAIN = "LicenseRef-scancode-public-domain"
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: solver
Source: https://example.org

Files: *
Copyright: 1999 A. Author
License: GPL-2+

Files: src/blas/*
       src/lapack/d?gesv.f
Copyright: 1992-2010 The University of Tennessee
License: BSD-3-clause
 Redistribution and use in source and binary forms, with or without
 modification, are permitted provided that the following conditions are met:
 .
 some conditions

Files: src/old/timer.c
Copyright: none
License: public-domain

Files: src/lab/*
Copyright: 2001 A Laboratory
License: Lab-Terms

Files: debian/*
Copyright: 2020 A Packager
License: GPL-3+ or Expat, and Zlib

License: GPL-2+
 On Debian systems, see /usr/share/common-licenses/GPL-2.

License: Lab-Terms
 Permission is hereby granted, free of charge, to any person obtaining a copy
"""


def test_licence_of_each_file_by_the_last_pattern_that_matches() -> None:
    statement = read_statement("p/debian/copyright", COPYRIGHT.encode(), READER)
    surroundings = Surroundings([("p/debian/copyright", statement)])
    expected = {
        "p/main.c": "GPL-2.0-or-later",
        "p/src/blas/dgemm.f": "BSD-3-Clause",
        "p/src/blas/deep/x.f": "BSD-3-Clause",
        "p/src/blas.c": "GPL-2.0-or-later",
        "p/src/lapack/dzgesv.f": "BSD-3-Clause",
        "p/src/lapack/dgesv.f": "GPL-2.0-or-later",
        "p/src/old/timer.c": PUBLIC_DOMAIN,
        "p/src/lab/x.c": "MIT",
        "p/debian/rules": "(GPL-3.0-or-later OR MIT) AND Zlib",
        "q/main.c": "",
    }
    assert {path: surroundings.licence_of(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("LGPL", "LGPL-2.0-or-later"),
        ("AGPL-3", "AGPL-3.0-only"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("BSD3_DEShaw", "BSD-3-Clause"),
        ("Apache-2", "Apache-2.0"),
        ("CC0-1.0", "CC0-1.0"),
        ("ZLIB", "Zlib"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0-Perl"),
        ("LGPLv3+_or_GPLv2+", "LGPL-3.0-or-later OR GPL-2.0-or-later"),
        ("GPL-2+ and Expat", "GPL-2.0-or-later AND MIT"),
        ("GPL-2+ or Expat and Zlib", "GPL-2.0-or-later OR (MIT AND Zlib)"),
        ("GPL-2+ with OpenSSL exception", "GPL-2.0-or-later"),
        ("GPL-3+ with GCC runtime exception", "GPL-3.0-or-later WITH GCC-exception-3.1"),
        ("Apache-2.0 with LLVM exception", "Apache-2.0 WITH LLVM-exception"),
        ("Nobody-Knows", ""),
        ("Nobody-Knows and Expat", ""),
        ("Nobody-Knows or Expat", "MIT"),
        ("BSD", ""),
        ("", ""),
    ],
)
def test_short_names(name: str, licence: str) -> None:
    text = f"{COPYRIGHT.splitlines()[0]}\n\nFiles: *\nLicense: {name}\n"
    assert read_copyright(text, READER) == [("*", licence)]


def test_copyright_file_in_prose_binds_by_all_it_names() -> None:
    text = (
        b"This package is under the MIT license. Parts are under the GNU General Public License, version 2."
    )
    assert not is_machine_readable(text.decode())
    assert read_statement("debian/copyright", text, READER) == "GPL-2.0-only AND MIT"


def test_nearest_file_wins_and_those_of_one_directory_all_bind() -> None:
    surroundings = Surroundings(
        [
            ("LICENSE", "MIT"),
            ("ext/LICENSE", "BSD-3-Clause"),
            ("ext/LICENSE-APACHE", "Apache-2.0"),
            ("ext/silent/COPYING", ""),
            ("choice/COPYRIGHT", "Apache-2.0 OR MIT"),
            ("choice/LICENSE-APACHE", "Apache-2.0"),
            ("choice/LICENSE-MIT", "MIT"),
            ("lesser/COPYING", "GPL-3.0-only"),
            ("lesser/COPYING.LESSER", "LGPL-3.0-only"),
        ]
    )
    assert surroundings.licence_of("a.c") == "MIT"
    assert surroundings.licence_of("ext/a.c") == "Apache-2.0 AND BSD-3-Clause"
    assert surroundings.licence_of("ext/silent/deep/a.c") == "Apache-2.0 AND BSD-3-Clause"
    assert surroundings.licence_of("lesser/a.c") == "LGPL-3.0-only"
    assert surroundings.licence_of("choice/a.c") == "Apache-2.0 OR MIT"


def test_sidecar_files_and_reuse() -> None:
    surroundings = Surroundings(
        [
            ("src/mesh[1].f90.license", "CC0-1.0"),
            (".reuse/dep5", read_statement(".reuse/dep5", COPYRIGHT.encode(), READER)),
        ]
    )
    assert surroundings.licence_of("src/mesh[1].f90") == "CC0-1.0"
    assert surroundings.licence_of("src/mesh1.f90") == "GPL-2.0-or-later"
    assert surroundings.licence_of("src/blas/x.f") == "BSD-3-Clause"


def _reference(patterns: list[str], path: str) -> int:
    """The number of the last pattern that matches, by a regular expression for each, or -1."""
    found = -1
    for number, pattern in enumerate(patterns):
        wild = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
        if re.fullmatch(wild, path, re.DOTALL):
            found = number
    return found


parts = st.sampled_from(["a", "b", "a.c", "[x]"])
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)


@given(st.lists(st.one_of(paths, st.text("ab/*?.[x]", min_size=1, max_size=6)), max_size=6), paths)
def test_patterns_against_a_plain_search(patterns: list[str], path: str) -> None:
    patterns = [
        pattern for pattern in patterns
        # a leading `./` or `/`, a directory with or without its slash: allowed here, not in the reference
        if not pattern.startswith(("/", "./")) and not pattern.endswith("/")
    ]  # fmt: skip
    patterns = [pattern for pattern in patterns if "*" in pattern or "?" in pattern or "." in pattern]
    known = FilePatterns()
    for number, pattern in enumerate(patterns):
        known.add(pattern, str(number))
    expected = _reference(patterns, path)
    found = int(known.licence_of(path) or -1)
    if found != expected:  # only a directory written like a file may add to it
        assert path.startswith(f"{patterns[found]}/")


def test_patterns_of_a_stranger_take_no_time() -> None:
    known = FilePatterns()
    known.add("*a" * 60 + "b", "slow")
    assert known.licence_of("a" * 4000) is None


@given(st.text(max_size=400) | st.text(" \n:FilesLcn*.-orandGPLBSD2+", max_size=400))
def test_any_copyright_file_is_survived(text: str) -> None:
    header = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
    for licence in dict(read_copyright(header + text, READER)).values():
        assert READER.parse(licence) == licence


REAL = [
    path for path in sorted(Path("/usr/share/doc").glob("*/copyright"))
    if path.is_file() and is_machine_readable(path.read_text("utf-8", "replace")[:400])
]  # fmt: skip


@pytest.mark.skipif(len(REAL) < 100, reason="needs the copyright files of a Debian-like machine")
def test_real_copyright_files_are_understood() -> None:
    texts = {path.read_text("utf-8", "replace") for path in REAL}
    pairs = [pair for text in texts for pair in read_copyright(text, READER)]
    known = sum(bool(licence) for _, licence in pairs)
    assert known > 0.97 * len(pairs)
