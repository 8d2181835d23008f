"""Muon: its arithmetic against torch's, its layouts against the plain loop, its state through restarts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runner import STEPS, Runner
from torch import nn
from torch.testing import assert_close
from train.test_restart import stop_after, tensors

from hpctrain.checkpoint.diff import differing_rows
from hpctrain.config import load_config
from hpctrain.engine import plain_muon
from hpctrain.engine.base import OptimizerConfig
from hpctrain.engine.exchange import Exchange, Share, deal
from hpctrain.engine.orthogonal import orthogonalize, update_scale
from hpctrain.engine.plain_muon import PlainMuon
from hpctrain.errors import CheckpointError, ConfigError
from hpctrain.train.config import RunConfig

MUON = {"kind": "muon", "learning_rate": 0.003}
SHAPES = [(32, 96), (96, 32), (48, 48)]
CUTS = [[0, 1000, 1000, 3072], [0, 0, 1536, 3072], [0, 2304, 2304, 2304]]
"""Where each of three ranks' ranges of each matrix of SHAPES begin and end; of the third, rank 0 has all."""


def drawn(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 96), (96, 32), (64, 256)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = drawn(shape)
    orthogonal = orthogonalize(matrix)
    values = torch.linalg.svdvals(orthogonal)
    assert 0.6 < values.min() < values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ orthogonal @ right.T
    assert (inner - inner.diag().diag()).abs().max() < 1e-4
    assert_close(orthogonalize(1e-3 * matrix), orthogonal, rtol=0, atol=1e-4)
    assert torch.equal(orthogonalize(torch.zeros(shape)), torch.zeros(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.008), (torch.float32, 0.02)], ids=str)
def test_two_updates_equal_those_of_torchs_muon(
    shape: tuple[int, int], dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's computes in bf16 everywhere, as ours does on GPUs."""
    monkeypatch.setattr(plain_muon, "working_dtype", lambda device: dtype)
    config = OptimizerConfig(kind="muon", learning_rate=0.02, weight_decay=0.1, momentum=0.9)
    mine, theirs = nn.Parameter(drawn(shape)), nn.Parameter(drawn(shape))
    plain = PlainMuon([{"params": [mine], "weight_decay": 0.1}], [mine], config)
    torchs = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    for step in (1, 2):
        mine.grad, theirs.grad = drawn(shape, step), drawn(shape, step)
        plain.step()
        torchs.step()
    assert not torch.allclose(mine, drawn(shape), atol=1e-3)
    update = 2 * 0.02 * update_scale(shape) / max(shape) ** 0.5
    assert (mine - theirs).square().mean().sqrt() < tolerance * update


def test_an_update_has_the_size_of_adamws() -> None:
    update = orthogonalize(drawn((64, 256))) * update_scale((64, 256))
    assert 0.15 < update.square().mean().sqrt() < 0.25


@given(
    st.integers(1, 5).flatmap(
        lambda ranks: st.lists(
            st.tuples(st.integers(1, 9), st.lists(st.integers(0, 9), min_size=ranks, max_size=ranks)),
            max_size=12,
        ).map(lambda matrices: (ranks, matrices))
    )
)
def test_matrices_are_dealt_evenly(drawn_matrices: tuple[int, list[tuple[int, list[int]]]]) -> None:
    ranks, matrices = drawn_matrices
    costs = [cost for cost, _ in matrices]
    owners = deal(costs, [[held[rank] for _, held in matrices] for rank in range(ranks)])
    loads = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == r) for r in range(ranks)]
    assert sum(loads) == sum(costs)
    assert max(loads) <= sum(costs) / ranks + max(costs, default=0)


def test_a_matrix_stays_where_most_of_it_is() -> None:
    assert deal([5, 5], [[10, 0], [0, 10]]) == [0, 1]
    assert deal([5, 5], [[0, 10], [10, 0]]) == [1, 0]


