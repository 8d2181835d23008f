"""What is settled over a whole scope: licences, headers and families, also of a tree in slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from small_corpus import c_file, content_of, fortran_file, make_config

from hpctrain.corpus.build import build_corpus
from hpctrain.corpus.document import read_documents
from hpctrain.corpus.entry import Entry, Source, UnitSource
from hpctrain.corpus.sources import DirectorySource


@dataclass(frozen=True)
class Slice:
    """Some files in memory."""

    key: str
    scope: str
    files: tuple[tuple[str, bytes], ...]

    @property
    def work_bytes(self) -> int:
        return sum(len(content) for _, content in self.files)

    def fingerprint(self) -> str:
        return str(self.files)

    def entries(self) -> Iterator[Entry]:
        for path, content in self.files:
            yield Entry(path, len(content), lambda content=content: content, licence="")


class SlicedSource(DirectorySource):
    """A source in memory, cut as a test wants it."""

    cuts: list[int] = []
    files: dict[str, bytes] = {}
    scopes: list[str] = []

    def open(self) -> Source:
        items = sorted(self.files.items())
        bounds = [0, *self.cuts, len(items)]
        scopes = self.scopes or ["all"] * (len(bounds) - 1)
        parts = zip(bounds, bounds[1:], scopes, strict=False)
        return UnitSource([Slice(f"{a}", scope, tuple(items[a:b])) for a, b, scope in parts])


FILES = {
    "COPYING": b"Boost Software License - Version 1.0 - August 17th, 2003\n",
    "a/macros.h": b"#define LARGE_NUMBER_OF_ROWS 1000000\n#define LARGE_NUMBER_OF_COLUMNS 1000000\nint a;\n"
    * 2,
    "a/part.cpp": b"namespace part { class Grid { public: int rows; int columns; Grid(); }; }\n" * 3,
    "b/one.f": fortran_file(1),
    **{f"src/large{chr(97 + i // 26)}{chr(97 + i % 26)}.c": c_file(i) for i in range(70)},
    **{f"src/refused{i}.c": c_file(i + 100).replace(b"MIT", b"GPL-2.0-only") for i in range(3)},
}


def _source(**settings: object) -> SlicedSource:
    return SlicedSource.model_validate({"name": "s", "kind": "directory", "path": "-", **settings})


def _build(source: SlicedSource, out: Path) -> dict[str, tuple[str, str, str]]:
    config = make_config(
        {"name": "s", "kind": "directory", "path": "-"}, licences={"allow": ["BSL-1.0", "MIT"]}
    )
    build_corpus(config.model_copy(update={"sources": [source]}), out)
    return {d.path: (d.language, d.licence, d.family) for d in read_documents(out)}


def test_slices_of_one_scope_are_settled_together(tmp_path: Path) -> None:
    whole = _build(_source(files=FILES), tmp_path / "whole")
    assert whole["a/macros.h"][:2] == ("cpp", "BSL-1.0")
    assert whole["b/one.f"][:2] == ("fortran-fixed", "BSL-1.0")
    assert len({family for _, _, family in whole.values()}) > 60  # a large directory, by stem
    for number, cuts in enumerate([[1], [2], [1, 2, 3, 4], [40]]):
        assert _build(_source(files=FILES, cuts=cuts), tmp_path / str(number)) == whole
    assert content_of(tmp_path / "0").keys() == content_of(tmp_path / "whole").keys()


def test_scopes_know_nothing_of_each_other(tmp_path: Path) -> None:
    found = _build(_source(files=FILES, cuts=[1, 2], scopes=["x", "y", "z"]), tmp_path / "apart")
    assert "b/one.f" not in found  # the licence file is in another scope
    assert "a/macros.h" not in found


def test_families_count_only_what_is_accepted(tmp_path: Path) -> None:
    few = {path: content for path, content in FILES.items() if not path.startswith("src/large")}
    few |= {f"src/large{i}.c": c_file(i).replace(b"MIT", b"GPL-2.0-only") for i in range(70)}
    few |= {f"src/small{i}.c": c_file(i + 300) for i in range(3)}
    found = _build(_source(files=few), tmp_path / "few")
    assert {family for path, (_, _, family) in found.items() if path.startswith("src/")} == {"s/src"}
