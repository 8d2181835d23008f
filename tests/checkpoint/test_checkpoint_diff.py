"""Two checkpoints compared, whatever layouts wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint.conftest import Nursery
from runner import Runner

from hpctrain.checkpoint import diff
from hpctrain.checkpoint.diff import compare, differing_rows, verified
from hpctrain.checkpoint.inspect import summarize
from hpctrain.errors import CheckpointError


def test_a_checkpoint_equals_itself(straight: Runner) -> None:
    assert differing_rows(straight.checkpoint(4), straight.checkpoint(4)) == []


def test_every_tensor_moves_between_steps_and_by_how_much(
    straight: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = verified(straight.checkpoint(0)), verified(straight.checkpoint(2))
    whole = list(compare(first, second))
    assert {each.kind for each in whole if each.differing} == {"weight", "exp_avg", "exp_avg_sq"}
    assert all(0 < each.largest < 1 for each in whole if each.differing)
    monkeypatch.setattr(diff, "_BLOCK_ELEMENTS", 100)
    assert list(compare(first, second)) == whole, "a block at a time gives the same"


@pytest.mark.ranks
def test_layouts_may_differ_and_models_may_not(nursery: Nursery, runner: Runner, straight: Runner) -> None:
    nursery.train(runner.config("zero3", parallel={"zero_stage": 3}))
    rows = differing_rows(straight.checkpoint(4), runner.checkpoint(4, "zero3"))
    assert all(float(row["largest"]) < 1e-4 for row in rows)
    nursery.train(runner.config("wider", model={"mlp_size": 96}, train={"steps": 2}))
    with pytest.raises(CheckpointError, match=r"different models(.|\n)*block_0\.mlp"):
        differing_rows(straight.checkpoint(2), runner.checkpoint(2, "wider"))


def test_damage_is_found_before_anything_is_compared(straight: Runner, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no manifest\.json|does not exist"):
        differing_rows(straight.checkpoint(4), tmp_path)


def test_the_list_tells_what_the_manifest_says(straight: Runner) -> None:
    row = summarize(straight.checkpoint(4))
    by_step = {line["step"]: line for line in straight.metrics()}
    assert row["loss"] == by_step[4]["loss"]
    bits = by_step[4]["bits_per_byte_by_language"]
    assert row["bits_per_byte"] == pytest.approx(sum(bits.values()) / len(bits))
    assert row["seconds"] > 0
    assert summarize(straight.checkpoint(0))["loss"] == "-"
