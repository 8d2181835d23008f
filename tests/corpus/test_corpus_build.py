"""The whole way: configs and source trees in, a corpus and its ledger out."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from small_corpus import c_file, directory, dropped, fortran_file, ledger, make_config, make_tree

from hpctrain.config import load_config
from hpctrain.corpus.build import CorpusConfig, build_corpus
from hpctrain.corpus.document import Document, read_documents
from hpctrain.corpus.show import describe, verify
from hpctrain.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[2] / "configs" / "corpus"


def test_every_file_is_kept_or_counted_with_a_reason(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "tree",
        {
            "a/kept.c": c_file(1),
            "a/same.c": c_file(1),
            "a/text.txt": b"words\n",
            "a/object.c": b"\x7fELF\0\0\0" + bytes(200),
            "a/tiny.c": b";\n",
            "a/large.c": c_file(2) + b"/* " + b"text " * 1000 + b"*/\n",
            "a/made.c": b"/* DO NOT EDIT */\n" + c_file(3),
            "a/unlicensed.f": fortran_file(1),
            "b/LICENSE": b"Boost Software License - Version 1.0 - August 17th, 2003\n",
            "b/sub/licensed.f": fortran_file(2),
            "c/gpl.c": c_file(4).replace(b"MIT", b"GPL-3.0-only"),
        },
    )
    (root / "a" / "link.c").symlink_to("kept.c")
    os.mkfifo(root / "a" / "pipe.c")
    config = make_config(
        directory(root), filters={"max_bytes": 2000}, licences={"allow": ["MIT", "BSL-1.0"]},
        split={"validation_share": 0},
    )  # fmt: skip
    manifest = build_corpus(config, tmp_path / "corpus")
    documents = list(read_documents(tmp_path / "corpus"))
    assert [(d.path, d.language, d.licence) for d in documents] == [
        ("a/kept.c", "c", "MIT"),
        ("b/sub/licensed.f", "fortran-fixed", "BSL-1.0"),
    ]
    assert dropped(tmp_path / "corpus") == {
        "binary": 1, "duplicate": 1, "generated": 1, "language": 2, "licence not allowed": 1,
        "licence unknown": 1, "link": 1, "too large": 1, "too small": 1, "unreadable": 1,
    }  # fmt: skip
    counts = ledger(tmp_path / "corpus")
    assert counts["seen"]["files"] == len(documents) + sum(dropped(tmp_path / "corpus").values())
    assert manifest.counts["documents"] == {
        "train": {"c": 1, "fortran-fixed": 1},
        "validation": {},
        "test": {},
    }
    assert manifest.counts["licences"] == {"BSL-1.0": len(fortran_file(2)), "MIT": len(c_file(1))}
    assert set(manifest.inputs) == {"config", "sources"}


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {f"d{i % 7}/f{i}.c": c_file(i) for i in range(60)})
    config = make_config(directory(root))
    build_corpus(config, tmp_path / "one")
    build_corpus(config, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    tables = ["duplicates-00000.parquet", "verdicts-00000.parquet"]
    assert names == ["documents-00000.h5", tables[0], "ledger.json", "manifest.json", tables[1]]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_finished_corpus_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_tree(tmp_path / "tree", {"a/x.c": c_file(1)})
    out = tmp_path / "corpus"
    first = build_corpus(make_config(directory(root)), out)
    before = (out / "manifest.json").stat().st_mtime_ns
    assert build_corpus(make_config(directory(root)), out) == first
    assert "up to date" in capsys.readouterr().err
    assert (out / "manifest.json").stat().st_mtime_ns == before
    (root / "a" / "y.c").write_bytes(c_file(2))
    with pytest.raises(DataError, match=r"another sources; remove it or choose another directory"):
        build_corpus(make_config(directory(root)), out)
    with pytest.raises(DataError, match="another config"):
        build_corpus(make_config(directory(root), filters={"min_bytes": 1}), out)
    assert len(list(read_documents(out))) == 1


def test_empty_corpus_says_why(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"a/x.f": fortran_file(1), "a/y.txt": b"text\n"})
    config = make_config(directory(root), directory(tmp_path / "no", "absent", optional=True))
    with pytest.raises(DataError, match=r"(?s)tree: 2 files seen; 1 language, 1 licence unknown.*absent"):
        build_corpus(config, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_first_source_wins_a_duplicate(tmp_path: Path) -> None:
    one = make_tree(tmp_path / "one", {"z/z.c": c_file(1)})
    two = make_tree(tmp_path / "two", {"a/a.c": c_file(1), "a/b.c": c_file(2)})
    config = make_config(directory(one, "one"), directory(two, "two"))
    build_corpus(config, tmp_path / "corpus")
    assert [(d.source, d.path) for d in read_documents(tmp_path / "corpus")] == [
        ("one", "z/z.c"),
        ("two", "a/b.c"),
    ]
    assert dropped(tmp_path / "corpus", "two") == {"duplicate": 1}


def test_cap_takes_an_even_sample(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "tree", {f"{chr(97 + i % 20)}/f{i:03}.c": c_file(100 + i) for i in range(200)}
    )
    total = sum(path.stat().st_size for path in root.rglob("*.c"))
    build_corpus(make_config(directory(root, max_bytes=total // 2)), tmp_path / "corpus")
    documents = list(read_documents(tmp_path / "corpus"))
    assert total * 0.45 < sum(len(d.content) for d in documents) <= total // 2
    assert len({d.path[0] for d in documents}) == 20  # not only the first letters of the alphabet
    assert dropped(tmp_path / "corpus") == {"over max_bytes": 200 - len(documents)}


def test_cap_of_an_archive(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {f"f{i}.c": c_file(100 + i) for i in range(20)})
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(root, "x")
    source = {"name": "x", "kind": "archives", "path": str(tmp_path / "x.tar.gz"), "max_bytes": 1000}
    build_corpus(make_config(source), tmp_path / "corpus")
    assert 500 < sum(len(d.content) for d in read_documents(tmp_path / "corpus")) <= 1000


def test_declared_licence_yields_to_the_files_own(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "tree", {"a/x.c": c_file(1), "a/y.f": fortran_file(1), "a/LICENSE": b"MIT License\n"}
    )
    build_corpus(make_config(directory(root, licence="bsd-3-clause")), tmp_path / "corpus")
    licences = {d.path: d.licence for d in read_documents(tmp_path / "corpus")}
    assert licences == {"a/x.c": "MIT", "a/y.f": "BSD-3-Clause"}


def test_families_do_not_span_splits(tmp_path: Path) -> None:
    files = {f"d{i}/{name}.c": c_file(10 * i + j) for i in range(100) for j, name in enumerate("abc")}
    root = make_tree(tmp_path / "tree", files)
    build_corpus(make_config(directory(root), split={"validation_share": 0.2}), tmp_path / "corpus")
    splits: dict[str, set[str]] = {}
    documents: list[Document] = list(read_documents(tmp_path / "corpus"))
    for document in documents:
        splits.setdefault(document.family, set()).add(document.split)
    assert len(splits) == 100
    assert all(len(split) == 1 for split in splits.values())
    assert 8 <= sum(split == {"validation"} for split in splits.values()) <= 32


def test_source_that_does_not_exist(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", {"a/x.c": c_file(1)})
    absent = directory(tmp_path / "nowhere", "absent")
    with pytest.raises(DataError, match=r"source absent: .*nowhere"):
        build_corpus(make_config(directory(root), absent), tmp_path / "corpus")
    build_corpus(make_config(directory(root), {**absent, "optional": True}), tmp_path / "corpus")
    assert "nowhere" in ledger(tmp_path / "corpus", "absent")["missing"]["absent"]


def test_damaged_archive_leaves_no_corpus(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(make_tree(tmp_path / "tree", {"x.c": c_file(1), "y.c": os.urandom(9000)}), "x")
    archive.write_bytes(archive.read_bytes()[:-2000])
    config = make_config({"name": "x", "kind": "archives", "path": str(archive)})
    with pytest.raises(DataError, match=r"x\.tar\.gz: truncated or damaged"):
        build_corpus(config, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_every_config_error_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "sources:\n"
        "  - {name: a, kind: directory, pathh: x}\n"
        "  - {name: b, kind: internet}\n"
        "  - {name: c, kind: archives, path: x, licence: MIT or}\n"
        "  - {name: d, kind: debian_source, packages: [-o=x]}\n"
        "licences: {allow: [Foo]}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path, [], CorpusConfig)
    problems = "\n".join(caught.value.problems)
    for words in ("did you mean path?", "'internet'", "'MIT or'", "-o=x", "Foo"):
        assert words in problems
    twice = {"sources": [directory(tmp_path), directory(tmp_path)]}
    with pytest.raises(ValueError, match="given twice: tree"):
        CorpusConfig.model_validate(twice)


def test_show_and_verify(tmp_path: Path) -> None:
    files = {"a/x.c": c_file(1), "a/y.c": c_file(2), "a/z.f": fortran_file(1), "b/same.c": c_file(1)}
    out = tmp_path / "corpus"
    absent = directory(tmp_path / "nowhere", "absent", optional=True)
    build_corpus(make_config(directory(make_tree(tmp_path / "tree", files), licence="ISC"), absent), out)
    rows = {(row.group, row.name): (row.files, row.bytes) for row in describe(out)}
    assert rows["language", "c"] == (2, 2 * len(c_file(1)))
    assert rows["licence", "ISC"] == (1, len(fortran_file(1)))
    assert rows["source", "tree"] == (3, sum(map(len, files.values())) - len(c_file(1)))
    assert rows["drop reason", "duplicate"] == (1, len(c_file(1)))
    assert any(group == "missing" and "nowhere" in name for group, name in rows)
    assert verify(out) == 3
    victim = out / "documents-00000.h5"
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"documents-00000\.h5: \d+ bytes"):
        verify(out)
    (out / "ledger.json").write_text("{}")
    with pytest.raises(DataError, match="ledger"):
        describe(out)


@pytest.mark.parametrize("name", ["installed.yaml", "debian-hpc.yaml"])
def test_shipped_configs_are_valid(name: str) -> None:
    assert load_config(CONFIGS / name, [], CorpusConfig).sources


def test_installed_numpy(tmp_path: Path) -> None:
    """Real files: numpy's C and Fortran, as configs/corpus/installed.yaml takes them."""
    config = load_config(CONFIGS / "installed.yaml", [], CorpusConfig)
    numpy = [source for source in config.sources if source.name == "numpy"]
    manifest = build_corpus(config.model_copy(update={"sources": numpy}), tmp_path / "corpus")
    documents = manifest.counts["documents"]["train"]
    assert documents["c"] >= 20
    assert documents["fortran-free"] >= 30
    assert documents["fortran-fixed"] >= 10
    for document in read_documents(tmp_path / "corpus"):
        if not document.path.endswith(".inc"):
            is_fortran = document.path.rpartition(".")[2].startswith("f")
            assert is_fortran == document.language.startswith("fortran"), document.path


