"""Licences: tags, notices, licence texts, and what the policy makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hpctrain.corpus.licences import (
    LicencePolicy,
    LicenceReader,
    combine,
    is_licence_file,
    nearest,
)

READER = LicenceReader()
ONLY_MIT = LicencePolicy(allow=["MIT"])


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("// SPDX-License-Identifier: MIT\n", "MIT"),
        (
            "/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */",
            "GPL-2.0-only WITH Linux-syscall-note",
        ),
        ("! SPDX-License-Identifier: Apache-2.0 OR MIT\n", "Apache-2.0 OR MIT"),
        ("C     SPDX-License-Identifier: BSD-3-Clause    \n", "BSD-3-Clause"),
        ("/* SPDX-License-Identifier: (GPL-2.0+ AND MIT) */", "GPL-2.0-or-later AND MIT"),
        ("# SPDX-License-Identifier: LicenseRef-Ours\n", "LicenseRef-Ours"),
        ("// SPDX-License-Identifier: nonsense words\n", ""),
        ("// SPDX-License-Identifier: nonsense\n// SPDX-License-Identifier: MIT\n", "MIT"),
        ("int main(void) { return 0; }", ""),
        (" * Permission is hereby granted, free of charge, to any person\n * obtaining a copy of\n", "MIT"),
        ("C     Redistribution and use in source and binary\nC     forms, with or without", "BSD-2-Clause"),
        (
            "! Redistribution and use in source and binary forms ...\n! to endorse or promote\n! products",
            "BSD-3-Clause",
        ),
        ('// Licensed under the Apache License, Version 2.0 (the "License");', "Apache-2.0"),
        (
            "// under the Apache License v2.0 with LLVM Exceptions.\n// See the license",
            "Apache-2.0 WITH LLVM-exception",
        ),
        (
            "under the terms of the GNU Lesser General Public License as published by the Free Software "
            "Foundation; either version 2.1 of the License, or (at your option) any later version.",
            "LGPL-2.1-or-later",
        ),
        ("GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991", "GPL-2.0-only"),
        ("GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 3, 29 June 2007", "LGPL-3.0-only"),
        ("Mozilla Public License Version 2.0", "MPL-2.0"),
        ("Boost Software License - Version 1.0 - August 17th, 2003", "BSL-1.0"),
        ("NVIDIA ... without an express license agreement from", "LicenseRef-NvidiaProprietary"),
        (
            "Redistribution and use in source and binary forms ...\nBundled: permission is hereby granted, "
            "free of charge, to any person obtaining a copy",
            "BSD-2-Clause",
        ),
        ("you may not redistribute this without the author's permission", ""),
    ],
)
def test_licence_of_a_file(text: str, licence: str) -> None:
    assert READER.of_source(text.encode()) == licence


@pytest.mark.parametrize(
    ("licence", "accepted"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("MIT AND Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(GPL-2.0-only OR MIT) AND Apache-2.0", True),
        ("LicenseRef-NvidiaProprietary", False),
        ("", False),
    ],
)
def test_policy(licence: str, accepted: bool) -> None:
    assert READER.accepts(licence, LicencePolicy(allow=["mit", "Apache-2.0"])) is accepted


@given(
    st.lists(st.sampled_from(["MIT", "GPL-2.0+", "AND", "OR", "WITH", "(", ")", "/", "x", ":"]), max_size=8)
)
def test_any_tag_is_survived(words: list[str]) -> None:
    licence = READER.of_source(b"// SPDX-License-Identifier: " + " ".join(words).encode())
    assert READER.parse(licence) == licence
    READER.accepts(licence, ONLY_MIT)


def test_policy_any_and_unknown() -> None:
    assert READER.accepts("GPL-3.0-only", LicencePolicy())
    assert not READER.accepts("", LicencePolicy())
    assert READER.accepts("", LicencePolicy(allow=["MIT"], unknown="keep"))


def test_policy_names_what_is_no_licence() -> None:
    with pytest.raises(ValidationError, match="Foo"):
        LicencePolicy(allow=["MIT", "Foo"])


def test_nearest_licence_file_wins() -> None:
    by_directory = {"": "MIT", "a/b": "BSD-3-Clause", "a/c": ""}
    assert nearest("a/b/x/f.c", by_directory) == "BSD-3-Clause"
    assert nearest("a/c/f.c", by_directory) == "MIT"
    assert nearest("f.c", by_directory) == "MIT"
    assert nearest("f.c", {}) == ""


def test_several_licence_files_all_bind() -> None:
    assert combine(["MIT", "", "Apache-2.0 OR BSL-1.0"]) == "(Apache-2.0 OR BSL-1.0) AND MIT"
    assert combine(["MIT", "MIT"]) == "MIT"
    assert combine([]) == ""


@pytest.mark.parametrize("name", ["LICENSE", "a/COPYING.LIB", "licence.txt", "LICENSE-MIT", "COPYRIGHT"])
def test_licence_files(name: str) -> None:
    assert is_licence_file(name)


@pytest.mark.parametrize("name", ["license.py", "src/copyright.c", "UNLICENSED.md", "licensee.txt"])
def test_not_licence_files(name: str) -> None:
    assert not is_licence_file(name)
