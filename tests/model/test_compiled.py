"""Blocks compiled by torch's inductor (C++ on CPUs) against the same blocks run as they are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from hpctrain.errors import ConfigError
from hpctrain.model.attention import sdpa_attention
from hpctrain.model.compiled import choose_compile, compile_blocks
from hpctrain.model.config import ModelConfig
from hpctrain.model.transformer import Transformer, build_layers

CPU = torch.device("cpu")
VOCABULARY, LENGTH = 50, 32


def build() -> Transformer:
    config = ModelConfig(
        hidden_size=32, layers=3, heads=4, kv_heads=2, mlp_size=48, tied=True, attention_bias="qkv"
    )
    return Transformer(build_layers(config, VOCABULARY, 1, sdpa_attention))


def draw(*edges: int) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.arange(2 * LENGTH).view(2, LENGTH) * 7 % VOCABULARY
    boundaries = torch.full((2 * LENGTH + 1,), 2 * LENGTH, dtype=torch.int32)
    boundaries[: len(edges)] = torch.tensor(edges, dtype=torch.int32)
    return tokens, boundaries, tokens.roll(-1)


@pytest.mark.slow
@pytest.mark.parametrize(("gathers_weights", "graphs"), [(False, 2), (True, 3)])
def test_compiled_blocks_give_the_same_loss_and_gradients_from_few_graphs(
    gathers_weights: bool, graphs: int
) -> None:
    torch._dynamo.reset()
    counters.clear()
    plain, compiled = build(), build()
    compile_blocks(compiled, gathers_weights)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in compiled.named_parameters()]
    for number, edges in enumerate([(0, LENGTH), (0, 5, LENGTH, 50), (0, 9, 20, LENGTH)]):
        for model in (plain, compiled):
            model.zero_grad()
            model(*draw(*edges)).backward()
        for (name, mine), theirs in zip(compiled.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
        assert counters["stats"]["unique_graphs"] == graphs, f"step {number}"
    with torch.no_grad():
        torch.testing.assert_close(compiled(*draw(0, LENGTH)), plain(*draw(0, LENGTH)))


def test_nothing_is_compiled_on_cpus_unless_asked_for() -> None:
    assert not choose_compile(None, CPU, True)
    assert not choose_compile(False, CPU, True)
    assert choose_compile(True, CPU, True)


def test_without_a_compiler_it_says_what_is_missing() -> None:
    code = (
        "import torch\nfrom hpctrain.model.compiled import choose_compile\n"
        "try:\n    choose_compile(True, torch.device('cpu'), True)\n"
        f"except {ConfigError.__name__} as error:\n    print(error)\n"
    ).replace("import torch\n", "import torch\nfrom hpctrain.errors import ConfigError\n")
    environment = {**os.environ, "CXX": "/no/such/compiler"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "train.compile: torch.compile needs a C++ compiler" in done.stdout
