"""The page of a corpus: self-contained, escaped, and true to the ledger and the tables."""

from __future__ import annotations

import base64
import html
import re
import struct
from pathlib import Path

import pytest

from hpctrain.corpus.build import CorpusConfig, build_corpus
from hpctrain.errors import ConfigError, DataError
from hpctrain.report.ledger_data import FATES, fate_of, fates, read_corpus, top
from hpctrain.report.ledger_page import write_ledger_page
from hpctrain.shards.pack import build_shards

BODY = b"".join(b"    total += weights[%d] * values[index + %d];\n" % (n, n) for n in range(12))


def _kernel(name: str, extra: bytes = b"") -> bytes:
    head = b"double %b_sum(const double *weights, const double *values, int index)\n{\n" % name.encode()
    return (
        b"/* %b */\n" % name.encode()
        + head
        + b"    double total = 0;\n"
        + BODY
        + extra
        + b"    return total;\n}\n"
    )


MPI = b"""\
#include <mpi.h>
int sends(double *buffer, int n)
{
    return MPI_Send(buffer, n, MPI_DOUBLE, 1, 0, MPI_COMM_WORLD);
}
"""
FORTRAN = b"""\
subroutine relax(x, n)
  integer, intent(in) :: n
  real, intent(inout) :: x(n)
  integer :: i
  do i = 2, n - 1
    x(i) = 0.5 * (x(i - 1) + x(i + 1))
  end do
end subroutine relax
"""
FILES = {
    "one.c": _kernel("first") + b"/* Jane Doe <jane@doe.net> */\n",
    "copy/one.c": _kernel("first") + b"/* Jane Doe <jane@doe.net> */\n",
    "near.c": _kernel("first", b"    total *= 2;\n"),
    "mpi.c": MPI,
    "solver.f90": FORTRAN,
    "table<b>.c": b"/* by Jack <jack@doe.net> & <script>alert(1)</script> */\nconst float t[] = {\n"
    + b"0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5,\n" * 30
    + b"};\n",
    "readme.txt": b"words\n",
    "stolen.c": b"",  # filled in below
}  # fmt: skip
BENCHMARK = b"".join(
    b"static int step_%d_of_benchmark(int a)\n{\n    return (a << %d) ^ (a >> %d);\n}\n" % (n, n, n + 1)
    for n in range(9)
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in which every part of the page has something to show."""
    root = tmp_path_factory.mktemp("sources")
    for name, content in {**FILES, "stolen.c": BENCHMARK}.items():
        path = root / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "benchmark").mkdir()
    (root / "benchmark/steps.c").write_bytes(BENCHMARK)
    config = CorpusConfig.model_validate({
        "sources": [
            {"name": "tree", "kind": "directory", "path": str(root / "tree"), "licence": "MIT"},
            {"name": "gone", "kind": "directory", "path": "/no/such/tree", "optional": True},
        ],
        "licences": {"allow": "any"},
        "contamination": {"benchmarks": [{"name": "Steps", "path": str(root / "benchmark")}]},
    })  # fmt: skip
    build_corpus(config, root / "corpus<1>")
    return root / "corpus<1>"


def test_the_record_is_that_of_the_tables(corpus: Path) -> None:
    record = read_corpus(corpus)
    dropped = {reason: each.files for reason, each in record.by("dropped").items()}
    assert dropped == {
        "contamination": 1,
        "data table": 1,
        "duplicate": 1,
        "language": 1,
        "near duplicate": 1,
    }
    assert record.total("seen").files == len(FILES)
    assert record.total("kept").files == 3
    assert {name: sum(bins) for name, bins in record.sizes.items()} == {"c": 2, "fortran-free": 1}
    assert record.models["mpi"]["c"].files == 1
    assert record.jaccard.sum() == 1
    assert [(each.path, each.copies) for each in record.clusters] == [("tree/copy/one.c", 2)]
    assert [(each.source, each.path) for each in record.removals] == [("tree", "stolen.c")]
    assert record.benchmarks["Steps"].files == 1
    assert record.secrets == {"e-mail address": 1}
    assert record.missing == {"gone": "/no/such/tree: no such directory"}
    table = fates(record.sources["tree"])
    assert sum(each.files for each in table.values()) == len(FILES)
    assert [table[fate].files for fate in FATES] == [3, 2, 0, 1, 1, 0, 1]


def test_the_page_is_self_contained_and_escaped(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "page.html"
    write_ledger_page(corpus, path)
    page = path.read_text(encoding="utf-8")
    images = re.findall(r'(?:src|srcset)="data:image/png;base64,([^"]*)"', page)
    assert len(images) == 12  # six pictures, in light and in dark
    for image in images:
        content = base64.b64decode(image, validate=True)
        assert min(struct.unpack(">II", content[16:24])) > 500
    assert not re.search(r"<script|<link|<iframe|https?://|url\(|@import", page)
    assert "<title>corpus&lt;1&gt;: what is in the corpus</title>" in page
    assert [path.name for path in path.parent.iterdir()] == ["page.html"]


def test_shards_of_the_corpus_add_tokens(
    corpus: Path, corpus_directory: Path, tokenizer_directory: Path, tmp_path: Path
) -> None:
    counts = build_shards(corpus, tokenizer_directory, tmp_path / "shards").counts["tokens"]
    write_ledger_page(corpus, tmp_path / "page.html", tmp_path / "shards")
    page = (tmp_path / "page.html").read_text()
    assert all(f">{tokens:,}</td>" in page for part in counts.values() for tokens in part.values())
    build_shards(corpus_directory, tokenizer_directory, tmp_path / "others")
    with pytest.raises(DataError, match="made of another corpus"):
        write_ledger_page(corpus, tmp_path / "page.html", tmp_path / "others")


def test_the_page_tells_what_happened(corpus: Path, tmp_path: Path) -> None:
    write_ledger_page(corpus, tmp_path / "page.html")
    text = html.unescape(re.sub(r"<[^>]*>|\s+", " ", (tmp_path / "page.html").read_text(encoding="utf-8")))
    text = re.sub(r"\s+", " ", text)
    for said in (
        "3 documents", "2 duplicates dropped", "1 copies of benchmarks dropped", "no such directory",
        "fortran-free 1", "tree/copy/one.c 2", "tree/stolen.c Steps: steps.c, 100% by runs of tokens",
        "data table: how such files begin", "tree/table<b>.c", "e-mail address 1",
    ):  # fmt: skip
        assert said in text, said
    assert "jack@doe.net" not in text  # the sample of a dropped file names nobody either
    assert "by Jack <name@example.org> & <script>alert(1)</script>" in text


def test_a_corpus_of_one_file_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.c").write_bytes(_kernel("only"))
    config = {
        "sources": [{"name": "t", "kind": "directory", "path": str(tmp_path / "tree"), "licence": "MIT"}]
    }
    build_corpus(CorpusConfig.model_validate({**config, "licences": {"allow": "any"}}), tmp_path / "corpus")
    write_ledger_page(tmp_path / "corpus", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No duplicates were found." in page
    assert "No secret or address was replaced." in page


def test_bad_places_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        write_ledger_page(corpus, tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        write_ledger_page(tmp_path / "nowhere", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_every_rule_on_content_is_of_quality() -> None:
    assert {fate_of(reason) for reason in ("binary", "no code", "generated", "too large")} == {"poor quality"}
    assert [fate_of(reason) for reason in ("licence unknown", "near duplicate", "contamination", "link")] == [
        "licence", "duplicate", "benchmark", "not read",
    ]  # fmt: skip


def test_long_tables_end_in_a_sum(corpus: Path) -> None:
    dropped = read_corpus(corpus).by("dropped")
    rows = list(top(dropped, 2))
    assert [name for name, _ in rows] == [*list(dropped)[:2], "and 3 more"]
    assert sum(each.files for _, each in rows) == sum(each.files for each in dropped.values())
    assert list(top(dropped, 4)) == list(dropped.items())  # one row more is shorter than "and 1 more"
