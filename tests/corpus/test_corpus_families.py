"""Families keep variants together, and the split follows families."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpctrain.corpus.families import SplitConfig, Splits, Survey, family_of, survey
from hpctrain.corpus.settle import family_keys


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
    found = {family_of("s", f"SRC/{name}", by_stem=True) for name in variants}
    assert len(found) == 1
    assert family_of("s", "SRC/another.f", by_stem=True) not in found


def test_a_small_directory_is_one_family() -> None:
    found = [family_of("s", path, by_stem=False) for path in ("a/x.c", "a/y.h", "b/x.c")]
    assert found == ["s/a", "s/a", "s/b"]


def test_ports_of_one_benchmark_share_a_family() -> None:
    paths = [
        "src/nbody-cuda/main.cu",
        "src/nbody-omp/main.cpp",
        "src/nbody-hip/main.cu",
        "src/lud-cuda/main.cu",
    ]
    found = [family_of("s", path, by_stem=False) for path in paths]
    assert found[0] == found[1] == found[2] != found[3]


def test_files_at_the_root_are_families_by_stem() -> None:
    assert family_of("s", "a.c", by_stem=False) == family_of("s", "a.h", by_stem=False) == "s/a"


def _split(languages: dict[str, list[str]], config: SplitConfig) -> dict[str, str]:
    """The split of each family, given the families of each language."""
    keys = {name: family_keys(names, config.seed) for name, names in languages.items()}
    splits = Splits([survey(found) for found in keys.values()], config)
    return {
        family: splits.of(int(key))
        for name, names in languages.items()
        for family, key in zip(names, keys[name], strict=True)
    }


@given(st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=60), st.integers(0, 9))
def test_a_family_is_drawn_regardless_of_the_others(names: set[str], seed: int) -> None:
    config = SplitConfig(validation_share=0.3, test_share=0.3, seed=seed)
    together = _split({"c": sorted(names)}, config)
    for name in names:
        alone = _split({"c": [name]}, config)[name]
        assert alone in ("train", together[name])


def test_shares_are_met_and_the_seed_matters() -> None:
    names = [f"s/{i}" for i in range(5000)]
    drawn = _split({"c": names}, SplitConfig(validation_share=0.1, test_share=0.2))
    counts = {split: list(drawn.values()).count(split) for split in ("train", "validation", "test")}
    assert 400 < counts["validation"] < 600
    assert 850 < counts["test"] < 1150
    assert drawn != _split({"c": names}, SplitConfig(validation_share=0.1, test_share=0.2, seed=1))
    assert set(_split({"c": names}, SplitConfig(validation_share=0)).values()) == {"train"}
    without = _split({"c": names}, SplitConfig(validation_share=0.1))
    assert all(drawn[name] == "validation" for name, split in without.items() if split == "validation")


def test_every_language_of_some_size_is_held_out() -> None:
    languages = {
        "cpp": [f"c/{i}" for i in range(1000)],
        "fortran-free": [f"f/{i}" for i in range(8)],
        "hip": [f"h/{i}" for i in range(7)],
        "cuda": [f"u/{i}" for i in range(40)],
    }
    drawn = _split(languages, SplitConfig(validation_share=0.001, test_share=0.001))
    for split in ("validation", "test"):
        counts = {name: sum(f.startswith(name) and drawn[f] == split for f in drawn) for name in "cfhu"}
        assert counts["c"] >= 4
        assert counts["f"] >= 1
        assert counts["h"] == 0
        assert counts["u"] >= 4


def test_shares_must_leave_something() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        SplitConfig(validation_share=0.5, test_share=0.5)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.integers(1, 5))
def test_a_survey_of_parts_is_that_of_the_whole(values: list[int], parts: int) -> None:
    """As ranks make it: each has the keys of one range."""
    keys = np.array(values, np.uint64)
    of_part = (keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    merged = Survey(0, (), ())
    for part in range(parts):
        merged = merged.merge(survey(keys[of_part == part]))
    assert merged == survey(keys)
