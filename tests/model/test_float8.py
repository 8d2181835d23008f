"""fp8 products, emulated on CPUs by torchao: what they change, by how much, and what they leave as it is."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runner import Runner, environment
from torch import Tensor, nn

from hpctrain.config import load_config
from hpctrain.errors import ConfigError
from hpctrain.launch.local import run_ranks
from hpctrain.loader.batches import make_batch
from hpctrain.model.adapter import AdapterConfig
from hpctrain.model.attention import sdpa_attention
from hpctrain.model.config import ModelConfig, RecomputeLevel
from hpctrain.model.float8 import check_float8, float8_layers, products_in_bf16
from hpctrain.model.lora import adapt_layers
from hpctrain.model.loss import plain_next_token_loss
from hpctrain.model.recompute import recompute_layers
from hpctrain.model.transformer import Layer, Transformer, build_layers, parameter_shapes
from hpctrain.train.config import RunConfig, check_layout
from hpctrain.train.throughput import measure

VOCABULARY = 48
CPU = torch.device("cpu")


def layers(**sizes: Any) -> list[Layer]:
    tree = {"hidden_size": 32, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_size": 48, "tied": True, **sizes}
    return build_layers(ModelConfig.model_validate(tree), VOCABULARY, 1, sdpa_attention)


def emulated(some: list[Layer]) -> list[Layer]:
    float8 = pytest.importorskip("torchao.float8")
    return float8_layers(some, float8.Float8LinearConfig(emulate=True))


def float8_names(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if type(module).__name__ == "Float8Linear"}


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_names_shapes_and_initial_weights_stay() -> None:
    wide, narrow = layers(attention_bias="qkv"), emulated(layers(attention_bias="qkv"))
    assert parameter_shapes(narrow) == parameter_shapes(wide)
    expected, found = (dict(Transformer(each).named_parameters()) for each in (wide, narrow))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(type(parameter) is nn.Parameter for parameter in found.values())
    block = {f"attention.{each}" for each in ("query", "key", "value", "output")}
    block |= {f"mlp.{each}" for each in ("gate", "up", "down")}
    assert float8_names(Transformer(narrow)) == {f"block_{i}.{each}" for i in range(2) for each in block}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_and_its_gradients_are_close_to_the_wide_ones(dtype: torch.dtype) -> None:
    """e4m3 keeps 3 bits after the leading one, e5m2 (gradients) 2: errors of 2 to 4 % and of 4 to 8 %."""
    results = []
    for some in (layers(), emulated(layers())):
        linear = Transformer(some).get_submodule("block_0.mlp.up").to(dtype)
        generator = torch.Generator().manual_seed(3)
        hidden, upstream = (
            torch.randn(2, 16, width, generator=generator).to(dtype).requires_grad_() for width in (32, 48)
        )
        output = linear(hidden)
        gradients = torch.autograd.grad(output, [hidden, *linear.parameters()], upstream)
        results.append([output.detach(), *gradients])
    errors = []
    for expected, found in zip(*results, strict=True):
        assert (found.dtype, found.shape) == (dtype, expected.shape)
        errors.append(relative(found.float(), expected.float()))
    assert 0.01 < errors[0] < 0.06, "fp8, and no worse than its rounding"
    assert all(0.02 < error < 0.1 for error in errors[1:])


def test_what_is_no_multiple_of_16_stays_and_is_named() -> None:
    some = layers(kv_heads=1, heads=4)  # keys and values are 8 wide
    assert products_in_bf16(some) == ["attention.key", "attention.value"]
    assert products_in_bf16(layers()) == []
    assert {name.split(".", 1)[1] for name in float8_names(Transformer(emulated(some)))} == {
        "attention.query", "attention.output", "mlp.gate", "mlp.up", "mlp.down"
    }  # fmt: skip


def curve(some: list[Layer], steps: int) -> list[float]:
    """Losses on batches of a language in which each token is the one before plus one, now and then two."""
    model = Transformer(some)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        strides = 1 + torch.randint(0, 8, (4, 33), generator=generator).eq(0).long()
        starts = torch.randint(0, VOCABULARY, (4, 1), generator=generator)
        tokens, targets, boundaries = make_batch(((starts + strides.cumsum(1)) % VOCABULARY).numpy(), 0)
        loss = plain_next_token_loss(model(tokens, boundaries), targets)
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def test_the_loss_falls_as_in_fp32() -> None:
    expected, found = curve(layers(), 20), curve(emulated(layers()), 20)
    assert expected[-1] < 0.6 * expected[0], "it learns"
    assert found != expected
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("level", ["cheap", "all"])
def test_what_is_computed_again_is_the_same(level: RecomputeLevel) -> None:
    tokens, _, boundaries = make_batch(torch.arange(33)[None].numpy(), 0)
    results = []
    for some in (emulated(layers()), recompute_layers(emulated(layers()), [level] * 2)):
        model = Transformer(some)
        model(tokens, boundaries).square().mean().backward()
        results.append({name: parameter.grad for name, parameter in model.named_parameters()})
    expected, found = results
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_matrices_of_adapters_stay_as_they_are() -> None:
    adapter = AdapterConfig(rank=16)
    weights = dict(Transformer(layers()).named_parameters())
    adapted = adapt_layers(layers(), adapter, 1, lambda name, to: to.copy_(weights[name]))
    wide, narrow = Transformer(adapted), Transformer(emulated(adapted))
    assert list(dict(narrow.named_parameters())) == list(dict(wide.named_parameters()))
    assert float8_names(narrow)
    assert all(name.endswith(".base_layer") for name in float8_names(narrow))
    tokens, _, boundaries = make_batch(torch.arange(33)[None].numpy(), 0)
    narrow(tokens, boundaries).square().mean().backward()
    trained = {name for name, parameter in narrow.named_parameters() if parameter.grad is not None}
    assert trained
    assert all(".lora_" in name for name in trained)


def test_a_machine_without_fp8_is_told_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        check_float8(layers(), CPU)
    assert f"{platform.node()} trains on a CPU here, in fp32 or bf16" in str(caught.value)
    monkeypatch.setitem(sys.modules, "torchao", None)  # as where it is not installed
    with pytest.raises(ConfigError) as caught:
        check_float8(layers(hidden_size=24, mlp_size=40), CPU)
    assert len(caught.value.problems) == 3, "all at once"
    assert "pip install 'torchao" in caught.value.problems[1]
    assert "multiples of 16, and no product" in caught.value.problems[2]


def test_torchao_is_not_imported_where_nothing_is_in_fp8() -> None:
    code = "import sys; import hpctrain.train.run; sys.exit('torchao' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=120).returncode == 0


def test_a_micro_batch_of_an_odd_size_is_refused(tmp_path: Path) -> None:
    path = Runner(tmp_path, tmp_path).config(train={"precision": "fp8"})
    check_layout(load_config(path, [], RunConfig), 2)
    with pytest.raises(ConfigError, match=r"multiple of 16 tokens, and not train.micro_batch_size 2 x data"):
        check_layout(load_config(path, ["data.sequence_length=60"], RunConfig), 2)


def test_mfu_is_by_the_bf16_peak(tmp_path: Path) -> None:
    peaks = {}
    for precision in ("bf16", "fp8"):
        path = Runner(tmp_path, tmp_path).config(train={"precision": precision})
        peaks[precision] = measure(load_config(path, [], RunConfig), VOCABULARY, 2, "NVIDIA H200").peak
    assert peaks["fp8"] == peaks["bf16"] == pytest.approx(2 * 989.4e12)


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize(
    ("zero", "stages", "precision", "tolerance"),
    [
        (1, 1, "fp32", 1e-4),
        (2, 1, "fp32", 1e-4),
        (1, 2, "fp32", 1e-4),
        (3, 1, "bf16", 5e-3),
    ],
)
def test_every_layout_trains_in_fp8_as_the_plain_loop(
    tmp_path: Path, zero: int, stages: int, precision: str, tolerance: float
) -> None:
    """A last bit of a sum can move a value to the next of fp8's few, so it is not as close as in fp32."""
    pytest.importorskip("torchao.float8")
    out = tmp_path / "told.json"
    script = Path(__file__).with_name("float8_rank.py")
    command = [sys.executable, str(script), str(out), str(zero), str(stages), precision]
    assert run_ranks(command, 2) == 0
    told = json.loads(out.read_text())
    for found, expected in zip(told["found"], told["expected"], strict=True):
        assert found == pytest.approx(expected, rel=tolerance)
    assert "block_0.mlp.up.weight" in told["names"]
