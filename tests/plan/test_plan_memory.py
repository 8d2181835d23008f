"""The predicted memory beside what tensors of real ranks hold, and the arithmetic by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner import environment

from hpctrain.model import loss
from hpctrain.model.config import ModelConfig, RecomputeLevel, presets
from hpctrain.train.memory import CHUNK_BYTES, Layout, memory_of, stage_parameters, state_bytes

ROOT = Path(__file__).parents[2]
CASES = [
    "ZeRO 1, fp32", "ZeRO 1, bf16", "ZeRO 2", "ZeRO 3, fp32", "ZeRO 3, bf16", "pipeline, fp32",
    "pipeline, bf16", "held out: ZeRO", "held out: pipeline",
]  # fmt: skip
"""Beginnings of the names in bench/plan.py; all cases together."""


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_prediction_is_within_ten_percent_of_real_ranks(tmp_path: Path, case: str) -> None:
    command = ["bench", "plan", "--what", "memory", "--only", case, "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    values = {(row["case"], row["metric"], row["variant"]): row["median"] for row in rows}
    measured = {key[:2]: value for key, value in values.items() if key[2] == "measured"}
    assert measured
    for (name, metric), value in measured.items():
        tolerance = 0 if metric == "fixed buffers, MB" else 0.1
        assert values[name, metric, "predicted"] == pytest.approx(value, rel=tolerance), name


def test_every_case_of_the_measurement_is_tested() -> None:
    code = "import bench.plan; print(*bench.plan.CASES, sep=chr(10))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()
    assert [name for name in names if not name.startswith(tuple(CASES))] == []


def test_the_chunk_of_logits_is_that_of_the_loss() -> None:
    assert loss._CHUNK_BYTES == CHUNK_BYTES


@given(
    tokens=st.integers(1, 10**6), device=st.sampled_from(["cpu", "cuda"]), zero=st.integers(1, 3),
    precision=st.sampled_from(["fp32", "bf16", "fp8"]),
)  # fmt: skip
def test_logits_never_take_more_than_a_few_chunks(
    tokens: int, device: str, zero: int, precision: str
) -> None:
    model = ModelConfig.model_validate({"preset": "125m"})
    layout = Layout(4, 1, zero, 1, 1, True)
    (memory,) = memory_of(model, 32768, tokens, precision, layout, device=device)
    product = 2 * 32768 * model.hidden_size
    assert memory.logits - 4 * tokens * model.hidden_size <= 4 * CHUNK_BYTES[device] + product


@given(
    zero=st.integers(1, 3), replicas=st.integers(1, 64), vocabulary=st.integers(256, 200_000),
    preset=st.sampled_from(presets()), precision=st.sampled_from(["fp32", "bf16"]),
)  # fmt: skip
def test_muon_keeps_one_moment_of_the_matrices_of_blocks(
    zero: int, replicas: int, vocabulary: int, preset: str, precision: str
) -> None:
    model = ModelConfig.model_validate({"preset": preset})
    layout = Layout(replicas, 1, zero, 1, 1, False)
    adamw, muon = (
        memory_of(model, vocabulary, 128, precision, layout, optimizer=kind)[0] for kind in ("adamw", "muon")
    )
    part = -(-adamw.parameters // replicas)
    assert adamw.optimizer == 12 * part
    assert 8 * part <= muon.optimizer <= adamw.optimizer
    if replicas == 1:
        matrices = model.hidden_size * (2 * (model.query_size + model.kv_size) + 3 * model.mlp_size)
        assert muon.optimizer == 12 * part - 4 * model.layers * matrices


@given(
    data=st.data(), preset=st.sampled_from(presets()), stages=st.integers(1, 4),
    precision=st.sampled_from(["fp32", "bf16"]),
)  # fmt: skip
def test_recomputing_more_never_keeps_more(
    data: st.DataObject, preset: str, stages: int, precision: str
) -> None:
    model = ModelConfig.model_validate({"preset": preset})
    order: list[RecomputeLevel] = ["keep", "cheap", "all"]
    ranks = data.draw(st.lists(st.integers(0, 2), min_size=model.layers, max_size=model.layers))
    place = data.draw(st.integers(0, model.layers - 1))
    more = [min(2, rank + (i == place)) for i, rank in enumerate(ranks)]
    layout = Layout(1, stages, 1, 1, 8, False)
    before, after = (
        memory_of(model, 8192, 256, precision, layout, levels=[order[rank] for rank in each])
        for each in (ranks, more)
    )
    for one, other in zip(before, after, strict=True):
        assert other.activations <= one.activations
        assert other.peak <= one.peak


@given(preset=st.sampled_from(presets()), vocabulary=st.integers(256, 200_000), stages=st.integers(1, 5))
def test_stages_hold_the_whole_model(preset: str, vocabulary: int, stages: int) -> None:
    model = ModelConfig.model_validate({"preset": preset})
    twice = vocabulary * model.hidden_size if model.tied and stages > 1 else 0
    assert sum(stage_parameters(model, vocabulary, stages)) == model.parameter_count(vocabulary) + twice


@given(
    precision=st.sampled_from(["fp32", "bf16"]), parameters=st.integers(1, 10**11), zero=st.integers(1, 3),
    replicas=st.integers(1, 512),
)  # fmt: skip
def test_more_replicas_never_need_more(precision: str, parameters: int, zero: int, replicas: int) -> None:
    fewer, more = (state_bytes(parameters, precision, zero, count) for count in (replicas, 2 * replicas))
    assert all(vars(more)[part] <= size for part, size in vars(fewer).items())