def test_the_room_does_not_import_torch() -> None:
    code = "import sys, hpctrain.corpus.build, hpctrain.corpus.show; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_build_files_and_documentation_are_kept_where_asked(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "tree",
        {
            "CMakeLists.txt": b"# SPDX-License-Identifier: MIT\n" + b"find_package(MPI REQUIRED)\n" * 5,
            "Makefile": b"# SPDX-License-Identifier: MIT\nall: solve\n\t$(FC) -o solve solve.f90 $(LIBS)\n"
            * 2,
            "README.md": b"# Solve\n\n" + b"Solves what is to be solved, quickly and in parallel.\n" * 3,
            "solve.c": c_file(1),
            "table.csv": b"1,2,3\n" * 40,
        },
    )
    for also in ([], ["build"], ["docs", "build"]):
        config = make_config(directory(root, licence="MIT"), split={"validation_share": 0}, also=also)
        build_corpus(config, tmp_path / f"corpus{len(also)}")
    kept = [
        {document.path: document.language for document in read_documents(tmp_path / f"corpus{number}")}
        for number in range(3)
    ]
    assert kept[0] == {"solve.c": "c"}
    assert kept[1] == {"solve.c": "c", "CMakeLists.txt": "build", "Makefile": "build"}
    assert kept[2] == {**kept[1], "README.md": "docs"}


