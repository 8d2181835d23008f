# SPDX-License-Identifier: Apache-2.0
"""The kernel pairs in examples/kernels keep their contract, and their drivers can tell right from wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1] / "examples" / "kernels"


def _load_check() -> ModuleType:
    """Import examples/kernels/check.py, which is a script outside any package."""
    spec = importlib.util.spec_from_file_location("examples_kernels_check", ROOT / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while the class body is processed.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CHECK = _load_check()
KERNELS: list[Any] = CHECK.discover(ROOT)
BY_NAME = {kernel.name: kernel for kernel in KERNELS}
FIXED = [
    kernel.path / source
    for kernel in KERNELS
    if kernel.language == "fortran-fixed"
    for source in kernel.sources.values()
]

each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)


@each_kernel
def test_pair_is_equal(kernel: Any, tmp_path: Path) -> None:
    outcome = CHECK.check(kernel, tmp_path)
    if outcome.status == "SKIP":
        pytest.skip(outcome.detail)
    assert outcome.status == "PASS", outcome.detail
    assert outcome.returncode == 0


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        pytest.param("axpy_c_openmp", "y[i] += a", "y[i] -= a", id="c-wrong-sign"),
        pytest.param("matmul_c_openmp", "ii < m;", "ii < m - TILE;", id="c-output-left-poisoned"),
        pytest.param("dot_c_mpi", "MPI_SUM", "MPI_MAX", id="c-mpi-wrong-reduction"),
        pytest.param("sor_f77_openmp", "0.25D0", "0.24D0", id="fixed-wrong-weight"),
        pytest.param("gemv_f77_openacc", "DO I = 1, M", "DO I = 1, M+1", id="fixed-writes-past-the-end"),
        pytest.param("mandelbrot_f90_openmp", "max_iter - 1", "max_iter - 2", id="free-one-step-short"),
    ],
)
def test_driver_can_fail(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    original = BY_NAME[name]
    copy = tmp_path / name
    shutil.copytree(original.path, copy)
    parallel = copy / original.sources["parallel"]
    text = parallel.read_text(encoding="utf-8")
    assert right in text
    parallel.write_text(text.replace(right, wrong), encoding="utf-8")
    build = tmp_path / "build"
    build.mkdir()

    outcome = CHECK.check(dataclasses.replace(original, path=copy), build)
    if outcome.status == "SKIP":
        pytest.skip(outcome.detail)
    assert outcome.status == "FAIL"
    assert outcome.returncode == 1
    assert f"FAIL {name} " in outcome.detail


def test_source_that_does_not_build_is_a_failure(tmp_path: Path) -> None:
    kernel = BY_NAME["axpy_c_openmp"]
    copy = tmp_path / kernel.name
    shutil.copytree(kernel.path, copy)
    (copy / kernel.sources["parallel"]).write_text("#error broken\n", encoding="utf-8")
    outcome = CHECK.check(dataclasses.replace(kernel, path=copy), tmp_path)
    if outcome.status == "SKIP":
        pytest.skip(outcome.detail)
    assert outcome.status == "FAIL"
    assert outcome.returncode is None
    assert "broken" in outcome.detail


def test_missing_compiler_skips_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for kernel in KERNELS:
        outcome = CHECK.check(kernel, tmp_path)
        assert outcome.status == "SKIP"
        assert CHECK.compilers(kernel)[0] in outcome.detail


def test_collection_covers_languages_and_models() -> None:
    languages = Counter(kernel.language for kernel in KERNELS)
    models = Counter(kernel.model for kernel in KERNELS)
    assert len(KERNELS) >= 24
    assert set(languages) == {"c", "fortran-fixed", "fortran-free", "cuda"}
    assert set(models) == {"openmp", "mpi", "openacc", "cuda"}
    assert languages["c"] >= 8
    assert languages["fortran-free"] >= 6
    assert languages["fortran-fixed"] >= 5
    assert languages["cuda"] >= 5
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS)
    assert any("include 'mpif.h'" in path.read_text(encoding="utf-8").lower() for path in FIXED)


@each_kernel
def test_description_matches_the_sources(kernel: Any) -> None:
    assert kernel.name == kernel.path.name
    assert set(kernel.entry) == {"serial", "parallel"}
    assert set(kernel.sources) == {"serial", "parallel", "driver"}
    assert {path.name for path in kernel.path.iterdir()} == {"kernel.yaml", *kernel.sources.values()}
    assert kernel.counts == ((1, 2, 4) if kernel.model in ("openmp", "mpi") else (1,))
    texts = {role: (kernel.path / name).read_text(encoding="utf-8") for role, name in kernel.sources.items()}
    for role in ("serial", "parallel"):
        assert re.search(rf"\b{kernel.entry[role]}\b", texts[role], re.IGNORECASE)
        assert re.search(rf"\b{kernel.entry[role]}\b", texts["driver"], re.IGNORECASE)
    assert not re.search(r"pragma|[!c]\$(omp|acc)|\bmpi_|__global__", texts["serial"], re.IGNORECASE)
    assert kernel.name in texts["driver"]

    stated = re.search(r"\bTOL(?:ERANCE)?\b[ =]*([0-9.]+(?:[ED]-?\d+)?)", texts["driver"], re.IGNORECASE)
    assert stated is not None
    assert float(stated[1].upper().replace("D", "E")) == kernel.tolerance


@pytest.mark.parametrize("path", FIXED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_fixed_form_columns(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        where = f"{path.name}:{number}: {line}"
        assert len(line) <= 72, where
        assert "\t" not in line, where
        if re.match(r"[C!]\$(OMP|ACC)", line):
            assert re.match(r"[C!]\$(OMP|ACC)[ &]", line), where
        elif line.startswith("#"):
            assert path.suffix == ".F", where
        elif line.startswith("C"):
            assert re.match(r"C( {5,}\S|$)", line), where
        else:
            # A label in columns 1 to 5, blank or a continuation mark in 6, a statement from 7.
            assert re.match(r"( {5}[ &]| {2,4}\d{1,3} {1,3}) *\S", line), where
            assert not line.endswith("&"), where


def test_every_file_states_the_licence_first() -> None:
    files = [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__")) for part in path.relative_to(ROOT).parts)
    ]
    assert len(files) >= 4 * len(KERNELS)
    for path in files:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert "SPDX-License-Identifier: Apache-2.0" in first, path


def test_readme_lists_every_pair() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w-]+) \|", readme, re.MULTILINE))
    assert rows == {kernel.name: kernel.language for kernel in KERNELS}
