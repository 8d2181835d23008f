"""What stays, what goes, and whether there is room."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from checkpoint.conftest import Nursery
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from runner import Runner

from hpctrain.checkpoint.config import CheckpointConfig
from hpctrain.checkpoint.publish import coverage_problem
from hpctrain.checkpoint.retention import Candidate, check_room, retire, superfluous
from hpctrain.errors import ConfigError

BITS = {0: None, 100: 3.0, 200: 1.5, 300: None, 400: 2.0, 500: 1.5, 600: 2.5}
RUN = [Candidate(f"step-{step:08d}", step, BITS[step]) for step in sorted(BITS, reverse=True)]


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({"keep": 1}, [600]),
        ({"keep": 3}, [600, 500, 400]),
        ({"keep": 1, "keep_every": 300}, [600, 300, 0]),
        ({"keep": 1, "keep_best": 1}, [600, 500]),  # of equals, the later
        ({"keep": 1, "keep_best": 3}, [600, 500, 400, 200]),
        ({"keep": 2, "keep_every": 200, "keep_best": 1}, [600, 500, 400, 200, 0]),
        ({"keep": 9}, [600, 500, 400, 300, 200, 100, 0]),
    ],
)
def test_each_rule_keeps_its_own(keys: dict[str, int], kept: list[int]) -> None:
    gone = superfluous(RUN, CheckpointConfig(every_steps=100, **keys))
    assert [each.step for each in RUN if each.name not in gone] == kept


@given(
    st.sets(st.integers(0, 40), min_size=1),
    st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.data(),
)  # fmt: skip
def test_the_newest_always_stays(
    steps: set[int], keep: int, every: int, best: int, data: st.DataObject
) -> None:
    bits = {step: data.draw(st.none() | st.floats(0, 9)) for step in steps}
    run = [Candidate(str(step), step, bits[step]) for step in sorted(steps, reverse=True)]
    gone = superfluous(run, CheckpointConfig(every_steps=1, keep=keep, keep_every=every, keep_best=best))
    assert not set(gone) & {each.name for each in run[:keep]}


def test_keep_every_must_be_steps_that_are_saved() -> None:
    with pytest.raises(ValidationError, match="keep_every 250 is not a multiple of every_steps 100"):
        CheckpointConfig(every_steps=100, keep_every=250)


def test_a_damaged_newer_checkpoint_never_crowds_out_the_one_just_saved(
    straight: Runner, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(straight.directory / "run" / "checkpoints", tmp_path / "checkpoints"))
    (directory / "step-00000004" / "manifest.json").write_text("damaged")
    (directory / "step-00000001").mkdir()  # a deletion that was killed
    assert retire(directory, 2, CheckpointConfig(keep=1)) == ["step-00000000"]
    assert sorted(path.name for path in directory.iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.ranks
def test_the_best_stays_by_what_its_manifest_says(nursery: Nursery, runner: Runner) -> None:
    config = runner.config(
        train={"steps": 6, "evaluate_every_steps": 2, "evaluate_sequences": 2},
        checkpoint={"keep": 1, "keep_best": 1, "every_steps": 2},
        optimizer={"learning_rate": 3.0},  # so that the held-out loss gets worse
    )
    nursery.train(config)
    by_step = {
        line["step"]: line["bits_per_byte_by_language"] for line in runner.metrics() if line["step"] % 2 == 0
    }
    means = {step: sum(bits.values()) / len(bits) for step, bits in by_step.items() if step}
    best = min(means, key=means.__getitem__)
    left = sorted(path.name for path in (runner.directory / "run" / "checkpoints").iterdir())
    assert left == sorted({f"step-{best:08d}", "step-00000006"})


def test_room_for_the_first_saves_is_asked_for_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CheckpointConfig(every_steps=10, keep=3)

    def free(size: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))

    free(2 * 12_000_000_000 - 1)
    with pytest.raises(
        ConfigError, match=r"24\.00 GB free; the first checkpoints of 12\.00 GB .* need 24\.00 GB"
    ):
        check_room(tmp_path, 1_000_000_000, config, steps=100)
    free(2 * 12_000_000_000)
    assert "will need 48.00 GB more" in str(check_room(tmp_path, 1_000_000_000, config, steps=100))
    free(4 * 12_000_000_000)
    assert check_room(tmp_path, 1_000_000_000, config, steps=100) is None
    done = tmp_path / "checkpoints" / "step-00000010"
    done.mkdir(parents=True)
    (done / "manifest.json").touch()
    free(12_000_000_000 - 1)
    with pytest.raises(ConfigError, match="one more checkpoint"):
        check_room(tmp_path, 1_000_000_000, config, steps=100)


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ([{"a": [(0, 6)]}, {"b": [(0, 2)]}], None),
        ([{"a": [(4, 6), (0, 2)]}, {"a": [(2, 4)], "b": [(0, 2)]}], None),
        ([{"a": [(0, 6)]}], "b: elements 0 to 2 are missing"),
        ([{"a": [(0, 5)], "b": [(0, 2)]}], "a: elements 5 to 6 are missing"),
        ([{"a": [(0, 4)], "b": [(0, 2)]}, {"a": [(2, 6)]}], "a: elements 2 to 4 are there twice"),
        # As many elements as the model has, and yet a hole: a sum would not see it.
        ([{"a": [(0, 3), (0, 3)], "b": [(0, 2)]}], "a: elements 0 to 3 are there twice"),
    ],
)
def test_coverage_is_exact(shares: list[dict[str, list[tuple[int, int]]]], problem: str | None) -> None:
    assert coverage_problem({"a": [2, 3], "b": [2]}, shares) == problem
