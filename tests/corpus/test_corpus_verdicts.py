"""What became of a file: duplicates of both kinds, benchmarks, secrets, licences, and the word on each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_corpus import c_file, directory, dropped, ledger, make_config, make_tree

from hpctrain.corpus.build import build_corpus
from hpctrain.corpus.document import read_corpus_manifest, read_documents
from hpctrain.corpus.show import describe
from hpctrain.corpus.verdicts import explain, read_duplicates, read_verdicts, why
from hpctrain.errors import DataError

AXPY = b"""\
      SUBROUTINE %(p)cAXPY(N, A, X, Y)
*     Y := A*X + Y, for vectors of length N
      INTEGER N, I
      %(type)s A, X(*), Y(*)
      IF (N .LE. 0) RETURN
c$omp parallel do
      DO 10 I = 1, N
         Y(I) = Y(I) + A*X(I) - MAX(X(I), Y(I)) / (A + X(N)) * Y(1)
         X(I) = Y(I) * X(I) - A*A*A + MIN(X(I), Y(I)) - SIN(X(I)) * COS(Y(I))
   10 CONTINUE
      END
"""
SOLVER = b"""\
/* SPDX-License-Identifier: MIT, by jane.roe@uni-somewhere.edu */
#include <mpi.h>
double residual_of_stencil(const double *u, const double *f, int nx, int ny, double h)
{
    double sum = 0.0, total = 0.0;
    for (int j = 1; j < ny - 1; ++j)
        for (int i = 1; i < nx - 1; ++i) {
            double r = f[j * nx + i] - (4 * u[j * nx + i] - u[j * nx + i - 1] - u[j * nx + i + 1]) / (h * h);
            sum += r * r - u[(j + 1) * nx + i] / (h * h) + u[(j - 1) * nx + i];
        }
    MPI_Allreduce(&sum, &total, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return total;
}
"""


BENCH = b"""\
#include <stdlib.h>
static void swap_items(int *first, int *second) { int held = *first; *first = *second; *second = held; }
void bench_quicksort(int *items, int low, int high)
{
    if (low >= high) return;
    int pivot = items[(low + high) / 2], left = low, right = high;
    while (left <= right) {
        while (items[left] < pivot) left++;
        while (items[right] > pivot) right--;
        if (left <= right) swap_items(&items[left++], &items[right--]);
    }
    bench_quicksort(items, low, right);
    bench_quicksort(items, left, high);
}
"""


def _axpy(precision: str) -> bytes:
    return AXPY % {b"p": ord(precision), b"type": b"REAL" if precision == "S" else b"DOUBLE PRECISION"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with a bit of everything."""
    place = tmp_path_factory.mktemp("verdicts")
    first = {
        "blas/daxpy.f": _axpy("D"),
        "blas/saxpy.f": _axpy("S"),
        "blas/copy/daxpy.f": _axpy("D"),
        "solver/residual.c": SOLVER,
        "gpl/x.c": c_file(1).replace(b"MIT", b"GPL-3.0-only"),
        "notes.txt": b"none\n",
        "empty.c": b"",
    }
    second = {
        "mine/daxpy.f": _axpy("D"),
        "mine/bench.c": BENCH,
        "again/bench.c": BENCH,
        "mine/y.c": c_file(2),
    }
    make_tree(place / "benchmark", {"sort/main.c": BENCH})
    config = make_config(
        directory(make_tree(place / "one", first), "one", licence="BSD-3-Clause"),
        directory(make_tree(place / "two", second), "two", licence="ISC"),
        licences={"allow": ["permissive"]},
        duplicates={"min_shingles": 8},
        contamination={"benchmarks": [{"name": "SortBench", "path": str(place / "benchmark")}]},
        split={"validation_share": 0},
    )
    build_corpus(config, place / "corpus")
    return place / "corpus"


def test_what_stays_is_first_in_corpus_order(corpus: Path) -> None:
    documents = {f"{d.source}/{d.path}": d for d in read_documents(corpus)}
    assert list(documents) == ["one/blas/copy/daxpy.f", "one/solver/residual.c", "two/mine/y.c"]
    assert documents["one/blas/copy/daxpy.f"].models == "openmp"
    assert documents["one/solver/residual.c"].models == "mpi"
    assert b"jane.roe" not in documents["one/solver/residual.c"].content


def test_where_the_others_stood_is_recorded(corpus: Path) -> None:
    rows = [row for batch in read_duplicates(corpus) for row in batch.to_pylist()]
    found = {
        f"{row['source']}/{row['path']}": (f"{row['kept_source']}/{row['kept_path']}", row) for row in rows
    }
    kept = "one/blas/copy/daxpy.f"
    assert {name: winner for name, (winner, _) in found.items()} == {
        "one/blas/daxpy.f": kept,
        "one/blas/saxpy.f": kept,
        "two/mine/daxpy.f": kept,
        "two/mine/bench.c": "two/again/bench.c",
    }
    near = found["one/blas/saxpy.f"][1]
    assert (near["kind"], near["bytes"]) == ("near", len(_axpy("S")))
    assert 0.7 <= near["jaccard"] <= 1
    assert (found["two/mine/daxpy.f"][1]["kind"], found["two/mine/daxpy.f"][1]["jaccard"]) == ("exact", 1.0)


def test_the_ledger_counts_all_of_it(corpus: Path) -> None:
    one, two = ledger(corpus, "one"), ledger(corpus, "two")
    assert dropped(corpus, "one") == {
        "duplicate": 1, "language": 1, "licence not allowed": 1, "near duplicate": 1, "too small": 1,
    }  # fmt: skip
    assert dropped(corpus, "two") == {"contamination": 1, "duplicate": 2}
    assert {name: tally["files"] for name, tally in two["contamination"].items()} == {"SortBench": 1}
    assert {name: tally["files"] for name, tally in one["models"].items()} == {"mpi": 1, "openmp": 1}
    assert {name: tally["files"] for name, tally in two["models"].items()} == {"none": 1}
    assert {name: tally["files"] for name, tally in one["licence_classes"].items()} == {"permissive": 2}
    assert one["secrets"] == {"e-mail address": 1}
    assert one["kept"]["bytes"] == sum(len(d.content) for d in read_documents(corpus) if d.source == "one")
    rows = {(row.group, row.name): row.files for row in describe(corpus)}
    assert (
        rows["model", "mpi"] == rows["licence class", "permissive"] - 2 == rows["benchmark", "SortBench"] == 1
    )
    assert rows["replaced", "e-mail address"] == 1


def test_every_file_has_a_verdict(corpus: Path) -> None:
    rows = [row for batch in read_verdicts(corpus) for row in batch.to_pylist()]
    assert len(rows) == 11
    assert [row["document"] for row in rows if not row["reason"]] == [0, 1, 2]
    assert {row["path"]: row["sample"] for row in rows if row["sample"] is not None} == {"empty.c": b""}
    assert all(row["split"] == "train" and row["family"] for row in rows if not row["reason"])
    assert not any(row["split"] for row in rows if row["reason"])


def test_why_finds_files_by_the_end_of_their_path(corpus: Path) -> None:
    assert [row["path"] for row in why(corpus, "daxpy.f")] == [
        "blas/copy/daxpy.f",
        "blas/daxpy.f",
        "mine/daxpy.f",
    ]
    assert [row["source"] for row in why(corpus, "two/mine/daxpy.f")] == ["two"]
    assert len(why(corpus, "daxpy.f", limit=2)) == 2
    assert "document 0 of train" in explain(why(corpus, "copy/daxpy.f")[0])
    assert "uses openmp" in explain(why(corpus, "copy/daxpy.f")[0])
    assert "dropped: near duplicate (one/blas/copy/daxpy.f)" in explain(why(corpus, "saxpy.f")[0])
    assert "dropped: licence not allowed" in explain(why(corpus, "gpl/x.c")[0])
    assert "dropped: contamination (SortBench: sort/main.c" in explain(why(corpus, "again/bench.c")[0])
    with pytest.raises(DataError, match=r"no source had a file xpy\.f"):
        why(corpus, "xpy.f")


def test_why_on_the_command_line(corpus: Path) -> None:
    command = [sys.executable, "-m", "hpctrain", "corpus", "why", str(corpus)]
    found = subprocess.run([*command, "saxpy.f"], capture_output=True, text=True, check=True)
    assert "one/blas/saxpy.f\n  dropped: near duplicate" in found.stdout
    found = subprocess.run([*command, "saxpy.f", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)[0]["reason"] == "near duplicate"
    assert subprocess.run([*command, "nothing"], capture_output=True, check=False).returncode == 3


def test_another_benchmark_is_another_corpus(corpus: Path) -> None:
    manifest = read_corpus_manifest(corpus)
    assert set(manifest.inputs) == {"config", "sources", "benchmarks"}


def test_damaged_tables_are_named(corpus: Path, tmp_path: Path) -> None:
    for path in corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = tmp_path / "verdicts-00000.parquet"
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"verdicts-00000\.parquet"):
        why(tmp_path, "daxpy.f")
