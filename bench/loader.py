"""The loader: tokens/s of one host thread by case, beside a flat memory map and torch's DataLoader; and the
share of its time that a consumer at the speed of a GPU waits for data."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.table import Row, row

VOCABULARY = 32768
TYPICAL_DOCUMENT = (
    1000  # tokens; in 239 MB of Debian packages the median is 1,006, the deviation of logs 1.24
)
FLAT_TOKENS = 32 << 20  # of shards, that peers read
FLAT = "flat uint16 map, random crops (nanoGPT, LitGPT)"
WORKER = "torch DataLoader, 1 worker, over it"
Step = Callable[[], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", type=Path, nargs="?", help="finished shards; or --synthetic")
    parser.add_argument("--synthetic", type=int, metavar="TOKENS", help="shards of random documents instead")
    parser.add_argument("--lengths", default="1024,4096", help="tokens of a sequence")
    parser.add_argument("--tokens", type=int, default=1 << 20, help="to load in each round")
    parser.add_argument("--step-tokens", type=int, default=32768, help="of a step, for throughput")
    parser.add_argument("--rounds", type=int, default=5, help="every variant once a round, in turn")
    parser.add_argument("--rates", default="10471,45455,100000", help="tokens/s of consumers that may wait")
    parser.add_argument("--step-sequences", type=int, default=1, help="that these take a step")
    parser.add_argument("--seconds", type=float, default=2, help="that each consumer takes data in a round")
    parser.add_argument("--scratch", type=Path, help="directory on the file system to measure")


def measure(options: argparse.Namespace) -> list[Row]:
    """Throughput and waiting, both on the clock of the wall."""
    if (options.shards is None) == (options.synthetic is None):
        raise SystemExit("give either a directory of shards or --synthetic TOKENS")
    rows = []
    with tempfile.TemporaryDirectory(prefix="hpctrain-bench-", dir=options.scratch) as place:
        source = _synthetic(Path(place), options.synthetic) if options.synthetic else _real(options.shards)
        flat = _flatten(source, Path(place) / "flat")
        for length in map(int, options.lengths.split(",")):
            rows += _throughput_rows(options, source, flat, length, Path(place))
        for length in map(int, options.lengths.split(",")):
            rows += _waiting_rows(options, source, flat, length, Path(place))
    return rows


@dataclass(frozen=True)
class Source:
    """Tokens to load, and the marks in them."""

    parts: list[Any]
    marks: Any
    pad: int
    has_spans: bool
    cutter: Any


def _real(shards: Path) -> Source:
    from hpctrain.loader.component import Part
    from hpctrain.loader.cutting import CharacterCutter
    from hpctrain.shards.layout import TOKENIZER_DIRECTORY
    from hpctrain.shards.reader import open_streams
    from hpctrain.tokenizer.codec import Tokenizer
    from hpctrain.train.data import fim_tokens

    tokenizer = Tokenizer.load(shards / TOKENIZER_DIRECTORY)
    streams = list(open_streams(shards, "train", verify=False).values())
    return Source(
        [Part(stream, 0, len(stream)) for stream in streams], fim_tokens(tokenizer), tokenizer.special.pad,
        all(stream.has_spans for stream in streams), CharacterCutter(tokenizer),
    )  # fmt: skip


def _synthetic(place: Path, count: int) -> Source:
    """One shard of documents of log-normal lengths, with a span in the middle of each."""
    from hpctrain.loader.component import Part
    from hpctrain.loader.fim import FimTokens
    from hpctrain.shards.layout import SPAN_DTYPE, ShardTables, write_shard
    from hpctrain.shards.stream import Shard, TokenStream

    draw = np.random.default_rng(1)
    sizes = 8 + draw.lognormal(np.log(TYPICAL_DOCUMENT), 1.2, 1 + count // TYPICAL_DOCUMENT).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    offsets = offsets[: max(2, int(np.searchsorted(offsets, count)))]
    marks = FimTokens(document=0, content=1, end=2, prefix=3, suffix=4, middle=5)
    tokens = draw.integers(7, VOCABULARY, int(offsets[-1]), dtype=np.uint16)
    tokens[offsets[:-1]], tokens[offsets[:-1] + 3], tokens[offsets[1:] - 1] = 0, 1, 2
    spans = np.zeros(len(offsets) - 1, SPAN_DTYPE)
    spans["start"], spans["stop"] = offsets[:-1] + 4, offsets[1:] - 2
    index = np.arange(len(offsets) - 1, dtype=np.uint64)
    table = ShardTables(
        offsets.astype(np.uint64), index, np.array([0, len(index)], np.uint64), ["random"], spans
    )
    write_shard(place / "c-00000.h5", tokens.dtype, [tokens], table)
    names = ["tokens", "document_offsets", "document_index", "spans"]
    stream = TokenStream([Shard(place / "c-00000.h5", names)])
    return Source([Part(stream, 0, len(stream))], marks, 6, True, None)


def _flatten(source: Source, path: Path) -> Path:
    """The first tokens of the parts in one file, which peers read."""
    left = FLAT_TOKENS
    with path.open("wb") as file:
        for part in source.parts:
            file.write(part.stream.read(0, min(left, len(part))).astype(np.uint16).tobytes())
            left -= min(left, len(part))
    return path


def _cases(source: Source) -> dict[str, dict[str, Any]]:
    """What the loader can be asked to do: packing, fill in the middle, and what of it is learnt."""
    cases: dict[str, dict[str, Any]] = {
        "hpctrain, cut": {},
        "hpctrain, best_fit": {"packing": "best_fit"},
        "hpctrain, cut, FIM 0.5": {"fim": {"rate": 0.5}},
        "hpctrain, best_fit, FIM 0.5": {"packing": "best_fit", "fim": {"rate": 0.5}},
    }
    if source.has_spans:
        cases["hpctrain, cut, FIM 0.5, half of it spans"] = {"fim": {"rate": 0.5, "spans": 0.5}}
        cases["hpctrain, best_fit, responses only"] = {"packing": "best_fit", "responses_only": True}
    if source.cutter:
        fim = {"rate": 0.5, "spans": 0.5 * source.has_spans, "cuts": "character"}
        cases["hpctrain, cut, FIM 0.5, between characters"] = {"fim": fim}
    return cases


def _loader(source: Source, case: dict[str, Any], length: int, sequences: int, place: Path) -> Any:
    """The loader of one rank, as a run makes it."""
    from hpctrain.loader.batches import BatchLoader, SampleReader
    from hpctrain.loader.component import Component
    from hpctrain.loader.fim import FimConfig
    from hpctrain.loader.order import SampleOrder
    from hpctrain.loader.packing import PackedComponent, make_plan
    from hpctrain.parallel.topology import Topology

    marks, component = source.marks, Component(source.parts, length)
    if case.get("packing") == "best_fit":
        plan = place / f"plan-{length}"
        make_plan(source.parts, length, plan)
        marks = replace(marks, pad=source.pad)
        component = PackedComponent(source.parts, length, plan, source.pad)
    fim = FimConfig(**case.get("fim", {}))
    cutter = source.cutter if fim.cuts == "character" else None
    order = SampleOrder((len(component),), (1.0,), 1)
    reader = SampleReader(order, [component], fim, marks, cutter, case.get("responses_only", False))
    return BatchLoader(reader, Topology(1, 0, 1), sequences, sequences)


def _crops(flat: Path, length: int, sequences: int) -> Iterator[Any]:
    """Inputs and targets [B,S] as nanoGPT's get_batch makes them."""
    import torch

    while True:
        tokens = np.memmap(flat, np.uint16, "r")
        starts = torch.randint(len(tokens) - length, (sequences,))
        yield tuple(
            torch.stack([torch.from_numpy(tokens[i + by : i + by + length].astype(np.int64)) for i in starts])
            for by in (0, 1)
        )


