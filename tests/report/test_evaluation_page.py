"""The page of an evaluation: whole, escaped, and true to its results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpctrain.errors import ConfigError
from hpctrain.report.evaluation_page import render_evaluation, write_evaluation_page
from hpctrain.tasks.result import Result, Sample, Score


def sample(number: int, verdict: str, **more: object) -> Sample:
    return Sample.model_validate(
        {
            "problem": f"axpy-{number}", "task": "kernels", "language": "c", "programming_model": "openmp",
            "prompt": "/* <b>y += a x</b> */", "answer": "for (;;) <script>alert(1)</script>",
            "verdict": verdict, **more,
        }
    )  # fmt: skip


def results() -> list[Result]:
    scores = [
        Score(metric="build@1", value=0.75, count=4),
        Score(metric="pass@1", value=0.25, count=4),
        Score(metric="pass@1", value=0.5, count=2, group={"language": "c", "model": "openmp"}),
        Score(metric="speedup@1", value=None, count=0),
    ]
    answers = [
        sample(0, "passed", figures={"speedup 2 threads": 1.9, "speedup 4 threads": 3.4}, seconds=0.5),
        sample(1, "wrong", detail="FAIL max_diff=1"),
        *(sample(number, "not built", detail="x" * 20_000) for number in range(2, 60)),
    ]
    floor = [Score(metric="pass@1", value=0.0, count=4), Score(metric="build@1", value=1.0, count=4)]
    return [
        Result(
            suite="kernels", candidate="runs/a", scores=scores, samples=answers, settings={"samples": 1},
            tokens_per_second=812.5, skipped={"axpy_cuda": "no nvcc"},
        ),
        Result(suite="kernels", candidate="floor:serial-copy", scores=floor),
    ]  # fmt: skip


def test_every_score_and_answer_is_there(tmp_path: Path) -> None:
    write_evaluation_page([results()], tmp_path / "out" / "page.html")
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    row = r'pass@1</th><td class="n">4 problems</td>\s*<td class="n">0.250</td>\s*<td class="n">0.000</td>'
    assert re.search(row, page)
    assert "pass@1, c, openmp" in page
    assert "not built: 58, of which 40 are shown" in page
    assert "8,000" not in page
    assert "14,000 characters left out" in page
    assert "axpy_cuda" in page
    assert "no nvcc" in page
    assert len(re.findall(r'(?:src|srcset)="data:image/png;base64,', page)) == 8  # four, in light and in dark


def test_what_models_write_is_escaped() -> None:
    page = render_evaluation([results()])
    assert not re.search(r"<script|<link|<iframe|url\(|@import|<b>y", page)
    assert "&lt;script&gt;alert(1)" in page


def test_a_suite_without_answers_has_no_pictures_of_them() -> None:
    plain = Result(
        suite="bits-per-byte", candidate="runs/a",
        scores=[Score(metric="bits per byte", value=2.2, count=900, unit="bytes", lower_is_better=True)],
    )  # fmt: skip
    page = render_evaluation([[plain], results()])
    assert "2.200" in page
    assert page.count("<figure>") == 4


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        write_evaluation_page([results()], tmp_path)
