"""Whatever happens to the files of a checkpoint is found, named, and passed over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint.conftest import Nursery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runner import Runner

from hpctrain.checkpoint.inspect import verdicts
from hpctrain.checkpoint.restore import newest_whole
from hpctrain.config import fingerprint
from hpctrain.errors import CheckpointError

FILES = ("manifest.json", "rank-00000.safetensors", "rank-00001.safetensors")
PLACES = (0.0, 1e-6, 0.001, 0.3, 0.5, 0.9, 1.0)


@pytest.fixture
def checkpoints(straight: Runner, tmp_path: Path) -> Path:
    """A copy of the checkpoints of steps 0, 2 and 4, to be damaged."""
    return Path(shutil.copytree(straight.directory / "run" / "checkpoints", tmp_path / "checkpoints"))


def goes_back_from(directory: Path) -> bool:
    """Whether the checkpoint of step 4 is passed over for that of step 2."""
    chosen = newest_whole(directory, may_start_anew=False)
    assert chosen is not None
    return chosen.state.step == 2


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES) | st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_found(checkpoints: Path, name: str, place: float, bit: int) -> None:
    file = checkpoints / "step-00000004" / name
    content = file.read_bytes()
    offset = min(int(place * len(content)), len(content) - 1)
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes([content[offset] ^ 1 << bit]))
    if (name, offset) != ("manifest.json", len(content) - 1):  # there it is only the newline at the end
        assert goes_back_from(checkpoints)
    file.write_bytes(content)
    assert not goes_back_from(checkpoints)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES[:-1]) | st.floats(0, 0.999), more=st.binary(min_size=1, max_size=9))
def test_a_truncated_or_longer_file_is_found(checkpoints: Path, name: str, place: float, more: bytes) -> None:
    file = checkpoints / "step-00000004" / name
    content = file.read_bytes()
    os.truncate(file, min(int(place * len(content)), len(content) - 2))
    assert goes_back_from(checkpoints)
    file.write_bytes(content + b"x" + more)
    assert goes_back_from(checkpoints)
    file.write_bytes(content)


def rewrite(change: Callable[[dict], None], reseal: bool = True) -> Callable[[Path], None]:
    """Change a manifest and seal it again, as a program would that means to."""

    def damage(directory: Path) -> None:
        file = directory / "manifest.json"
        tree = json.loads(file.read_text())
        change(tree)
        if reseal:
            tree.pop("seal")
            tree["seal"] = fingerprint(tree)
        file.write_text(json.dumps(tree))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda directory: (directory / "manifest.json").unlink(), "no manifest.json"),
        (lambda directory: (directory / "manifest.json").write_text(""), "not a readable manifest"),
        (
            lambda directory: (directory / "manifest.json").write_text("[" * 100_000),
            "not a readable manifest",
        ),
        (
            rewrite(lambda tree: tree["files"].update(more=tree["files"]["rank-00000.safetensors"])),
            "more: missing",
        ),
        (rewrite(lambda tree: tree.update(kind="shards")), "holds a shards, expected a checkpoint"),
        (rewrite(lambda tree: tree["counts"].update(step=2), reseal=False), "does not match its seal"),
        (lambda directory: (directory / FILES[1]).unlink(), "rank-00000.safetensors: missing"),
        (
            lambda directory: (directory / FILES[2]).rename(directory / FILES[1]),
            "rank-00001.safetensors: missing",
        ),
    ],
)
def test_what_is_wrong_is_said(
    checkpoints: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], said: str
) -> None:
    damage(checkpoints / "step-00000004")
    assert goes_back_from(checkpoints)
    err = capsys.readouterr().err
    assert "going back to step-00000002, because newer checkpoints are damaged" in err
    assert said in err


def test_a_newer_format_is_refused_and_not_passed_over(checkpoints: Path) -> None:
    rewrite(lambda tree: tree.update(format_version=2, invented_later=[1]))(checkpoints / "step-00000004")
    with pytest.raises(
        CheckpointError, match=r"checkpoint format 2, newer than the 1 .*; use a newer hpctrain"
    ):
        newest_whole(checkpoints, may_start_anew=False)
    assert "use a newer hpctrain" in verdicts(checkpoints)[0]["verdict"]


def test_nothing_whole_is_an_error_that_names_everything(checkpoints: Path) -> None:
    for file in checkpoints.glob("*/rank-00001.safetensors"):
        os.truncate(file, 100)
    with pytest.raises(CheckpointError, match="no checkpoint is whole") as caught:
        newest_whole(checkpoints, may_start_anew=False)
    assert str(caught.value).count("the manifest says") == 3
    assert newest_whole(checkpoints, may_start_anew=True) is None


@pytest.mark.ranks
def test_a_damaged_checkpoint_is_replaced_as_the_run_comes_to_it_again(
    nursery: Nursery, runner: Runner, straight: Runner
) -> None:
    shutil.copytree(straight.directory / "run", runner.directory / "run")
    shutil.rmtree(runner.checkpoint(4))
    os.truncate(runner.checkpoint(2) / FILES[1], 1000)
    nursery.train(runner.config(checkpoint={"keep": 9}))
    assert [event["step"] for event in runner.events() if event["event"] == "restore"] == [0]
    assert [row["verdict"] for row in verdicts(runner.directory / "run" / "checkpoints")] == ["whole"] * 3
    assert runner.curve() == straight.curve()


@pytest.mark.ranks
def test_fewer_ranks_than_pipeline_stages_is_a_config_error(
    nursery: Nursery, runner: Runner, straight: Runner
) -> None:
    shutil.copytree(straight.directory / "run", runner.directory / "run")
    config = runner.config(train={"steps": 6})
    answer = nursery.train(config, ranks=1, overrides=["parallel.pipeline_stages=2"], codes=[2])
    assert "ConfigError: parallel.pipeline_stages: 2 does not divide the 1 ranks" in answer["errors"]
    assert "Traceback" not in answer["errors"]
