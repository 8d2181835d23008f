"""Notices and licence texts: those of laboratories and governments, and real ones of a Debian machine."""

from pathlib import Path

import pytest

from hpctrain.corpus.dep5 import is_machine_readable, read_copyright
from hpctrain.corpus.licences import LICENCE_CLASSES, LicencePolicy, LicenceReader
from hpctrain.corpus.notices import (
    LANL,
    NON_COMMERCIAL,
    PROPRIETARY,
    PUBLIC_DOMAIN,
    US_WORK,
    find_notices,
)

READER = LicenceReader()
BSD = (
    "Redistribution and use in source and binary forms, with or without modification, are permitted provided "
    "that the following conditions are met: "
)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (  # Livermore
            f"Copyright (c) 2013, Lawrence Livermore National Security, LLC. LLNL-CODE-999. {BSD}* "
            "Neither the name of the LLNS/LLNL nor the names of its contributors may be used to "
            "endorse or promote products derived from this software without specific prior written "
            "permission. Additional BSD Notice 1. This notice is required to be provided under our "
            "contract with the U.S. Department of Energy (DOE).",
            "BSD-3-Clause",
        ),
        (  # Los Alamos
            "This software was produced under U.S. Government contract 89233218CNA000001 for Los "
            "Alamos National Laboratory (LANL), which is operated by Triad National Security, LLC. "
            f"{BSD}3. Neither the name of Triad National Security, LLC, Los Alamos National "
            "Laboratory, LANL, the U.S. Government, nor the names of its contributors may be used to "
            "endorse or promote products derived from this software",
            "BSD-3-Clause",
        ),
        (
            "The U.S. Government has rights to use, reproduce, and distribute this software. The "
            "public may copy, distribute, prepare derivative works and publicly display this software"
            " without charge, provided that this Notice and any statement of authorship are "
            "reproduced on all copies.",
            LANL,
        ),
        (  # Oak Ridge
            f"Copyright (c) 2015, UT-Battelle, LLC. {BSD}may not be used to endorse or promote products",
            "BSD-3-Clause",
        ),
        (  # Argonne
            "Permission is hereby granted to use, reproduce, prepare derivative works, and to "
            "redistribute to others. This software was authored by: Mathematics and Computer Science "
            "Division, Argonne National Laboratory",
            "mpich2",
        ),
        (f"Copyright (c) 1991-2020, UChicago Argonne, LLC and the PETSc Developers. {BSD}", "BSD-2-Clause"),
        (  # Berkeley
            "The Regents of the University of California, through Lawrence Berkeley National "
            f"Laboratory. {BSD}You are under no obligation whatsoever to provide any bug fixes, "
            "patches, or upgrades to the features, functionality or performance of the source code "
            '("Enhancements") to anyone',
            "BSD-3-Clause-LBNL",
        ),
        (  # Sandia
            "Under the terms of Contract DE-NA0003525 with NTESS, the U.S. Government retains certain"
            f" rights in this software. {BSD}3. Neither the name of the Corporation nor the names of "
            "the contributors may be used to endorse or promote products",
            "BSD-3-Clause",
        ),
        (  # LAPACK
            f"{BSD}nor the names of its contributors may be used to endorse or promote products. The "
            "copyright holders provide no reassurances that the source code provided does not "
            "infringe any patent",
            "BSD-3-Clause-Open-MPI",
        ),
        (
            "This software was developed at the National Institute of Standards and Technology by "
            "employees of the Federal Government in the course of their official duties. Pursuant to "
            "title 17 Section 105 of the United States Code this software is not subject to copyright"
            " protection and is in the public domain.",
            "NIST-PD",
        ),
        ("This code is a work of the U.S. Government and is not subject to copyright.", US_WORK),
        ("Pursuant to 17 U.S.C. § 105 no copyright is claimed.", US_WORK),
        (
            "No copyright is claimed under Title 17, U.S. Code. Licensed under the Apache License 2.0",
            "Apache-2.0",
        ),
        ("Copyright Notice: the U.S. Government is granted a paid-up, nonexclusive, irrevocable license", ""),
        ("This work performed under the auspices of the U.S. Department of Energy. License: see below.", ""),
        ("C     This routine is in the public domain.\nC     Written 1978", PUBLIC_DOMAIN),
        ("/* Public domain. */", PUBLIC_DOMAIN),
        ("The authors hereby place this code into the public domain.", PUBLIC_DOMAIN),
        ("This file is NOT in the public domain", ""),
        ("uses ideas of public domain software by others", ""),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("The software may be used for non-commercial purposes only.", NON_COMMERCIAL),
        ("free of charge for academic use", NON_COMMERCIAL),
        ("@brief Copies a column. The constructor is for internal use only.", ""),
        ("This example is for educational purposes only. Commercial.", ""),
        (
            "Permission to copy for educational, research and non-profit purposes, without fee, is granted",
            NON_COMMERCIAL,
        ),
        ("for any purpose, commercial or non-commercial, under the MIT license", "MIT"),
        (f"{BSD} This version is for academic use only.", NON_COMMERCIAL),
        ("Proprietary and confidential. Copyright A. Corporation", PROPRIETARY),
        (
            "ce logiciel est régi par la licence; governed by the CeCILL-C license under French law",
            "CECILL-C",
        ),
        ("This software is governed by the CeCILL license under French law", "CECILL-2.0"),
        ("Eclipse Public License - v 2.0", "EPL-2.0"),
        ("licensed under the GPLv3+", "GPL-3.0-or-later"),
        ("under the terms of version 2 of the GNU General Public License", "GPL-2.0-only"),
        ("distributed under the GNU General Public License.", "GPL-1.0-or-later"),
        (
            "work under a Creative Commons license https://creativecommons.org/licenses/by-nc-sa/4.0/",
            "CC-BY-NC-SA-4.0",
        ),
        (
            "permission to deal with the Software without restriction ... Permission is hereby "
            "granted, free of charge, to any person obtaining a copy",
            "NCSA",
        ),
    ],
)
def test_notices(text: str, licence: str) -> None:
    assert READER.of_source(text.encode()) == licence


