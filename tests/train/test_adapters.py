"""Runs with an adapter, in real ranks: restarts, layouts, merging, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runner import STEPS, Runner
from safetensors.torch import load_file

from hpctrain.errors import CheckpointError
from hpctrain.train.trained import load_trained

ADAPTER = {"rank": 2, "alpha": 8, "dropout": 0.1}


def tuned(runner: Runner, base: Path, name: str, **sections: Any) -> Path:
    """The config of a run with an adapter on the weights of the run in `base`."""
    sections.setdefault("adapter", ADAPTER)
    path = runner.config(name, **sections)
    tree = yaml.safe_load(path.read_text())
    tree["run"]["start_from"] = str(base)
    path.write_text(yaml.safe_dump({key: keys for key, keys in tree.items() if keys}))
    return path


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by key."""
    files = sorted(directory.glob("*.safetensors"))
    assert files
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


@pytest.mark.ranks
@pytest.mark.slow
def test_every_layout_trains_the_adapters_of_the_plain_loop(runner: Runner, finished: Runner) -> None:
    config = tuned(runner, finished.directory / "run", "tuned", train={"micro_batch_size": 1})
    out = runner.run("verify", "layouts", config, "--ranks", "1,2", "--json", "adapter.dropout=0").stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert set(rows) == {
        "zero1-ranks1", "zero2-ranks1", "zero3-ranks1",
        "zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1",
    }  # fmt: skip
    assert all(row["verdict"] == "agrees" and row["restores"] == "7 of 7" for row in rows.values())


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("parallel", "train"),
    [
        ({"pipeline_stages": 2}, {"recompute": True}),
        pytest.param({"zero_stage": 3}, {"precision": "bf16"}, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_and_restarted_adapter_equals_the_straight_one(
    runner: Runner, finished: Runner, parallel: dict[str, int], train: dict[str, Any]
) -> None:
    base = finished.directory / "run"
    sections = {"parallel": parallel, "train": train, "checkpoint": {"every_steps": 100}}
    straight = tuned(runner, base, "straight", **sections)
    stopped = tuned(runner, base, "stopped", **sections)
    err = runner.train(straight).stderr
    assert f"beginning with the weights of {base}, step-{STEPS:08d}" in err
    process = runner.start("train", stopped, "--ranks", 2)
    runner.wait_for_step("stopped", 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "going on from step-" in runner.train(stopped).stderr
    assert runner.curve("stopped") == runner.curve("straight")
    ours, theirs = (tensors(runner.checkpoint(STEPS, name)) for name in ("stopped", "straight"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.ranks
def test_an_adapter_is_saved_alone_merged_when_loaded_and_needs_its_base(
    runner: Runner, finished: Runner, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(finished.directory / "run", base)
    config = tuned(runner, base, "tuned", train={"steps": 3})
    runner.train(config, "--ranks", 1)
    saved = tensors(runner.checkpoint(3, "tuned"))
    assert all(".lora_" in key for key in saved)
    merged, plain = load_trained(tmp_path / "tuned"), load_trained(base)
    theirs = dict(plain.model.named_parameters())
    for name, weight in merged.model.named_parameters():
        stem = f"{name.removesuffix('weight')}lora_"
        mine = {
            key.split("|")[0]: tensor
            for key, tensor in saved.items()
            if key.startswith(stem) and "|weight|" in key
        }
        if not mine:
            assert torch.equal(weight, theirs[name]), name
            continue
        first, second = (mine[f"{stem}{each}.default.weight"] for each in "AB")
        change = 4 * second.view(-1, 2) @ first.view(2, -1)
        assert torch.allclose(weight, theirs[name] + change, atol=1e-6)
        assert change.abs().max() > 0

    # a full run may begin with the merged weights
    full = tuned(runner, tmp_path / "tuned", "full", adapter={}, train={"steps": 2})
    runner.run("finetune", full, "--ranks", 1)
    begun = tensors(runner.checkpoint(0, "full"))
    name = "block_0.mlp.up.weight"
    [key] = [key for key in begun if key.startswith(f"{name}|weight|")]
    assert torch.allclose(begun[key], dict(merged.model.named_parameters())[name].flatten(), atol=1e-7)

    # the base may be trained on: the adapter stays with the checkpoint that it began with
    newest = base / "checkpoints" / f"step-{STEPS:08d}"
    newest.rename(tmp_path / "aside")
    with pytest.raises(CheckpointError, match=r"no longer has the checkpoint whose weights the adapters of"):
        load_trained(tmp_path / "tuned")
    err = runner.train(config, "--ranks", 1, "train.steps=4", code=4).stderr
    assert "no longer has the checkpoint whose weights" in err
    (tmp_path / "aside").rename(newest)
    runner.train(config, "--ranks", 1, "train.steps=4")
    assert runner.train(config, "--ranks", 1, "train.steps=5", "adapter.rank=3", code=3).stderr.count(
        "adapter:"
    )


def test_what_an_adapter_needs(runner: Runner, tmp_path: Path) -> None:
    without = runner.config("alone", adapter=ADAPTER)
    assert "adapter: an adapter changes the weights of a run" in runner.train(without, code=2).stderr
    config = tuned(runner, tmp_path / "nowhere", "many", parallel={"pipeline_stages": 3})
    err = runner.train(config, "--ranks", 3, "train.micro_batch_size=1", code=2).stderr
    assert "3 stages, but only the 2 blocks have adapters, and every stage needs one" in err
    config = tuned(runner, tmp_path / "nowhere", "lost")
    assert "run.start_from" in runner.train(config, "--ranks", 1, code=3).stderr
