"""Families keep variants together, and the split follows families."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.families import (
    LARGE_DIRECTORY_FILES,
    SplitConfig,
    choose_validation,
    families,
    languages_of_families,
)

_FILLER = [f"SRC/filler{chr(97 + i % 26)}{chr(97 + i // 26)}.f" for i in range(LARGE_DIRECTORY_FILES + 1)]


@pytest.mark.parametrize(
    "variants",
    [
        ["sgemm.f", "dgemm.f", "cgemm.f", "zgemm.f"],
        ["ssyrk.f", "dsyrk.f", "csyrk.f", "zsyrk.f"],
        ["solver.h", "solver.c", "solver_kernel.cu", "SolverCuda.cu", "solver-omp.cpp"],
        ["dlasd0.f", "dlasd1.f", "slasd8.f"],
        ["heat_serial.f90", "heat_parallel.f90", "heat_mpi.f90"],
    ],
)
def test_variants_in_a_large_directory_share_a_family(variants: list[str]) -> None:
    found = families("s", [f"SRC/{name}" for name in variants] + _FILLER)
    assert len(set(found[: len(variants)])) == 1
    assert len(set(found)) > LARGE_DIRECTORY_FILES // 2


def test_a_small_directory_is_one_family() -> None:
    assert families("s", ["a/x.c", "a/y.h", "b/x.c"]) == ["s/a", "s/a", "s/b"]


def test_ports_of_one_benchmark_share_a_family() -> None:
    paths = [
        "src/nbody-cuda/main.cu",
        "src/nbody-omp/main.cpp",
        "src/nbody-hip/main.cu",
        "src/lud-cuda/main.cu",
    ]
    found = families("s", paths)
    assert found[0] == found[1] == found[2] != found[3]


def test_files_at_the_root_are_families_by_stem() -> None:
    assert families("s", ["a.c", "a.h", "b.c"])[0] == families("s", ["a.c", "a.h", "b.c"])[1] != "s/b"


@given(st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=60), st.integers(0, 9))
def test_a_family_is_drawn_regardless_of_the_others(names: set[str], seed: int) -> None:
    config = SplitConfig(validation_share=0.3, seed=seed)
    languages = {name: {"c"} for name in names}
    drawn = {name for name in names if choose_validation({name: {"c"}}, config)}
    assert drawn <= choose_validation(languages, config)


def test_share_is_met_and_seed_matters() -> None:
    languages = {f"s/{i}": {"c"} for i in range(5000)}
    drawn = choose_validation(languages, SplitConfig(validation_share=0.1))
    assert 400 < len(drawn) < 600
    assert drawn != choose_validation(languages, SplitConfig(validation_share=0.1, seed=1))
    assert choose_validation(languages, SplitConfig(validation_share=0)) == set()


def test_every_language_of_some_size_is_validated() -> None:
    pairs = [(f"c/{i}", "c") for i in range(1000)] + [(f"f/{i}", "fortran-free") for i in range(8)]
    pairs += [(f"h/{i}", "hip") for i in range(7)] + [(f"u/{i}", "cuda") for i in range(40)]
    drawn = choose_validation(languages_of_families(pairs), SplitConfig(validation_share=0.001))
    counts = {name: sum(family.startswith(name) for family in drawn) for name in "cfhu"}
    assert counts["f"] >= 1
    assert counts["h"] == 0
    assert counts["u"] >= 4