NOTICE = (
    "* This program is free software under the terms of the GNU\n * Lesser General Public License, version 3."
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, end: str) -> None:
    assert READER.of_source(NOTICE.replace("\n", end).encode(encoding)) == "LGPL-3.0-only"


def test_notice_at_the_end_of_a_file() -> None:
    body = b"      x = 1\n" * 5000
    assert READER.of_source(body + b"! Licensed under the MIT license\n") == "MIT"
    assert READER.of_source(body + b"! Licensed under the MIT license\n" + body) == ""


def test_first_notice_comes_first_and_public_domain_last() -> None:
    text = b"This file is in the public domain. Under the MIT license. Under the Apache License 2.0."
    assert find_notices(text) == ["MIT", "Apache-2.0", PUBLIC_DOMAIN]


# --- classes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("BSD-3-Clause-LBNL", "permissive"),
        ("mpich2", "permissive"),
        (LANL, "permissive"),
        ("LGPL-2.1-or-later", "weak-copyleft"),
        ("MPL-2.0", "weak-copyleft"),
        ("CECILL-C", "weak-copyleft"),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", "weak-copyleft"),
        ("GPL-2.0-only", "strong-copyleft"),
        ("CECILL-2.1", "strong-copyleft"),
        ("AGPL-3.0-only", "strong-copyleft"),
        ("NIST-PD", "public-domain"),
        (US_WORK, "public-domain"),
        ("CC0-1.0", "public-domain"),
        ("CC-BY-NC-4.0", "restricted"),
        (NON_COMMERCIAL, "restricted"),
        ("LicenseRef-NvidiaProprietary", "restricted"),
        ("LicenseRef-Ours", "unknown"),
        ("", "unknown"),
        ("GPL-2.0-only OR MIT", "permissive"),
        ("GPL-2.0-only AND MIT", "strong-copyleft"),
        ("MIT AND LicenseRef-Ours", "unknown"),
        ("Apache-2.0 WITH LLVM-exception", "permissive"),
    ],
)
def test_classes(licence: str, kind: str) -> None:
    assert READER.class_of(licence) == kind
    assert kind in LICENCE_CLASSES


