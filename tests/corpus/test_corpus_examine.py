"""The verdict on a file: in bounded time and without a crash, whatever the bytes."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.examine import Drop, Rules, examine
from hpctrain.corpus.filters import FilterConfig

RULES = Rules(FilterConfig())
LENIENT = Rules(
    FilterConfig(min_bytes=0, max_line_bytes=1 << 20, max_mean_line_bytes=1 << 20, min_letter_share=0)
)
NAMES = ["a.h", "a.c", "a.cpp", "a.cu", "a.cl", "a.f", "a.f90", "a.inc", "a.fh", "noextension"]
PIECES = [
    b"namespace", b"struct ", b"class a b c ", b"const int < ", b"<<<a", b"real", b"template <", b"operator ",
    b"/* ", b"\"", b"'", b"#ifdef __cplusplus\n", b": word ", b"a::", b"enum class ", b"typedef ", b"call ",
    b"__device__ ", b"a ", b"\\\n", b"SPDX-License-Identifier: (", b" \t", b"\n",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("filler", [b"", b" ", b"\n", b"\n \n"])
def test_hostile_repetition_is_judged_quickly(piece: bytes, filler: bytes) -> None:
    contents = [(piece + filler) * ((1 << 16) // len(piece + filler)), piece + filler * 60_000 + b"("]
    for content in contents:
        for name in NAMES:
            start = time.process_time()
            examine(name, content, RULES)
            assert time.process_time() - start < 1, (name, content[:20])


@given(st.sampled_from(NAMES), st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=20))
def test_any_bytes_are_survived(name: str, pieces: list[bytes]) -> None:
    examine(name, b"".join(pieces), LENIENT)


def test_verdict_depends_on_name_and_content_only() -> None:
    content = b"// SPDX-License-Identifier: MIT\n" + b"int function(int argument);\n" * 5
    assert examine("a/b.cc", content, RULES) == examine("a/b.cc", content, Rules(FilterConfig()))
    assert examine("a/b.py", content, RULES) == Drop("language")
