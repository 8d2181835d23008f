"""The certificate, in real ranks: every layout trains the plain loop's model and reads all checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runner import Runner, environment

from hpctrain.config import load_config
from hpctrain.parallel.topology import ParallelConfig
from hpctrain.train.budget import choose_levels
from hpctrain.train.config import RunConfig


@pytest.mark.ranks
@pytest.mark.slow
def test_every_layout_of_one_and_two_ranks_agrees(tmp_path: Path, shards_directory: Path) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(train={"micro_batch_size": 1}, model={"layers": 3})
    out = runner.run("verify", "layouts", config, "--ranks", "1,2", "--json").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert set(rows) == {
        "zero1-ranks1", "zero2-ranks1", "zero3-ranks1",
        "zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1",
    }  # fmt: skip
    for row in rows.values():
        assert row["verdict"] == "agrees"
        assert row["restores"] == "7 of 7"
        assert float(row["loss"]) <= 1e-5


@pytest.mark.ranks
@pytest.mark.slow
def test_untied_embeddings_recomputation_and_four_ranks_agree(tmp_path: Path, shards_directory: Path) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(
        train={"micro_batch_size": 1, "recompute": True}, model={"tied": False, "layers": 3}
    )
    out = runner.run("verify", "layouts", config, "--ranks", "4", "--steps", 2, "--json").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert {"zero1-ranks4", "zero3-ranks4", "pipeline2-data2", "pipeline4-data1"} <= set(rows)
    assert all(row["verdict"] == "agrees" for row in rows.values())


@pytest.mark.ranks
@pytest.mark.slow
def test_blocks_of_different_levels_agree(tmp_path: Path, shards_directory: Path) -> None:
    """Under this budget the first blocks of a stage recompute all, later ones what is cheap, or nothing."""
    runner = Runner(tmp_path, shards_directory)
    path = runner.config(train={"micro_batch_size": 1, "activation_memory": 0.0004}, model={"layers": 6})
    config = load_config(path, [], RunConfig)
    for stages in (1, 2):
        placed = config.model_copy(update={"parallel": ParallelConfig(pipeline_stages=stages)})
        assert len(set(choose_levels(placed, 512, 2, compiled=False).levels)) > 1
    out = runner.run("verify", "layouts", path, "--ranks", "2", "--steps", 2, "--json").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert {"zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1"} == set(rows)
    assert all(row["verdict"] == "agrees" for row in rows.values())


@pytest.mark.ranks
@pytest.mark.slow
def test_under_a_launcher_it_proves_the_layouts_of_that_world(tmp_path: Path, shards_directory: Path) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(train={"micro_batch_size": 1})
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "hpctrain"]
    options = ["--steps", "1", "--scratch", str(tmp_path / "scratch"), "--json"]
    done = subprocess.run(
        [*torchrun, "verify", "layouts", str(config), *options],
        env=environment(), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["layout"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {"zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1"}
    assert all(row["verdict"] == "agrees" and row["restores"] == "4 of 4" for row in rows.values())


@pytest.mark.ranks
@pytest.mark.slow
def test_bf16_agrees_to_its_precision(tmp_path: Path, shards_directory: Path) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(train={"micro_batch_size": 2, "precision": "bf16"}, model={"layers": 1})
    out = runner.run("verify", "layouts", config, "--ranks", "2", "--steps", 2, "--json").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert {"zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1"} == set(rows)
    assert all(row["restores"] == "4 of 4" for row in rows.values())


@pytest.mark.ranks
@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_the_straight_one(tmp_path: Path, shards_directory: Path) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(train={"steps": 30}, checkpoint={"every_steps": 3})
    out = runner.run("verify", "resume", config, "--kills", 2, "--json").stdout
    verdict = json.loads(out)
    assert verdict["equal"]
    assert verdict["exact"]
    assert len(verdict["kills"]) == 2


@pytest.mark.ranks
@pytest.mark.slow
def test_a_run_killed_and_resumed_on_other_ranks_sees_the_same_data_and_losses(
    tmp_path: Path, shards_directory: Path
) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(train={"steps": 20}, checkpoint={"every_steps": 3})
    out = runner.run("verify", "resume", config, "--kills", 1, "--other-ranks", 1, "--json").stdout
    verdict = json.loads(out)
    assert verdict["equal"]
    assert not verdict["exact"]
    assert verdict["largest_loss_difference"] <= 1e-5


def test_layouts_that_do_not_agree_are_told(tmp_path: Path) -> None:
    from hpctrain.verify.layouts import certificate

    row = {"layout": "zero1-ranks2", "loss": 1e-3, "grad_norm": 0.0, "weights": 0.0}
    (tmp_path / "train-2.json").write_text(json.dumps([row]))
    (tmp_path / "restore-2.json").write_text("[]")
    assert certificate(tmp_path, "fp32")[0]["verdict"] == "DIFFERS"
    (tmp_path / "train-2.json").write_text(json.dumps([row | {"loss": 1e-7}]))
    assert certificate(tmp_path, "fp32")[0]["verdict"] == "agrees"
    unequal = [{"from": "a", "to": "zero1-ranks2", "equal": False}]
    (tmp_path / "restore-2.json").write_text(json.dumps(unequal))
    assert certificate(tmp_path, "fp32")[0]["verdict"] == "DIFFERS"


@pytest.mark.ranks
@pytest.mark.slow
def test_compiled_blocks_agree_in_every_layout(tmp_path: Path, shards_directory: Path) -> None:
    runner = Runner(tmp_path, shards_directory)
    config = runner.config(train={"micro_batch_size": 1, "compile": True}, model={"layers": 2})
    out = runner.run("verify", "layouts", config, "--ranks", "2", "--steps", 2, "--json").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert {"zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1"} == set(rows)
    assert all(row["verdict"] == "agrees" for row in rows.values())
