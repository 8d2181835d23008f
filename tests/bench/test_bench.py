"""The benches run as documented, and their peers train the same model: small shapes, no absolute times."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from runner import environment

ROOT = Path(__file__).parents[2]


def bench(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    out = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--json", str(out)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(out.read_text())
    assert told["machine"]["torch"]
    for row in told["rows"]:
        assert set(row) == {"case", "variant", "metric", "median", "spread", "ratio"}
    return list(told["rows"])


@pytest.mark.slow
def test_every_step_trains_the_same_model_and_ours_is_not_far_slower_than_transformers(
    tmp_path: Path,
) -> None:
    variants = "products,hpctrain,plain,transformers,transformers+deepspeed"  # and LitGPT where it is
    shape = ["--preset", "3m", "--vocabulary", "2048", "--sequence", "256", "--micro-batch", "2"]
    rows = bench(tmp_path, "step", *shape, "--variants", f"{variants},litgpt", "--rounds", "3")
    losses = [row for row in rows if row["metric"].startswith("first loss")]
    expected = {*variants.split(","), *(["litgpt"] if find_spec("litgpt") else [])} - {"products"}
    assert {row["variant"] for row in losses} == expected
    assert all(abs(row["median"]) < 1e-4 for row in losses)
    (ours,) = (
        row for row in rows if row["variant"] == "hpctrain" and "ratio to transformers" in row["metric"]
    )
    # About 1 for so small a model, whose step is mostly calls; half would be a regression on any machine.
    assert ours["ratio"] > 0.5


@pytest.mark.slow
def test_attention_backends_agree_and_documents_pay(tmp_path: Path) -> None:
    rows = bench(tmp_path, "attention", "--lengths", "512", "--documents", "1,16", "--rounds", "3")
    differences = [row["median"] for row in rows if "largest difference x 1e6" in row["metric"]]
    assert len(differences) > 4
    assert max(differences) < 100
    milliseconds = {
        row["case"]: row["median"]
        for row in rows
        if row["variant"] == "sdpa" and row["metric"].startswith("forward and backward, ms")
    }
    assert milliseconds["512 in 16"] < milliseconds["512 in 1"]


@pytest.mark.slow
def test_the_loader_is_measured_beside_its_peers(tmp_path: Path) -> None:
    options = ["--lengths", "256", "--tokens", "32768", "--rounds", "1", "--seconds", "0.2"]
    rows = bench(tmp_path, "loader", "--synthetic", "200000", *options, "--rates", "45455")
    assert any("wait" in row["metric"] for row in rows)
    assert len({row["variant"] for row in rows}) > 2