def _worker_crops(flat: Path, length: int, sequences: int) -> Iterator[Any]:
    """The same from one worker of torch's DataLoader."""
    import torch

    class Crops(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return _crops(flat, length, sequences)

    yield from torch.utils.data.DataLoader(Crops(), batch_size=None, num_workers=1)


def _throughput_rows(
    options: argparse.Namespace, source: Source, flat: Path, length: int, place: Path
) -> list[Row]:
    sequences = max(1, options.step_tokens // length)
    steps = max(1, options.tokens // (sequences * length))
    variants: dict[str, Step] = {}
    for name, case in _cases(source).items():
        loader = _loader(source, case, length, sequences, place)
        variants[name] = _each(loader, steps)
        if name == "hpctrain, cut":
            variants[f"{name}, read ahead"] = lambda loader=loader: _take(loader.steps(0, steps), steps)
    for name, peer in ((FLAT, _crops), (WORKER, _worker_crops)):
        batches = peer(flat, length, sequences)
        variants[name] = partial(_take, batches, steps)
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(options.rounds + 1):
        for name, variant in variants.items():
            began = time.perf_counter()
            variant()
            if turn:  # the first warms the page cache, and starts the worker
                rates[name].append(steps * sequences * length / (time.perf_counter() - began) / 1e6)
    base = float(np.median(rates[FLAT]))
    return [row(f"load {length}", name, "million tokens/s", values, base) for name, values in rates.items()]


def _each(loader: Any, steps: int) -> Step:
    """Load steps that were not loaded before, in this thread."""
    first = 0

    def load() -> None:
        nonlocal first
        for _ in range(steps):
            loader.load(first)
            first += loader.global_batch_size

    return load


def _take(batches: Iterator[Any], steps: int) -> None:
    for _ in range(steps):
        next(batches)


def _waiting_rows(
    options: argparse.Namespace, source: Source, flat: Path, length: int, place: Path
) -> list[Row]:
    """A consumer that sleeps for as long as its step takes; what it waits as `train.loop` measures it."""
    rows = []
    cases = _cases(source)
    chosen = ["hpctrain, cut", "hpctrain, best_fit, FIM 0.5", list(cases)[-1]]
    sequences = options.step_sequences
    loaders = {name: _loader(source, cases[name], length, sequences, place) for name in chosen}
    for rate in map(float, options.rates.split(",")):
        step_seconds = sequences * length / rate
        steps = 1 + max(4, round(options.seconds / step_seconds))
        variants: dict[str, Callable[[], Iterator[Any]]] = {
            name: partial(loader.steps, 0, steps) for name, loader in loaders.items()
        }
        for name, peer in ((FLAT, _crops), (WORKER, _worker_crops)):
            variants[name] = partial(peer, flat, length, sequences)
        waits: dict[str, list[float]] = {name: [] for name in variants}
        firsts: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.rounds):
            for name, variant in variants.items():
                first, share = _consume(variant(), steps, step_seconds)
                firsts[name].append(1e3 * first)
                waits[name].append(100 * share)
        case = f"{sequences} x {length} at {rate:,.0f} tokens/s"
        rows += [row(case, name, "% of the time waiting", values) for name, values in waits.items()]
        rows += [row(case, name, "ms until the first step", values) for name, values in firsts.items()]
    return rows


def _consume(batches: Iterator[Any], steps: int, step_seconds: float) -> tuple[float, float]:
    """Seconds until the first step's data, and the share of the time of the others that was waiting."""
    waits, seconds = [], 0.0
    for _ in range(steps):
        began = time.monotonic()
        next(batches)
        waits.append(time.monotonic() - began)
        time.sleep(step_seconds)
        seconds += time.monotonic() - began
    return waits[0], sum(waits[1:]) / (seconds - waits[0] - step_seconds)
