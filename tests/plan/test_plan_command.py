"""`hpctrain plan` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from runner import environment

from hpctrain.model.config import ModelConfig
from hpctrain.plan.cost import Rates, predict_step, volumes
from hpctrain.train.memory import Layout

CONFIG = Path(__file__).parents[2] / "configs" / "pretrain" / "quickstart.yaml"
LARGE = ["train.precision=bf16", "train.global_batch_size=256", "data.sequence_length=4096"]
NO_SHARDS = ["data.shards=nowhere", "--vocab-size", "32768"]


def plan(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "hpctrain", "plan", str(CONFIG), *arguments],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def test_layouts_that_fit_come_quickest_first() -> None:
    arguments = [*LARGE, *NO_SHARDS, "model.preset=7b", "--site", "leonardo", "--nodes", "8", "--json"]
    told = json.loads(plan(*arguments).stdout)
    times = [row["step_seconds"] for row in told["layouts"]]
    assert told["fits"]
    assert times == sorted(times)
    for row in told["layouts"]:
        assert row["peak_bytes"] <= told["gpu_memory_bytes"]
        assert row["replicas"] * row["micro_batch_size"] * row["accumulation_steps"] == 256
        assert row["replicas"] * row["pipeline_stages"] == 32


def test_what_does_not_fit_says_by_how_much_and_what_would() -> None:
    done = plan(*LARGE, *NO_SHARDS, "model.preset=7b", "--site", "perlmutter", "--gpu-memory", "16", code=2)
    assert "GiB too much" in done.stdout
    assert "what would fit: --nodes" in done.stdout
    assert "no layout fits" in done.stderr


def test_all_that_is_missing_is_said_at_once() -> None:
    done = plan("data.shards=nowhere", "--site", "generic", code=2)
    assert all(option in done.stderr for option in ("--vocab-size", "--gpu-memory", "--tflops"))


def test_scaling_is_marked_as_predicted() -> None:
    done = plan(*LARGE, *NO_SHARDS, "model.preset=1b", "--site", "frontier", "--scaling")
    assert done.stdout.startswith("predicted, not measured")
    assert {"8", "4096"} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_traffic_follows_the_layout() -> None:
    model = ModelConfig.model_validate({"preset": "1b"})
    size = 2 * model.parameter_count(1000)
    of = {zero: volumes(model, 1000, 128, "bf16", Layout(2, 1, zero, 1, 4, False))[0] for zero in (1, 2, 3)}
    assert of == {1: 3 * size // 2, 2: 5 * size // 2, 3: 12 * size // 2}
    assert volumes(model, 1000, 128, "bf16", Layout(1, 1, 1, 1, 4, False)) == (0, 0)


def test_a_pipeline_waits_for_its_first_and_last_micro_batches() -> None:
    model, rates = ModelConfig.model_validate({"preset": "1b"}), Rates(1e12, 1e9, 1e9, 4)
    step = predict_step(model, 1000, 128, "bf16", Layout(1, 4, 1, 1, 12, False), rates)
    assert step.bubble == step.compute * 3 / 12


def test_recomputation_costs_what_its_level_computes_again() -> None:
    model, rates = ModelConfig.model_validate({"preset": "1b"}), Rates(1e12, 1e9, 1e9, 4)
    kept, cheap, all_again = (
        predict_step(model, 32768, 2048, "bf16", Layout(4, 1, 1, 1, 1, recompute), rates).compute
        for recompute in (False, "cheap", True)
    )
    assert kept < cheap < all_again
    blocks = model.flops_per_token(0, 2048) / model.flops_per_token(32768, 2048)
    assert (
        all_again / kept < 1 + blocks / 3
    )  # the last product is not needed again, and the head's not at all
    assert all_again / kept > 1 + blocks / 3 * 0.75


def test_all_levels_of_recomputation_are_searched() -> None:
    arguments = [*LARGE, *NO_SHARDS, "model.preset=1b", "--site", "leonardo", "--json"]
    told = json.loads(plan(*arguments).stdout)
    assert {row["recompute"] for row in told["layouts"]} == {False, "cheap", True}


def test_planning_needs_no_torch() -> None:
    code = "import sys, hpctrain.plan.screen; sys.exit('torch' in sys.modules or 'deepspeed' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
