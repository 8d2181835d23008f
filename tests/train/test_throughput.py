"""What a step's seconds come to, against hand-made arithmetic; and what a restart counts as a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from runner import Runner

from hpctrain.config import dump_yaml, load_config
from hpctrain.errors import ConfigError
from hpctrain.train.config import RunConfig, changes, check_layout
from hpctrain.train.throughput import describe, measure, peak_tflops

VOCABULARY = 32_000


def config(tmp_path: Path, *overrides: str, precision: str = "bf16") -> RunConfig:
    path = Runner(tmp_path, tmp_path).config(train={"precision": precision})
    return load_config(path, ["model.preset=1b", "data.sequence_length=4096", *SIZES, *overrides], RunConfig)


SIZES = [
    "model.hidden_size=2048", "model.layers=16", "model.heads=32", "model.kv_heads=8", "model.mlp_size=8192",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 120GB", 989.4),
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA A100-SXM-64GB", None),
        ("AMD Instinct MI250X", 191.5),
        ("NVIDIA A1000", None),
        ("Tesla V100-SXM2-16GB", None),
        ("", None),
    ],
)
def test_a_peak_is_known_by_name_or_not_at_all(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_mfu_by_the_stated_formula(tmp_path: Path) -> None:
    step = measure(config(tmp_path), VOCABULARY, 2, "NVIDIA H200").of_step(seconds=0.5, waited=0.005)
    block = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048
    parameters = 16 * block + VOCABULARY * 2048 + 2048
    attention = 12 * 16 * 2048 * 4096
    rate = 8 * 4096 / 0.5
    assert step["tokens_per_second"] == rate
    assert step["data_wait_share"] == 0.01
    assert step["mfu"] == pytest.approx(rate * (6 * parameters + attention) / (2 * 989.4e12), abs=1e-5)
    causal = rate * (6 * parameters + attention / 2) / (2 * 989.4e12)
    assert step["mfu_causal"] == pytest.approx(causal, abs=1e-5)


def test_no_mfu_without_a_known_peak(tmp_path: Path) -> None:
    unknown = measure(config(tmp_path), VOCABULARY, 1, "some device").of_step(1.0, 0.0)
    other_precision = measure(config(tmp_path, precision="fp32"), VOCABULARY, 1, "NVIDIA H200")
    assert "mfu" not in unknown
    assert "mfu" not in other_precision.of_step(1.0, 0.0)
    told = measure(config(tmp_path, "log.peak_tflops=10", precision="fp32"), VOCABULARY, 1, "")
    known = measure(config(tmp_path, "log.peak_tflops=1"), VOCABULARY, 1, "NVIDIA H200")
    assert known.of_step(1.0, 0.0)["mfu"] == pytest.approx(10 * told.of_step(1.0, 0.0)["mfu"], rel=1e-3)


def test_no_mfu_with_an_adapter(tmp_path: Path) -> None:
    adapted = config(tmp_path, "adapter.rank=4", "run.start_from=elsewhere", "log.peak_tflops=1")
    assert "mfu" not in measure(adapted, VOCABULARY, 1, "").of_step(1.0, 0.0)


def test_waiting_is_at_most_the_step(tmp_path: Path) -> None:
    """The mean over the ranks may exceed the seconds of the one that writes."""
    assert measure(config(tmp_path), VOCABULARY, 1, "").of_step(1.0, 1.5)["data_wait_share"] == 1.0


def test_the_line_says_what_is_known() -> None:
    step = {"tokens_per_second": 45_455.4, "data_wait_share": 0.0012}
    assert describe(step) == "45,455 tokens/s, 0.1% waiting for data"
    assert describe(step | {"mfu": 0.418}) == "45,455 tokens/s, MFU 41.8%, 0.1% waiting for data"


def test_a_key_newer_than_the_run_is_no_change(tmp_path: Path) -> None:
    """Else every restart under a newer version would count as a new attempt."""
    now = config(tmp_path)
    tree: dict[str, Any] = yaml.safe_load(dump_yaml(now))
    del tree["train"]["profile"], tree["log"]["peak_tflops"]
    assert changes(tree, now) == {}
    assert changes(tree, config(tmp_path, "log.peak_tflops=5", "train.profile.first_step=2")) == {
        "log.peak_tflops": [None, 5.0],
        "train.profile.first_step": [None, 2],
    }
    back_at_default = {**tree, "train": {**tree["train"], "recompute": True}}
    assert changes(back_at_default, now) == {"train.recompute": [True, False]}


def test_a_profile_that_cannot_be_taken_is_refused(tmp_path: Path) -> None:
    beyond = config(tmp_path, "train.profile.first_step=5", "train.profile.ranks=[0, 7]")
    with pytest.raises(ConfigError) as caught:
        check_layout(beyond, 2)
    assert "the last step to trace is 7, but train.steps is 6" in str(caught.value)
    assert "there is no rank 7; the ranks are 0 to 1" in str(caught.value)
    with pytest.raises(ConfigError, match="-1 is no rank"):
        config(tmp_path, "train.profile.ranks=[-1]")
    check_layout(config(tmp_path, "train.profile.ranks=[7]"), 2)  # it is off