def test_policy_by_class() -> None:
    policy = LicencePolicy(allow=["permissive", "public-domain", "MPL-2.0"], deny=["BSD-4-Clause"])
    accepted = {
        licence: READER.accepts(licence, policy)
        for licence in ("MIT", "CC0-1.0", "MPL-2.0", "LGPL-3.0-only", "BSD-4-Clause", "", NON_COMMERCIAL,
                        "BSD-4-Clause OR MIT", "BSD-4-Clause AND MIT", "GPL-2.0-only OR MPL-2.0")
    }  # fmt: skip
    assert [licence for licence, verdict in accepted.items() if verdict] == [
        "MIT", "CC0-1.0", "MPL-2.0", "BSD-4-Clause OR MIT", "GPL-2.0-only OR MPL-2.0",
    ]  # fmt: skip


def test_deny_works_on_any() -> None:
    policy = LicencePolicy(deny=["strong-copyleft", "restricted"])
    assert READER.accepts("LGPL-3.0-only", policy)
    assert not READER.accepts("GPL-3.0-only", policy)
    assert not READER.accepts(NON_COMMERCIAL, policy)


def test_policy_names_what_is_neither_class_nor_licence() -> None:
    with pytest.raises(ValueError, match=r"copyleft; classes are public-domain, permissive"):
        LicencePolicy(allow=["MIT", "copyleft"])


# --- real texts -------------------------------------------------------------------------------------------

COMMON = {
    "Apache-2.0": "Apache-2.0", "CC0-1.0": "CC0-1.0", "GPL-1": "GPL-1.0-only", "GPL-2": "GPL-2.0-only",
    "GPL-3": "GPL-3.0-only", "LGPL-2": "LGPL-2.0-only", "LGPL-2.1": "LGPL-2.1-only",
    "LGPL-3": "LGPL-3.0-only", "MPL-1.1": "MPL-1.1", "MPL-2.0": "MPL-2.0", "BSD": "BSD-3-Clause",
}  # fmt: skip


@pytest.mark.parametrize("name", COMMON)
def test_texts_of_common_licences(name: str) -> None:
    path = Path("/usr/share/common-licenses") / name
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    assert READER.of_source(path.read_bytes()) == COMMON[name]


def test_real_texts_against_the_names_that_debian_gives_them() -> None:
    """A text must never be taken for one that asks less than what its package says it is."""
    labelled = list(_labelled_texts())
    if len(labelled) < 200:
        pytest.skip("needs the copyright files of a Debian-like machine")
    rank = {kind: place for place, kind in enumerate(LICENCE_CLASSES)}
    classes = [(READER.class_of(name), READER.class_of(READER.of_text(text))) for name, text in labelled]
    equal = sum(name == text for name, text in classes)
    lax = sum(
        rank[text] < rank[name] and {"weak-copyleft", "strong-copyleft"} & {name} != set()
        for name, text in classes
    )
    assert equal > 0.9 * len(labelled)
    assert lax < 0.01 * len(labelled)


def _labelled_texts() -> list[tuple[str, str]]:
    """Licence texts of at least a few lines with the name that stands above them, where it is plain."""
    texts = set()
    for path in sorted(Path("/usr/share/doc").glob("*/copyright")):
        content = path.read_text("utf-8", "replace") if path.is_file() else ""
        if is_machine_readable(content):
            for stanza in content.split("\n\n"):
                head, _, words = stanza.partition("License:")[2].partition("\n")
                if len(words) > 120 and " " not in head.strip():
                    texts.add((head.strip(), "\n".join(line.strip() for line in words.splitlines())))
    form = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    known = {
        name: dict(read_copyright(f"{form}\n\nFiles: *\nLicense: {name}\n", READER)).get("*", "")
        for name, _ in texts
    }
    return sorted((known[name], text) for name, text in texts if known[name])
