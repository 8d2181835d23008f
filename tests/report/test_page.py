"""The page and its pictures: self-contained, escaped, and there for young runs too."""

from __future__ import annotations

import base64
import re
import struct
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import FakeRun, NewRun

from hpctrain.errors import ConfigError, DataError
from hpctrain.report.page import fold_events, write_page
from hpctrain.report.pictures import smooth, spread


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


class Elements(HTMLParser):
    """Collects the tags of a page and every attribute that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.resources: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        fetching = ("src", "srcset", "href", "data", "action", "background")
        self.resources += [value or "" for name, value in attributes if name in fetching]


def test_the_page_is_self_contained(restarted: FakeRun, tmp_path: Path) -> None:
    html = tmp_path / "out" / "report.html"
    write_page(restarted.directory, html)
    page = html.read_text(encoding="utf-8")
    elements = Elements(page)
    assert not {"script", "link", "iframe", "object"} & set(elements.tags)
    assert len(elements.resources) == 8  # four pictures, light and dark
    for resource in elements.resources:
        head, _, content = resource.partition(",")
        assert head == "data:image/png;base64"
        image = base64.b64decode(content, validate=True)
        assert min(png_size(image)) > 500
        assert len(image) > 10_000
    assert not re.search(r"https?://|url\(|@import", page)
    assert sorted(path.name for path in html.parent.iterdir()) == ["report.html", "report.png"]
    assert min(png_size(html.with_suffix(".png").read_bytes())) > 1000


def test_the_page_tells_the_numbers(restarted: FakeRun, tmp_path: Path) -> None:
    write_page(restarted.directory, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for expected in (
        "39.9M", "finished, step 400 of 400", "from step 200 on 4 ranks, ZeRO 2; 17 steps repeated",
        "BSD-3-Clause", "deepspeed 0.19.8", "global_batch_size: 16", "3.420 → 1.048",
    ):  # fmt: skip
        assert expected in page


def test_everything_from_files_is_escaped(new_run: NewRun, tmp_path: Path) -> None:
    attack = "<script>alert('$1')</script>"
    run = new_run(name=attack, shards=Path(attack))
    run.event("start", 0, parameters=1, device=attack, precision=attack, versions={attack: attack},
              layout={"zero_stage": attack, "pipeline_stages": 1})  # fmt: skip
    run.train(0, 40)
    run.event("export", 40, path=attack, reason=attack)
    run.start()
    run.event(attack, 40)
    write_page(run.directory, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "script" not in Elements(page).tags
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_languages_are_escaped(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(evaluate_every=0)
    run.start()
    lines = '{"step": 0, "bits_per_byte_by_language": {"<b>$x": 2.0}, "loss_by_language": {"<b>$x": 1.0}}\n'
    (run.directory / "metrics.jsonl").write_text(lines, encoding="utf-8")
    write_page(run.directory, tmp_path / "report.html")
    assert "<b>$x" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("last", [None, 0, 1, 2])
@pytest.mark.parametrize("evaluate_every", [0, 40])
def test_young_runs(new_run: NewRun, tmp_path: Path, last: int | None, evaluate_every: int) -> None:
    run = new_run(evaluate_every=evaluate_every)
    if last is not None:
        run.start()
        run.train(0, last)
    write_page(run.directory, tmp_path / "report.html")
    assert "no-such-shards" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_not_a_run_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_page(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_page_may_not_have_the_name_of_its_picture(new_run: NewRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HTML"):
        write_page(new_run().directory, tmp_path / "report.png")


def test_an_unwritable_place_is_a_data_error(new_run: NewRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"):
        write_page(new_run().directory, tmp_path / "file" / "report.html")


def test_saves_in_a_row_are_one_line(restarted: FakeRun) -> None:
    from hpctrain.train.metrics import read_events

    rows = fold_events(read_events(restarted.directory))
    assert [row.kind for row in rows] == ["start", "save × 5", "start", "restore", "save × 4", "stop"]  # noqa: RUF001
    assert rows[1].steps == "0 … 200"


def test_smoothing_keeps_lines_straight_and_ends_in_place() -> None:
    line = [float(value) for value in range(50)]
    means = smooth(line, 9)
    assert means[:46].tolist() == pytest.approx(line[:46])
    assert len(means) == 50
    assert smooth([3.0], 9).tolist() == [3.0]


def test_labels_are_spread() -> None:
    places = spread([0.5, 0.51, 0.9, 0.0, 0.505], gap=0.1, floor=0.05)
    ordered = sorted(places)
    assert all(after - before > 0.0999 for before, after in pairwise(ordered))
    assert places[3] == 0.05
    assert places[2] == 0.9
    assert places[0] < places[4] < places[1]
