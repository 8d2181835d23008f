"""Everything a user may get wrong: one clear message, the right exit code, nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import STEPS, Runner, end


def test_all_config_errors_come_at_once(runner: Runner) -> None:
    config = runner.config(train={"step": 3, "steps": 0}, model={"heads": 5})
    err = runner.train(
        config, "optimizer.learning_rate=-1", "parallel.zero_stage=7", "nonsense", code=2
    ).stderr
    for expected in (
        "train.step: unknown key; did you mean steps?",
        "train.steps: input should be greater than or equal to 1 (found 0)",
        "model: heads 5 does not divide hidden_size 32",
        "optimizer.learning_rate",
        "parallel.zero_stage",
        "nonsense: an override is written section.key=value",
    ):
        assert expected in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["parallel.zero_stage=2", "parallel.pipeline_stages=2"], "cannot be combined with a pipeline"),
        (["parallel.pipeline_stages=9"], "9 stages, but a model of 2 layers can be cut into at most 3"),
        (
            ["train.global_batch_size=9"],
            "9 is not a multiple of micro_batch_size 2 x 2 data-parallel replicas",
        ),
        (["schedule.warmup_steps=6"], "leaves nothing of train.steps"),
        (["model.attention=varlen"], "varlen cannot train on cpu in fp32; it has sdpa, eager"),
    ],
)
def test_impossible_combinations_are_refused(runner: Runner, overrides: list[str], expected: str) -> None:
    err = runner.train(runner.config(), *overrides, code=2).stderr
    assert expected in err
    assert err.count(expected) == 1
    assert "Traceback" not in err


def test_a_key_given_twice_is_refused(runner: Runner) -> None:
    config = runner.config()
    config.write_text(config.read_text() + "\nlog: {}\n")
    assert "the key 'log' is given twice" in runner.train(config, code=2).stderr


def test_missing_shards(runner: Runner) -> None:
    err = runner.train(runner.config(data={"shards": "/nowhere"}), code=3).stderr
    assert "/nowhere: this shards does not exist (no manifest.json); build it first" in err


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_shard_is_named(runner: Runner, tmp_path: Path, damage: str) -> None:
    runner.shards = shutil.copytree(runner.shards, tmp_path / "shards")
    victim = next((runner.shards / "train").glob("cpp-*.h5"))
    if damage == "flip":
        flip_bit(victim)
    else:
        os.truncate(victim, victim.stat().st_size - 100)
    err = runner.train(runner.config(), code=3).stderr
    assert str(victim) in err
    assert err.count(str(victim)) == 1
    assert not runner.metrics()


def flip_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 16]))


@pytest.fixture
def copied(finished: Runner, tmp_path: Path) -> Runner:
    """A finished run that a test may damage, and its config asking for two more steps."""
    shutil.copytree(finished.directory / "run", tmp_path / "run")
    runner = Runner(tmp_path, finished.shards)
    runner.config(train={"steps": STEPS + 2})
    return runner


def test_other_data_or_another_model_is_refused_and_named(copied: Runner) -> None:
    config = copied.directory / "run.yaml"
    err = copied.train(config, "run.seed=2", "data.sequence_length=32", "model.layers=3", code=3).stderr
    for name in ("run.seed: began with 1, now 2", "data.sequence_length", "model: began with"):
        assert name in err
    assert len(copied.curve()) == STEPS


def test_what_may_change_is_recorded(copied: Runner) -> None:
    copied.train(copied.directory / "run.yaml", "optimizer.learning_rate=0.001", "train.global_batch_size=4")
    start = [event for event in copied.events() if event["event"] == "start"][-1]
    assert start["step"] == STEPS
    assert start["changed"] == {
        "optimizer.learning_rate": [0.003, 0.001],
        "train.evaluate_every_steps": [3, 0],
        "train.evaluate_sequences": [4, 64],
        "train.global_batch_size": [8, 4],
        "train.steps": [STEPS, STEPS + 2],
        "run.dir": [str(start["changed"]["run.dir"][0]), str(copied.directory / "run")],
    }


def test_another_tokenizer_is_refused(copied: Runner, tmp_path: Path, corpus_directory: Path) -> None:
    from hpctrain.corpus.document import LANGUAGES, read_documents
    from hpctrain.shards.pack import build_shards
    from hpctrain.tokenizer.train import TokenizerConfig, train_tokenizer

    documents = (
        (document.language, document.content) for document in read_documents(corpus_directory, "train")
    )
    train_tokenizer(TokenizerConfig(vocab_size=1500), documents, LANGUAGES, {}, tmp_path / "other")
    build_shards(corpus_directory, tmp_path / "other", tmp_path / "other-shards")
    err = copied.train(
        copied.directory / "run.yaml", f"data.shards={tmp_path / 'other-shards'}", code=3
    ).stderr
    assert "tokenizer: began with" in err
    assert "data.shards: began with" in err


def test_a_damaged_newest_checkpoint_is_passed_over_and_it_says_so(copied: Runner) -> None:
    flip_bit(next(copied.checkpoint(STEPS).glob("rank-*.safetensors")))
    err = copied.train(copied.directory / "run.yaml").stderr
    assert f"going back to step-{STEPS - 2:08d}, because newer checkpoints are damaged" in err
    assert "checksum differs" in err
    assert [event["step"] for event in copied.events() if event["event"] == "restore"] == [STEPS - 2]
    assert max(copied.curve()) == STEPS + 2


def test_a_damaged_manifest_is_not_believed(copied: Runner) -> None:
    manifest = copied.checkpoint(STEPS) / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"step":6', '"step":5').replace('"step": 6', '"step": 5')
    )
    assert "does not match its seal" in copied.train(copied.directory / "run.yaml").stderr


def test_no_whole_checkpoint_is_exit_4_unless_starting_anew_is_asked_for(copied: Runner) -> None:
    for step in (0, 2, 4, 6):
        for file in copied.checkpoint(step).glob("rank-*.safetensors"):
            os.truncate(file, 10)
    config = copied.directory / "run.yaml"
    err = copied.train(config, code=4).stderr
    assert "no checkpoint is whole; set checkpoint.start_anew=true" in err
    assert err.count("checkpoint.start_anew") == 1
    verified = copied.run("checkpoint", "verify", copied.directory / "run", "--json", code=4)
    assert verified.stdout.count("manifest says") == 8
    copied.train(config, "checkpoint.start_anew=true")
    assert max(copied.curve()) == STEPS + 2


def test_lost_checkpoints_are_never_a_silent_step_0(copied: Runner) -> None:
    shutil.rmtree(copied.directory / "run" / "checkpoints")
    err = copied.train(copied.directory / "run.yaml", code=4).stderr
    assert "the run has saved checkpoints, but none is left" in err


def test_two_jobs_on_one_run_directory(runner: Runner) -> None:
    config = runner.config(train={"steps": 1000})
    first = runner.start("train", config, "--ranks", 1)
    try:
        runner.wait_for_step("run", 1, first)
        err = runner.train(config, code=2).stderr
        assert "is being written by another job" in err
        assert '"pid"' in err
        assert first.poll() is None
    finally:
        end(first)
    assert first.returncode == 75


def test_numbers_that_went_wrong_are_exit_93(runner: Runner) -> None:
    # The first update throws the weights far off; the second step's loss is not finite.
    config = runner.config(optimizer={"learning_rate": 1e30}, schedule={"warmup_steps": 0})
    err = runner.train(config, code=93).stderr
    assert "lower optimizer.learning_rate" in err
    assert [event["event"] for event in runner.events()][-1] == "fault"
    assert runner.checkpoint(0).is_dir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB, where this machine lets us mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_no_space_left_keeps_the_checkpoint_before(runner: Runner, small_disk: Path) -> None:
    config = runner.config(run={"dir": str(small_disk / "run")}, checkpoint={"keep": 10, "every_steps": 1})
    err = runner.train(config, code=4).stderr
    assert "the checkpoint could not be saved; the one before it is untouched" in err
    assert "No space left on device" in err
    assert "Traceback" not in err
    shutil.copytree(small_disk / "run", runner.directory / "run")
    rows = runner.run("checkpoint", "list", runner.directory / "run").stdout
    assert "step-00000000" in rows
    (runner.directory / "run.yaml").write_text(runner.config().read_text())
    assert "going on from step-" in runner.train(runner.config()).stderr


def test_the_second_ctrl_c_ends_at_once(runner: Runner) -> None:
    process = runner.start("train", runner.config(train={"steps": 1000}), "--ranks", 1)
    runner.wait_for_step("run", 1, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (75, 130)


def test_snapshots_may_be_staged_on_local_disk(runner: Runner, finished: Runner, tmp_path: Path) -> None:
    staging = tmp_path / "nvme"
    config = runner.config(checkpoint={"staging_dir": str(staging)})
    err = runner.train(config, code=2).stderr
    assert err.count("checkpoint.staging_dir:") == 1
    assert str(staging) in err
    staging.mkdir()
    runner.train(config)
    assert not list(staging.iterdir())
    assert runner.curve() == finished.curve()
    for file in finished.checkpoint(STEPS).glob("rank-*.safetensors"):
        assert (runner.checkpoint(STEPS) / file.name).read_bytes() == file.read_bytes()
