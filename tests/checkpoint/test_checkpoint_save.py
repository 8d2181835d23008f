"""Saves in the background: exact, agreed between ranks, and they tell what they cost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkpoint.conftest import Nursery
from runner import Runner


@pytest.mark.ranks
@pytest.mark.parametrize("layout", ["zero_stage=1", "zero_stage=3", "pipeline_stages=2"])
def test_steps_trained_during_the_write_do_not_change_the_snapshot(
    nursery: Nursery, runner: Runner, layout: str
) -> None:
    slow = {"kind": "slow", "seconds": 0.1}
    answer = nursery.run(
        "train_while_writing", config=runner.config(), overrides=[f"parallel.{layout}"], fault=slow
    )
    assert answer["result"]["told"] == [2, 4]


@pytest.mark.ranks
def test_what_a_save_leaves_and_tells(straight: Runner) -> None:
    directory = straight.directory / "run" / "checkpoints"
    assert sorted(path.name for path in directory.iterdir()) == [f"step-{step:08d}" for step in (0, 2, 4)]
    for path in directory.iterdir():
        manifest = json.loads((path / "manifest.json").read_text())
        assert sorted(file.name for file in path.iterdir()) == ["manifest.json", *sorted(manifest["files"])]
    assert manifest["counts"].keys() >= {"step", "samples", "tokens", "parameters", "seconds"}
    saves = [event for event in straight.events() if event["event"] == "save"]
    assert [event["step"] for event in saves] == [0, 2, 4]
    for event in saves:
        size = sum(file.stat().st_size for file in straight.checkpoint(event["step"]).glob("rank-*"))
        assert event["bytes"] == size
        assert event["blocked_seconds"] > 0
        assert event["seconds"] > 0


@pytest.mark.ranks
def test_the_bytes_are_those_of_a_save_in_the_foreground(
    nursery: Nursery, runner: Runner, straight: Runner
) -> None:
    nursery.train(runner.config(checkpoint={"keep": 9, "background": False}))
    for step in (0, 2, 4):
        for file in straight.checkpoint(step).glob("rank-*"):
            assert (runner.checkpoint(step) / file.name).read_bytes() == file.read_bytes()


@pytest.mark.ranks
def test_a_rank_whose_file_never_comes_ends_the_run_on_every_rank(nursery: Nursery, runner: Runner) -> None:
    config = runner.config(checkpoint={"patience_seconds": 0.3}, train={"steps": 400})
    silent = {"kind": "silent", "rank": 1, "seconds": 3}
    # The first save, of step 0, is waited for; so the fault shows there, on both ranks.
    answer = nursery.train(config, fault=silent, codes=[4, 4])
    assert "1 of 2 ranks' files did not come in 0.3 seconds" in answer["errors"]
    assert "first rank-00001.json" in answer["errors"]
    assert not list((runner.directory / "run" / "checkpoints").iterdir())


@pytest.mark.ranks
def test_files_of_a_killed_attempt_are_never_taken(
    nursery: Nursery, runner: Runner, straight: Runner
) -> None:
    checkpoints = runner.directory / "run" / "checkpoints"
    for name in (".step-00000002.partial-00000000", ".step-00000002.partial"):
        stale = checkpoints / name
        shutil.copytree(straight.checkpoint(4), stale)
        (stale / "rank-00000.json").write_text("{}")
    nursery.train(runner.config(checkpoint={"keep": 9}))
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"step-{step:08d}" for step in (0, 2, 4)]
    assert runner.curve() == straight.curve()


@pytest.mark.ranks
def test_no_room_in_the_background_ends_every_rank_and_keeps_what_was_saved(
    nursery: Nursery, runner: Runner, small_disk: Path, straight: Runner
) -> None:
    directory = small_disk / "run"
    # Two checkpoints fit, and `keep` asks for more: the save of step 2 fails while step 3 trains.
    config = runner.config(run={"dir": str(directory)}, checkpoint={"keep": 9, "every_steps": 1})
    answer = nursery.train(config, codes=[4, 4])
    assert "No space left on device" in answer["errors"]
    assert "the one before it is untouched" in answer["errors"]
    assert not list((directory / "checkpoints").glob(".*")), "what could not be finished only takes room"
    saved = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert "step-00000001" in saved
    shutil.copytree(directory, runner.directory / "run")
    nursery.train(runner.config())
    assert runner.curve() == straight.curve()


@pytest.mark.ranks
def test_an_error_exit_lets_the_save_be_finished(nursery: Nursery, runner: Runner) -> None:
    # The update of step 1 throws the weights far off, and step 2 fails while step 1 is being written.
    config = runner.config(
        checkpoint={"every_steps": 1}, optimizer={"learning_rate": 1e30}, schedule={"warmup_steps": 0}
    )
    nursery.train(config, fault={"kind": "slow", "seconds": 0.1}, codes=[93, 93])
    assert [event["event"] for event in runner.events()] == ["start", "save", "ready", "fault", "save"]
    assert [path.name for path in (runner.directory / "run" / "checkpoints").iterdir()] == ["step-00000001"]
