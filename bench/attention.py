"""Attention: forward and backward of each backend that trains on this device, and of what peers do, over
sequences that hold several documents; and how far each is from the definition."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.table import Row, row

MASKED = "SDPA, boolean document mask (as Hugging Face)"
CAUSAL = "SDPA, causal, documents ignored"
FORWARD = "forward, ms"
Samples = dict[str, list[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lengths", default="1024,2048,4096", help="positions of a sequence")
    parser.add_argument("--documents", default="1,4,16", help="in each sequence, of random lengths")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--batch", type=int, default=1, help="sequences")
    parser.add_argument("--threads", type=int, help="on a CPU; by default as many as torch takes")
    parser.add_argument("--rounds", type=int, default=5, help="every variant once a round, in turn")
    parser.add_argument("--warm-up", type=int, default=2, help="rounds before these")


def measure(options: argparse.Namespace) -> list[Row]:
    """On a GPU in bf16 and timed by events, else in fp32; masks are made before, as all layers share them."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    rows = []
    for length in map(int, options.lengths.split(",")):
        for documents in map(int, options.documents.split(",")):
            rows += _case_rows(options, _make_case(options, device, length, documents))
    return rows


@dataclass(frozen=True)
class Case:
    """One shape: [B,S,H,D] query, [B,S,K,D] key and value, the output's gradient, and the documents."""

    name: str
    query: Any
    key: Any
    value: Any
    upstream: Any
    boundaries: Any
    """See `hpctrain.model.attention`."""

    @property
    def inputs(self) -> tuple[Any, Any, Any]:
        """What gradients are taken of."""
        return self.query, self.key, self.value

    @property
    def precision(self) -> str:
        """As configs name it."""
        return "bf16" if self.query.element_size() == 2 else "fp32"


def _make_case(options: argparse.Namespace, device: Any, length: int, documents: int) -> Case:
    import numpy as np
    import torch

    from hpctrain.loader.batches import make_batch

    draw = np.random.default_rng(length + documents)
    tokens = np.ones((options.batch, length + 1), np.int64)
    for sequence in tokens:
        sequence[draw.choice(np.arange(1, length), documents - 1, replace=False)] = 0
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(1)

    def heads(count: int) -> Any:
        drawn = torch.randn(options.batch, length, count, options.width, generator=generator)
        return drawn.to(device, dtype)

    query, key, value = (heads(n).requires_grad_() for n in (options.heads, *[options.kv_heads] * 2))
    boundaries = make_batch(tokens, document_mark=0).boundaries.to(device)
    return Case(f"{length} in {documents}", query, key, value, heads(options.heads), boundaries)


def _case_rows(options: argparse.Namespace, case: Case) -> list[Row]:
    variants = _variants(case)
    samples: dict[str, Samples] = {FORWARD: {}, "forward and backward, ms": {}}
    for turn in range(options.warm_up + options.rounds):
        for name, variant in variants.items():
            times = _time(case, variant)
            for metric, milliseconds in zip(samples, times, strict=True):
                if turn >= options.warm_up:
                    samples[metric].setdefault(name, []).append(milliseconds)
    rows = []
    for metric, by_name in samples.items():
        for base in ("eager",) if metric == FORWARD else ("eager", MASKED):
            median = statistics.median(by_name[base])
            rows += [row(case.name, name, f"{metric} (ratio to {_short(base)})", values, median)
                     for name, values in by_name.items()]  # fmt: skip
    return rows + _difference_rows(case, variants)


def _short(name: str) -> str:
    return "masked SDPA" if name == MASKED else name


def _variants(case: Case) -> dict[str, Callable[[], Any]]:
    """Each gives the output [B,S,H,D]."""
    import torch.nn.functional as F

    from hpctrain.model.attention import available_backends, choose_attention, document_ids

    kind, (batch, length, heads, _) = case.query.device.type, case.query.shape
    ours = {
        name: choose_attention(name, kind, case.precision)
        for name in available_backends(kind, case.precision)
    }
    documents = document_ids(case.boundaries, batch * length).view(batch, 1, length)
    mask = (documents[..., None] == documents[..., None, :]).tril()

    def masked() -> Any:  # with a mask Hugging Face repeats keys and values instead of grouping queries
        query, key, value = (each.transpose(1, 2) for each in case.inputs)
        group = heads // key.shape[1]
        key, value = (each.repeat_interleave(group, dim=1) for each in (key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)

    def causal() -> Any:
        query, key, value = (each.transpose(1, 2) for each in case.inputs)
        grouped = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return grouped.transpose(1, 2)

    backends = {
        name: lambda attend=attend: attend(*case.inputs, case.boundaries) for name, attend in ours.items()
    }
    return {**backends, MASKED: masked, CAUSAL: causal}


def _time(case: Case, variant: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds of the forward pass, and of forward and backward together."""
    import torch

    marks = []
    is_gpu = case.query.device.type == "cuda"

    def mark() -> None:
        if is_gpu:
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
        else:
            marks.append(time.perf_counter())

    if is_gpu:
        torch.cuda.synchronize()
    mark()
    output = variant()
    mark()
    torch.autograd.grad(output, case.inputs, case.upstream)
    mark()
    if is_gpu:
        torch.cuda.synchronize()
        return marks[0].elapsed_time(marks[1]), marks[0].elapsed_time(marks[2])
    return 1e3 * (marks[1] - marks[0]), 1e3 * (marks[2] - marks[0])


def _difference_rows(case: Case, variants: dict[str, Callable[[], Any]]) -> list[Row]:
    """Largest differences to the definition, computed in fp32 from the same numbers."""
    import torch

    from hpctrain.model.attention import eager_attention

    inputs = [each.detach().float().requires_grad_() for each in case.inputs]
    output = eager_attention(*inputs, case.boundaries)
    gradients = torch.autograd.grad(output, inputs, case.upstream.float())
    rows = []
    for name, variant in variants.items():
        if name == CAUSAL:
            continue  # which computes something else
        found = variant()
        others = torch.autograd.grad(found, case.inputs, case.upstream)
        pairs = zip(others, gradients, strict=True)
        largest = max(float((mine.float() - truth).abs().max()) for mine, truth in pairs)
        off = float((found.detach().float() - output.detach()).abs().max())
        rows.append(row(case.name, name, "output: largest difference x 1e6", [1e6 * off]))
        rows.append(row(case.name, name, "gradients: largest difference x 1e6", [1e6 * largest]))
    return rows
