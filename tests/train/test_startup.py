from __future__ import annotations

from pathlib import Path

import pytest

from hpctrain.train.startup import has_bf16_products


@pytest.mark.parametrize(
    ("flags", "has_it"),
    [("fpu avx2 fma", False), ("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True),
     ("asimd bf16 i8mm", True), ("avx512f avx512_bf16x", False)],
)  # fmt: skip
def test_bf16_products_are_seen_in_the_flags(tmp_path: Path, flags: str, has_it: bool) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_bf16_products(told) is has_it


def test_what_cannot_be_told_is_not_warned_of(tmp_path: Path) -> None:
    assert has_bf16_products(tmp_path / "nothing")
