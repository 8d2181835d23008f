"""Tables with a file a row: JSON lines and Parquet, with the broken and hostile ones among them."""

import gzip
import io
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.corpus.entry import Entry, UnitSource
from hpctrain.corpus.rows import Columns, TableLimits
from hpctrain.corpus.tables import open_table
from hpctrain.errors import DataError

LIMITS = TableLimits(row_bytes=1 << 20, total_bytes=1 << 26)
STACK = Columns(
    content="content",
    path="max_stars_repo_path",
    repository="max_stars_repo_name",
    licence="max_stars_repo_licenses",
)
BIGQUERY = Columns(content="content", path="path", repository="repo_name", licence="license")
ROWS: list[dict[str, Any]] = [
    {"repo_name": "one/solver", "path": "src/a.f90", "license": "mit", "content": "program a\r\nend\n"},
    {"repo_name": "two/mesh", "path": "b.c", "license": "gpl-2.0", "content": "int café;\n"},
    {"repo_name": "two/mesh", "path": "c.c", "license": None, "content": "int c;\n" * 100},
]
EXPECTED = {
    "one/solver/src/a.f90": b"program a\r\nend\n",
    "two/mesh/b.c": "int café;\n".encode(),
    "two/mesh/c.c": b"int c;\n" * 100,
}


def _lines(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row) + end for row in rows).encode()


def _zstd(content: bytes) -> bytes:
    sink = io.BytesIO()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
        stream.flush()
        stream.close()
    return sink.getvalue()


def _open(
    path: Path, columns: Columns = BIGQUERY, limits: TableLimits = LIMITS, **options: Any
) -> UnitSource:
    return open_table(path, columns, limits, **options)


def _contents(source: UnitSource) -> dict[str, bytes]:
    return {entry.path: entry.read() for entry in source.entries() if not entry.problem}


def _problems(source: UnitSource) -> list[Entry]:
    return [entry for entry in source.entries() if entry.problem]


# --- JSON lines -------------------------------------------------------------------------------------------

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "rows.jsonl": bytes,
    "rows.json": bytes,
    "rows.jsonl.gz": gzip.compress,
    "000000000000.json.gz": gzip.compress,
    "rows.jsonl.zst": lambda content: (
        subprocess.run(["zstd", "-qc"], input=content, stdout=subprocess.PIPE, check=True).stdout
    ),
}


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"], ids=["LF", "CRLF", "CR", "empty lines"])
def test_json_lines(tmp_path: Path, name: str, end: str) -> None:
    (tmp_path / name).write_bytes(PACKERS[name](_lines(ROWS, end)))
    source = _open(tmp_path)
    assert _contents(source) == EXPECTED
    assert [entry.licence for entry in source.entries()] == ["MIT", "GPL-2.0-only", ""]
    assert [entry.size for entry in source.entries()] == [len(content) for content in EXPECTED.values()]


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + _lines(ROWS))
    assert _contents(_open(tmp_path)) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_lines(ROWS).decode().encode(encoding))
    with pytest.raises(DataError, match=r"rows\.jsonl: is UTF-16"):
        _contents(_open(tmp_path))


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b"{truncated", "line 2: Expecting property name"),
        (b"[1, 2]", "line 2: not an object"),
        (b'{"repo_name": "x", "path": "a.c"}', "line 2: 'content' is missing"),
        (b'{"repo_name": "x", "path": "a.c", "content": 5}', "line 2: 'content' is no text"),
        (b'{"repo_name": "x", "path": null, "content": ""}', "line 2: 'path' is missing"),
        (b'{"repo_name": "x", "path": "a.c", "content": "caf\xe9"}', "line 2: not UTF-8"),
        (b'{"repo_name": "x", "path": "a.c", "content": "\\ud800"}', "line 2: not UTF-8"),
        (b'{"repo_name": "x", "path": "\\ud800", "content": ""}', "line 2: not UTF-8"),
        (b"[" * 100_000, "line 2: nested too deep"),
        (b"9" * 10_000, "line 2: Exceeds the limit"),
        (b"\0\0\0", "line 2: Expecting value"),
    ],
)
def test_broken_lines_cost_themselves_only(tmp_path: Path, line: bytes, detail: str) -> None:
    first, *rest = ROWS
    (tmp_path / "rows.jsonl").write_bytes(_lines([first]) + line + b"\n" + _lines(rest))
    source = _open(tmp_path)
    assert _contents(source) == EXPECTED
    (broken,) = _problems(source)
    assert (broken.path, broken.problem) == ("rows.jsonl:2", "broken row")
    assert broken.detail.startswith(detail)


