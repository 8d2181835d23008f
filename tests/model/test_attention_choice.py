"""The choice of the attention backend: measured at the run's shape, and the same on every rank."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from runner import environment

from hpctrain.errors import ConfigError
from hpctrain.model.attention import Attention, eager_attention, make_attention, sdpa_attention
from hpctrain.model.attention_choice import AttentionChoice, Measured, Trial, agree, choose_backend, measure
from hpctrain.parallel.process import ALONE

CPU = torch.device("cpu")
GPU = torch.device("cuda")


def trial(length: int = 64, dtype: torch.dtype = torch.float32) -> Trial:
    boundaries = torch.tensor([0, length // 2, length, 2 * length, 2 * length], dtype=torch.int32)
    return Trial(4, 2, 16, length, boundaries, dtype, layers=2)


def never() -> Any:
    raise AssertionError("nothing is to be measured or looked up")


def test_real_backends_are_measured_and_the_quicker_one_is_chosen() -> None:
    """At 512 positions the explicit mask is slower by far."""
    before = torch.get_rng_state()
    found = measure(["eager", "sdpa"], trial(512))
    assert torch.equal(torch.get_rng_state(), before)
    assert set(found.seconds) == {"eager", "sdpa"}
    assert found.left_out == {}
    assert found.seconds["eager"] > found.seconds["sdpa"] > 0
    assert agree(found, ALONE).backend == "sdpa"


def test_what_does_not_run_here_is_left_out_by_name_with_the_reason() -> None:
    """CPUs have no kernel for varlen and no backward for flex."""
    choice = agree(measure(["varlen", "flex", "sdpa"], trial(16)), ALONE, "here")
    assert choice.backend == "sdpa"
    assert set(choice.left_out) == {"varlen", "flex"}
    assert all(choice.left_out.values())
    assert "left out: varlen (" in choice.describe()
    assert "sdpa" in choice.describe()
    with pytest.raises(ConfigError, match=r"none of the quick backends can be used here: .*varlen: "):
        agree(measure(["varlen", "flex"], trial(16)), ALONE)


def test_a_backend_with_wrong_results_is_left_out() -> None:
    def blind(*heads: torch.Tensor) -> torch.Tensor:
        """Forgets where documents begin."""
        return eager_attention(*heads[:3], heads[3][[0, -1]])

    def make(name: str, device: str) -> Attention:
        return blind if name == "flex" else make_attention(name, device)

    found = measure(["flex", "eager", "sdpa"], trial(32), make)
    assert set(found.seconds) == {"eager", "sdpa"}
    assert "differ" in found.left_out["flex"]


def test_rounding_to_16_bits_is_no_difference() -> None:
    assert set(measure(["eager", "sdpa"], trial(32, torch.bfloat16)).seconds) == {"eager", "sdpa"}


def test_a_cpu_and_a_named_backend_cost_nothing() -> None:
    assert choose_backend("auto", CPU, "fp32", never, "", ALONE, never) == AttentionChoice("sdpa")
    assert choose_backend("eager", CPU, "fp32", never, "", ALONE, never) == AttentionChoice("eager")
    assert choose_backend("flex", GPU, "bf16", never, "", ALONE, never) == AttentionChoice("flex")
    with pytest.raises(ConfigError, match="flex cannot train on cpu in fp32; it has sdpa, eager"):
        choose_backend("flex", CPU, "fp32", never, "", ALONE, never)


def test_a_restart_keeps_what_was_measured_at_the_same_place() -> None:
    earlier = AttentionChoice(
        "flex", {"flex": 0.001, "sdpa": 0.002}, {"varlen": "no kernel"}, "H200, 4 x 2048"
    )
    other = AttentionChoice("sdpa", {"flex": 0.003, "sdpa": 0.002}, {}, "A100, 4 x 2048")
    lines = [{"event": "start"}, {"event": "start", "attention": AttentionChoice("sdpa").record()}]
    lines += [{"event": "start", "attention": each.record()} for each in (earlier, other)]
    events = json.loads(json.dumps(lines))

    def choose(place: str) -> AttentionChoice:
        return choose_backend("auto", GPU, "fp32", never, place, ALONE, lambda: events)

    assert choose(earlier.place) == earlier
    assert choose(other.place) == other
    with pytest.raises(AssertionError, match="nothing is to be measured"):
        choose("H200, 8 x 2048")


RANK = """
    import os, sys, torch
    from hpctrain.model.attention_choice import Measured, agree
    from hpctrain.parallel.process import Gang

    rank = int(sys.argv[1])
    torch.distributed.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
    quicker = ["flex", "sdpa"][rank]  # each rank sees another winner
    seconds = {"varlen": 0.1, "flex": 3.0, "sdpa": 3.5, quicker: 1.0}
    left_out = {}
    if rank == 1:
        del seconds["varlen"]
        left_out["varlen"] = "no kernel"
    choice = agree(Measured(seconds, left_out), Gang(rank, 2), "two ranks")
    print(choice.backend, choice.seconds, choice.left_out, sep="|", flush=True)
    torch.distributed.destroy_process_group()
"""


@pytest.mark.ranks
def test_ranks_that_measure_different_winners_agree(tmp_path: Path) -> None:
    """Rank 0: flex 1.0, sdpa 3.5. Rank 1: sdpa 1.0, flex 3.0, and the quickest of rank 0 fails there."""
    script = tmp_path / "rank.py"
    script.write_text(textwrap.dedent(RANK))
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), f"file://{tmp_path}/store"],
            env=environment(), stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert said[0] == said[1] == "flex|{'flex': 2.0, 'sdpa': 2.25}|{'varlen': 'rank 1: no kernel'}"


def test_alone_the_quickest_wins() -> None:
    choice = agree(Measured({"flex": 2e-3, "sdpa": 1e-3}, {}), ALONE, "here")
    assert (choice.backend, choice.place) == ("sdpa", "here")
    assert choice.describe().endswith("in sdpa 1.00 ms, flex 2.00 ms")
    assert make_attention(choice.backend, "cpu") is sdpa_attention