def test_samples_of_dropped_files_hold_no_secrets(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    key = b"AKIA" + b"Q3EGRLTMXKZ7WNP5"
    root = make_tree(
        tmp_path / "tree",
        {"a.c": c_file(1), "b.c": b'/* DO NOT EDIT */\nchar *k = "' + key + b'";\n' + c_file(2)},
    )
    build_corpus(make_config(directory(root), split={"validation_share": 0}), tmp_path / "corpus")
    samples = [
        sample
        for table in (tmp_path / "corpus").glob("verdicts-*.parquet")
        for sample in pq.read_table(table, columns=["sample"])["sample"].to_pylist()
        if sample
    ]
    assert len(samples) == 1
    assert samples[0].startswith(b"/* DO NOT EDIT */")
    assert key not in samples[0]


def test_odd_content_is_kept_as_it_is_or_dropped_with_a_reason(tmp_path: Path) -> None:
    latin = c_file(1).replace(b"/*", b"/* \xe9t\xe9 \xff\xfe", 1)
    root = make_tree(
        tmp_path / "tree",
        {
            "a/latin.c": latin,
            "b/mac.c": c_file(2).replace(b"\n", b"\r"),
            "c/windows.c": c_file(3).replace(b"\n", b"\r\n"),
            "d/wide.c": c_file(4).decode().encode("utf-16"),
            "e/line.c": c_file(5).rstrip() + b" " + b"int x; " * (100_000_000 // 7),
        },
    )
    config = make_config(
        directory(root, licence="MIT"), split={"validation_share": 0}, filters={"max_bytes": 200_000_000}
    )
    build_corpus(config, tmp_path / "corpus")
    kept = {document.path: document.content for document in read_documents(tmp_path / "corpus")}
    assert set(kept) == {"a/latin.c", "b/mac.c", "c/windows.c"}
    assert all(content == (root / path).read_bytes() for path, content in kept.items())
    assert dropped(tmp_path / "corpus") == {"binary": 1, "long lines": 1}