@pytest.mark.slow
def test_line_of_100_megabytes_is_not_held(tmp_path: Path) -> None:
    first, *rest = ROWS
    with (tmp_path / "rows.jsonl").open("wb") as file:
        file.write(_lines([first]) + b'{"content": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + _lines(rest))
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from hpctrain.corpus.tables import open_table\n"
        "from hpctrain.corpus.rows import Columns, TableLimits\n"
        "source = open_table(Path(sys.argv[1]), Columns(), TableLimits(1 << 20, 1 << 28))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = [(e.path, e.problem, e.detail) for e in source.entries()]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(found), *found[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    growth_kib, entries, path, *problem = done.stdout.split()
    assert (entries, path) == ("4", "rows.jsonl:2")
    assert " ".join(problem).startswith("too large line 2")
    assert int(growth_kib) < 40 << 10


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_truncated_table_is_named_and_salvaged(tmp_path: Path, name: str) -> None:
    rows = [{"path": f"{n}.c", "content": os.urandom(2000).hex()} for n in range(400)]
    packed = PACKERS[name](_lines(rows))
    (tmp_path / name).write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(DataError, match=f"{name}: truncated or damaged"):
        _contents(_open(tmp_path, Columns()))
    *found, last = _open(tmp_path, Columns(), skip_damaged=True).entries()
    assert 100 < len(found) < 400
    assert (last.path, last.problem) == (name, "damaged")


def test_compressed_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b" " * (4 << 20)))
    with pytest.raises(DataError, match="bomb"):
        _contents(_open(tmp_path, limits=TableLimits(1 << 20, 2 << 20)))


def test_column_that_no_line_has(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_lines([{"text": "int x;", "nid": 3}] * 3))
    with pytest.raises(DataError, match=r"no column 'content', 'path'; it has nid, text"):
        _contents(_open(tmp_path, Columns()))


def test_rows_without_paths(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(_lines([{"text": "int x;"}, {"text": "int y;"}]))
    source = _open(tmp_path, Columns(content="text", path=""), extension=".c")
    assert _contents(source) == {
        "c.jsonl/row-000000001.c": b"int x;",
        "c.jsonl/row-000000002.c": b"int y;",
    }


@pytest.mark.parametrize("path", ["../up.c", "/etc/passwd", "a/../../b.c", "..\\win.c", "", "x" * 5000])
def test_paths_that_lead_elsewhere(tmp_path: Path, path: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_lines([{"path": path, "content": "int x;"}]))
    assert [(entry.path, entry.problem) for entry in _open(tmp_path, Columns()).entries()] == [
        ("rows.jsonl:1", "unsafe path")
    ]


def test_path_given_twice_gets_its_row_number(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_lines([ROWS[0], ROWS[0], ROWS[0]]))
    assert list(_contents(_open(tmp_path))) == [
        "one/solver/src/a.f90", "one/solver/src/a~2.f90", "one/solver/src/a~3.f90",
    ]  # fmt: skip


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["a.c", "content", "path"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["path", "content", "license"]), inner),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(), max_size=5))
def test_any_lines_are_survived(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        found = list(_open(path, Columns(licence="license")).entries())
    except DataError:
        return
    assert len({entry.path for entry in found}) == len(found)
    for entry in found:
        entry.path.encode()
        if not entry.problem:
            assert len(entry.read()) == entry.size


# --- Parquet ----------------------------------------------------------------------------------------------


def _stack_table() -> pa.Table:
    return pa.table(
        {
            "hexsha": ["0", "1", "2"],
            "max_stars_repo_path": [row["path"] for row in ROWS],
            "max_stars_repo_name": [row["repo_name"] for row in ROWS],
            "max_stars_repo_licenses": [["MIT"], ["GPL-2.0", "Apache-2.0"], ["MIT", "Some-Unknown"]],
            "content": [row["content"] for row in ROWS],
            "max_stars_count": [1, 2, None],
        }
    )


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_parquet_in_the_shape_of_the_stack(tmp_path: Path, compression: str, dictionary: bool) -> None:
    pq.write_table(
        _stack_table(), tmp_path / "data.parquet", compression=compression, use_dictionary=dictionary,
        row_group_size=2,
    )  # fmt: skip
    source = _open(tmp_path, STACK)
    assert _contents(source) == EXPECTED
    assert [entry.licence for entry in source.entries()] == ["MIT", "Apache-2.0 AND GPL-2.0-only", ""]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_string(), pa.large_binary()])
