"""Generation: tokens a second with a key/value cache and without, and by transformers on the export."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.table import Row, row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--export", type=Path, help="its export as hf; without one, none by transformers")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--batches", default="1,8", help="prompts at once")
    parser.add_argument("--rounds", type=int, default=3, help="every variant once a round, in turn")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def measure(options: argparse.Namespace) -> list[Row]:
    """Greedy answers of a fixed length to prompts from the run's held-out text; the same for all variants."""
    from hpctrain.generation.text import text_generator
    from hpctrain.train.trained import load_trained

    trained = load_trained(options.run)
    generator = text_generator(trained, options.device)
    rows: list[Row] = []
    weight = next(trained.model.parameters())
    theirs = load_export(options.export, weight.device, weight.dtype) if options.export else None
    for batch in map(int, options.batches.split(",")):
        prompts = heldout_prompts(trained, batch, options.prompt)
        variants: dict[str, Callable[[], Any]] = {
            "cache": partial(with_cache, trained, prompts, options.tokens),
            "no cache": partial(without_cache, trained, prompts, options.tokens),
        }
        if theirs is not None:
            variants["transformers"] = partial(by_transformers, theirs, prompts, options.tokens)
        rates: dict[str, list[float]] = {name: [] for name in variants}
        for variant in variants.values():
            variant()  # warm
        for _ in range(options.rounds):
            for name, variant in variants.items():
                before = time.perf_counter()
                variant()
                rates[name].append(batch * options.tokens / (time.perf_counter() - before))
        case = f"{batch} prompts of {options.prompt} + {options.tokens} tokens, {generator.device}"
        base = statistics.median(rates["cache"])
        rows += [row(case, name, "tokens/s", values, base) for name, values in rates.items()]
    return rows


def heldout_prompts(trained: Any, count: int, length: int) -> list[list[int]]:
    """Stretches of held-out text."""
    from hpctrain.shards.reader import open_streams

    streams = open_streams(trained.config.data.shards, "validation", verify=False)
    stream = max(streams.values(), key=len)
    step = (len(stream) - length) // count
    return [stream.read(place * step, place * step + length).tolist() for place in range(count)]


def with_cache(trained: Any, prompts: list[list[int]], tokens: int) -> None:
    """As `hpctrain generate` does, without an end."""
    from hpctrain.generation.generate import Request, generate

    requests = [Request(prompt, tokens) for prompt in prompts]
    generate(trained.model, requests, context=trained.config.data.sequence_length, end=-1)


def without_cache(trained: Any, prompts: list[list[int]], tokens: int) -> None:
    """The whole text again for each token."""
    import torch

    device = next(trained.model.parameters()).device
    text = torch.tensor(prompts, device=device)
    with torch.inference_mode():
        for _ in range(tokens):
            rows, length = text.shape
            boundaries = torch.arange(rows + 1, device=device, dtype=torch.int32) * length
            chosen = trained.model(text, boundaries)[:, -1].argmax(-1)
            text = torch.cat([text, chosen[:, None]], dim=1)


def load_export(directory: Path, device: Any, dtype: Any) -> Any:
    """The same weights in transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True)
    return model.to(device).eval()


def by_transformers(model: Any, prompts: list[list[int]], tokens: int) -> None:
    """Greedy, with its cache."""
    import torch

    text = torch.tensor(prompts, device=model.device)
    model.generate(
        text, attention_mask=torch.ones_like(text), max_new_tokens=tokens, min_new_tokens=tokens,
        do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