@pytest.mark.ranks
def test_matrices_in_uneven_pieces_are_orthogonalized_as_if_they_were_whole(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(exchange_rank, (port, tmp_path), nprocs=3)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    for number, shape in enumerate(SHAPES):
        got = torch.cat([part[number] for part in parts]).view(shape)
        wanted = orthogonalize(drawn(shape, number)) * update_scale(shape)
        assert_close(got, wanted, rtol=0, atol=1e-6)


def exchange_rank(rank: int, port: int, out: Path) -> None:
    """One rank that holds a range of each matrix, with something that is nobody's between them."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=3)
    shares, position, pieces = [], 0, []
    for number, shape in enumerate(SHAPES):
        start, stop = CUTS[number][rank], CUTS[number][rank + 1]
        shares.append(Share(shape, start, position, stop - start))
        pieces += [drawn(shape, number).flatten()[start:stop], torch.full((3,), 7.0)]
        position += stop - start + 3
    update = torch.cat(pieces)
    Exchange(shares, None, rank, 3, torch.device("cpu")).orthogonalize(update)
    assert all((update[share.offset + share.elements :][:3] == 7.0).all() for share in shares)
    torch.save([update[share.offset :][: share.elements] for share in shares], out / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ranks
@pytest.mark.slow
def test_every_layout_of_two_and_four_ranks_agrees_with_the_plain_loop(runner: Runner) -> None:
    """Of the four stages, one has no embedding and no head, and the last has no block: no Muon at all."""
    config = runner.config(train={"micro_batch_size": 1}, model={"tied": False, "layers": 3})
    arguments = ["--ranks", "2,4", "--steps", 3, "--json"]
    out = runner.run("verify", "layouts", config, "optimizer.kind=muon", *arguments).stdout
    rows = {row["layout"]: row for row in json.loads(out)}
    assert set(rows) == {
        "zero1-ranks2", "zero2-ranks2", "zero3-ranks2", "pipeline2-data1",
        "zero1-ranks4", "zero2-ranks4", "zero3-ranks4", "pipeline2-data2", "pipeline4-data1",
    }  # fmt: skip
    for row in rows.values():
        assert row["verdict"] == "agrees"
        assert row["restores"] == "9 of 9"
        assert float(row["loss"]) <= 1e-5


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("parallel", [{"zero_stage": 1}, {"zero_stage": 3}, {"pipeline_stages": 2}], ids=str)
def test_a_stopped_and_restarted_run_equals_the_straight_one(
    runner: Runner, parallel: dict[str, int]
) -> None:
    sections = {"parallel": parallel, "optimizer": MUON, "checkpoint": {"every_steps": 100}}
    straight, stopped = (runner.config(name, **sections) for name in ("straight", "stopped"))
    runner.train(straight)
    assert stop_after(runner, stopped, 2) < STEPS
    runner.train(stopped)
    assert runner.curve("stopped") == runner.curve("straight")
    held = tensors(runner.checkpoint(STEPS, "stopped"))
    assert held == tensors(runner.checkpoint(STEPS, "straight"))
    kinds = {tuple(key.split("|")[:2]) for key in held}
    assert ("block_0.mlp.up.weight", "momentum") in kinds
    assert ("block_0.mlp.up.weight", "exp_avg") not in kinds
    assert ("embedding.weight", "exp_avg_sq") in kinds
    assert ("block_0.mlp_norm.weight", "exp_avg") in kinds


@pytest.mark.ranks
@pytest.mark.slow
def test_a_run_goes_on_in_another_layout_and_not_under_another_optimizer(
    runner: Runner, finished: Runner
) -> None:
    straight, config = runner.config("straight", optimizer=MUON), runner.config("run", optimizer=MUON)
    runner.train(straight)
    assert stop_after(runner, config, 2) < STEPS
    refused = runner.train(config, "optimizer.kind=adamw", code=CheckpointError.exit_code)
    assert "was written under optimizer.kind: muon" in refused.stderr
    runner.train(config, "parallel.zero_stage=3")
    for step, (loss, _, digest) in runner.curve("straight").items():
        assert runner.curve()[step][0] == pytest.approx(loss, rel=1e-4)
        assert runner.curve()[step][2] == digest
    assert runner.curve()[STEPS][0] != finished.curve()[STEPS][0], "it is not AdamW"
    with pytest.raises(CheckpointError, match=r"another optimizer\.kind"):
        differing_rows(runner.checkpoint(STEPS), finished.checkpoint(STEPS))
    begun = runner.config(
        "begun", run={"start_from": str(runner.directory / "run")}, train={"evaluate_every_steps": 3}
    )
    runner.train(begun, "optimizer.kind=adamw")
    assert runner.curve("begun")[1][0] < runner.curve()[1][0], "it began with what Muon had trained"


def test_an_adapter_is_refused(runner: Runner) -> None:
    config = runner.config(optimizer=MUON)
    overrides = ["adapter={rank: 4}", "run.start_from=elsewhere"]
    with pytest.raises(ConfigError, match=r"optimizer\.kind: muon orthogonalizes .* use adamw"):
        load_config(config, overrides, RunConfig)
    load_config(config, ["optimizer.kind=adamw", *overrides], RunConfig)


def test_the_kind_is_one_of_two(runner: Runner) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.kind: .*adamw.*muon"):
        load_config(runner.config(), ["optimizer.kind=sgd"], RunConfig)