def test_parquet_column_types(tmp_path: Path, kind: pa.DataType) -> None:
    contents = pa.array([b"int a;", None, b"", b"int d;"], pa.binary()).cast(kind)
    pq.write_table(pa.table({"path": list("abcd"), "content": contents}), tmp_path / "data.parquet")
    source = _open(tmp_path, Columns())
    assert list(_contents(source).values()) == [b"int a;", b"", b"int d;"]
    (broken,) = _problems(source)
    assert (broken.problem, broken.detail) == ("broken row", "row 2: 'content' is missing")


def test_parquet_without_the_named_column(tmp_path: Path) -> None:
    pq.write_table(_stack_table(), tmp_path / "data.parquet")
    with pytest.raises(DataError, match=r"data\.parquet: has no column 'path'; it has content, hexsha, max_"):
        _contents(_open(tmp_path, Columns()))
    with pytest.raises(DataError, match="column 'max_stars_count' is int64, not text"):
        _contents(_open(tmp_path, Columns(content="max_stars_count", path="")))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9, 0.999])
def test_truncated_parquet_is_named(tmp_path: Path, share: float) -> None:
    pq.write_table(_stack_table(), tmp_path / "data.parquet")
    content = (tmp_path / "data.parquet").read_bytes()
    (tmp_path / "data.parquet").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"data\.parquet: truncated or damaged"):
        _contents(_open(tmp_path, STACK))


def test_flipped_bits_in_parquet_are_found_or_harmless(tmp_path: Path) -> None:
    pq.write_table(_stack_table(), tmp_path / "data.parquet", write_page_checksum=True, compression="zstd")
    content = (tmp_path / "data.parquet").read_bytes()
    found = 0
    for place in range(4, len(content) - 8, 97):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        (tmp_path / "data.parquet").write_bytes(flipped)
        try:
            _contents(_open(tmp_path, STACK))
        except DataError as reason:
            assert "data.parquet" in str(reason)  # noqa: PT017 - some bits say nothing
            found += 1
    assert found


def test_large_rows_are_not_read(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"path": ["big.c", "a.c"], "content": ["x" * (2 << 20), "int a;"]}), tmp_path / "d.parquet"
    )
    source = _open(tmp_path, Columns())
    assert list(_contents(source).values()) == [b"int a;"]
    assert [(entry.problem, entry.size) for entry in _problems(source)] == [("too large", 2 << 20)]


@pytest.mark.slow
def test_one_long_text_named_often_is_not_spread_out(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * (16 << 20)]))
    licences = pa.ListArray.from_arrays(pa.array(range(3001), pa.int32()), texts)
    table = pa.table({"content": texts, "path": texts, "licence": licences.cast(pa.list_(texts.type))})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(_problems(_open(tmp_path, Columns(licence="licence")))) == 3000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10


# --- both -------------------------------------------------------------------------------------------------


def test_units_can_be_sent_and_files_of_one_repository_share_a_scope(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines(ROWS[:2]))
    (tmp_path / "b.jsonl").write_bytes(_lines(ROWS[2:]))
    units = _open(tmp_path).units()
    assert [unit.key for unit in units] == ["a.jsonl", "b.jsonl"]
    assert len({unit.scope for unit in units}) == 1
    assert len({unit.scope for unit in _open(tmp_path, Columns()).units()}) == 2
    assert [pickle.loads(pickle.dumps(unit)).fingerprint() for unit in units] == [
        unit.fingerprint() for unit in units
    ]
    assert _open(tmp_path, Columns()).units()[0].fingerprint() != units[0].fingerprint()


def test_a_sample_can_be_chosen_without_reading(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(_lines(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    for unit in _open(tmp_path).units():
        small = {entry.path for entry in unit.entries() if entry.size < 100}
        assert {e.path: e.read() for e in unit.entries() if e.path in small} == {
            path: content for path, content in EXPECTED.items() if path in small
        }


def test_directory_without_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no table"):
        _open(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        _open(tmp_path / "nowhere")
