"""Files of examined units: whole or not there, and read piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpctrain.corpus.analyse import Analyst, analyse_unit, places_of
from hpctrain.corpus.contamination import Benchmarks, ContaminationConfig
from hpctrain.corpus.gather import NO_CAP, choose_cap, path_hash
from hpctrain.corpus.nearby import DuplicatesConfig
from hpctrain.corpus.secrets import SecretsConfig
from hpctrain.corpus.units import Row, RowFile, write_rows
from hpctrain.errors import DataError


def _write(path: Path, count: int = 50, size: int = 100_000) -> list[bytes]:
    contents = [bytes([65 + i % 26]) * size for i in range(count)]
    with write_rows(path, Row) as writer:
        for number, content in enumerate(contents):
            writer.add(Row(f"kept/{number}.c", len(content), language="c", content=content))
            writer.add(Row(f"dropped/{number}.c", 7, reason="too small"))
    return contents


def test_rows_are_read_in_pieces(tmp_path: Path) -> None:
    contents = _write(tmp_path / "unit")
    with RowFile(tmp_path / "unit") as unit:
        assert (unit.rows, unit.found) == (100, 50)
        rows = unit.found_rows()
        assert rows.tolist() == list(range(0, 100, 2))
        assert len(set(unit.groups_of(rows).tolist())) > 3  # about a MiB of content each
        some = rows[[3, 4, 30, 49]]
        assert [row["content"] for row in unit.read(some, ["content"])] == [
            contents[i] for i in (3, 4, 30, 49)
        ]
        names = [path for path, reason in unit.tuples("path", "reason") if reason]
        assert names == [f"dropped/{number}.c" for number in range(50)]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with write_rows(tmp_path / "unit", Row) as writer:
            writer.add(Row("a", 1))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found(tmp_path: Path, at: float) -> None:
    content = np.random.default_rng(1).bytes(100_000)
    with write_rows(tmp_path / "unit", Row) as writer:
        writer.add(Row("a.c", len(content), content=content))
    damaged = bytearray((tmp_path / "unit").read_bytes())
    damaged[int(at * len(damaged))] ^= 4
    (tmp_path / "unit").write_bytes(damaged)
    unit = RowFile(tmp_path / "unit")
    with pytest.raises(DataError, match=r"unit: not a readable result.*remove it"):
        list(unit.read(unit.found_rows(), ["content"]))
    unit.close()


def test_only_what_is_not_analysed_yet_is_analysed(tmp_path: Path) -> None:
    with write_rows(tmp_path / "unit.parquet", Row) as writer:
        for number in range(6):
            text = b"double f%d(double x) { return x * %d; } /* mail joe.doe@uni-x.edu */\n" % (
                number,
                number,
            )
            writer.add(Row(f"{number}.c", len(text), language="c", content=text * 20))
    analyst = Analyst(SecretsConfig(), DuplicatesConfig(), Benchmarks.load(ContaminationConfig()))
    heard: list[float] = []

    def analyse(rows: list[int], languages: list[str]) -> int:
        with RowFile(tmp_path / "unit.parquet") as unit:
            return analyse_unit(analyst, unit, np.array(rows, np.int64), languages, heard.append)

    assert analyse([1, 4], ["c", "c"]) == 2
    assert analyse([1, 4], ["c", "c"]) == 0
    assert analyse([0, 1, 4, 5], ["c", "c", "c", "c"]) == 2
    assert analyse([1, 5], ["cpp", "c"]) == 1  # a header whose neighbours changed
    assert len(heard) == 5
    with RowFile(analyst.path_of(tmp_path / "unit.parquet")) as analysed:
        assert list(analysed.tuples("row", "language")) == [(0, "c"), (1, "cpp"), (4, "c"), (5, "c")]
        assert places_of(analysed, np.array([1, 5])).tolist() == [1, 3]
        (record,) = analysed.read(np.array([3]), ["content", "secrets", "size"])
        assert b"joe.doe" not in record["content"]
        assert record["secrets"] == "e-mail address=20"
        assert record["size"] == len(record["content"])


def test_a_cap_holds_to_the_byte() -> None:
    weights = np.zeros(NO_CAP, np.int64)
    weights[[3, 70, 9000]] = [100, 50, 1]
    assert choose_cap(weights, 99) == 2
    assert choose_cap(weights, 100) == 69
    assert choose_cap(weights, 150) == 8999
    assert choose_cap(weights, 151) == NO_CAP - 1
    assert 0 <= path_hash("a/b.c") < NO_CAP
