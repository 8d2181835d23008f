"""What a step of the loader costs, counted: neither seconds nor this machine come into it."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from loader.synthetic import FIRST_PLAIN, MARKS, VOCABULARY, ArrayStream

from hpctrain.loader.batches import BatchLoader, SampleReader, StepData
from hpctrain.loader.component import Component, Part
from hpctrain.loader.fim import FimConfig
from hpctrain.loader.order import SampleOrder
from hpctrain.loader.packing import PackedComponent, make_plan
from hpctrain.parallel.topology import Topology
from hpctrain.shards.layout import SPAN_DTYPE

PACKED = replace(MARKS, pad=VOCABULARY)
SEQUENCES = 40
STEP = 8
SHORT, LONG = 64, 4096
CASES = ["cut", "cut, FIM", "cut, FIM on spans", "best_fit", "best_fit, responses"]


class EvenDocuments(ArrayStream):
    """Documents of `size` tokens each, with one span in the middle half of each."""

    def __init__(self, size: int, count: int) -> None:
        tokens = np.random.default_rng(1).integers(FIRST_PLAIN, VOCABULARY, (count, size))
        tokens[:, 0], tokens[:, 3], tokens[:, -1] = MARKS.document, MARKS.content, MARKS.end
        super().__init__(tokens.reshape(-1))
        self.size = size
        self.shards: list[object] = []

    def document_starts(self, start: int, stop: int) -> list[np.ndarray]:
        return [np.arange(-(-start // self.size) * self.size, stop, self.size)]

    def spans(self, start: int, stop: int) -> np.ndarray:
        [begins] = self.document_starts(start, stop)
        found = np.zeros(len(begins), SPAN_DTYPE)
        found["start"], found["stop"] = begins - start + self.size // 4, begins - start + self.size // 2
        return found[found["stop"] <= stop - start]


def make_loader(case: str, length: int, directory: Path, documents_in_a_sequence: int = 4) -> BatchLoader:
    """As many sequences whatever their length, and as many documents in each: only the tokens are more."""
    packed = case.startswith("best_fit")
    size = (length + packed) // documents_in_a_sequence
    stream: Any = EvenDocuments(size, SEQUENCES * documents_in_a_sequence + 1)
    parts = [Part(stream, 0, SEQUENCES * documents_in_a_sequence * size + (not packed))]
    component = Component(parts, length)
    if packed:
        make_plan(parts, length, directory / f"plan-{length}")
        component = PackedComponent(parts, length, directory / f"plan-{length}", PACKED.pad)
    assert len(component) == SEQUENCES
    fim = FimConfig(rate=float("FIM" in case), spans=float("spans" in case))
    reader = SampleReader(
        SampleOrder((SEQUENCES,), (1.0,), 3), [component], fim, PACKED if packed else MARKS, None,
        responses_only="responses" in case,
    )  # fmt: skip
    return BatchLoader(reader, Topology(1, 0, 1), STEP, STEP // 2)


def instructions(work: Callable[[], object]) -> int:
    """Bytecode instructions that this thread runs in `work`, in whatever module."""
    count = 0

    def traced(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("case", CASES)
def test_longer_sequences_take_no_more_python(case: str, tmp_path: Path) -> None:
    counts = []
    for length in (SHORT, LONG):
        loader = make_loader(case, length, tmp_path)
        loader.load(0)  # what is made once
        counts.append(instructions(lambda loader=loader: loader.load(STEP)))  # type: ignore[misc]
    assert counts[0] == counts[1]


def test_a_loop_over_tokens_would_be_seen(tmp_path: Path) -> None:
    class Looping(Component):
        def fill(self, tokens: np.ndarray, places: Any) -> int:
            stop = super().fill(tokens, places)
            for at in range(stop):
                tokens[at] += 0
            return stop

    loader = make_loader("cut", LONG, tmp_path)
    before = instructions(lambda: loader.load(0))
    looping = Looping(loader.reader.components[0].parts, LONG)
    loader = BatchLoader(replace(loader.reader, components=[looping]), loader.topology, STEP, STEP // 2)
    assert instructions(lambda: loader.load(0)) > before + STEP * LONG


def test_fill_in_the_middle_costs_python_in_proportion_to_documents(tmp_path: Path) -> None:
    loaders = [make_loader("cut, FIM", LONG, tmp_path, documents) for documents in (16, 32, 64)]
    few, more, many = (instructions(lambda loader=loader: loader.load(0)) for loader in loaders)  # type: ignore[misc]
    assert many - more < 2.1 * (more - few)  # 16 documents in a sequence more, then 32


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", CASES[:4])
def test_a_step_is_held_few_times_over(case: str, tmp_path: Path) -> None:
    """Sequences, inputs and targets take 8 bytes a token each, boundaries and what is hashed 4 each."""
    loader = make_loader(case, LONG, tmp_path)
    loader.load(0)
    assert peak_bytes(lambda: loader.load(STEP)) < 36 * STEP * LONG


class Recording(BatchLoader):
    """Notes which thread loads what."""

    def load(self, first_sample: int) -> StepData:
        self.threads: list[threading.Thread] = [*getattr(self, "threads", []), threading.current_thread()]
        return super().load(first_sample)


def test_no_step_is_loaded_by_the_thread_that_trains(tmp_path: Path) -> None:
    made = make_loader("cut", SHORT, tmp_path)
    loader = Recording(made.reader, made.topology, STEP, STEP // 2)
    assert len(list(loader.steps(0, 7))) == 7
    assert len(loader.threads) == 7
    assert threading.main_thread() not in loader.threads


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_batches_for_a_cpu_are_not_page_locked(device: torch.device | None, tmp_path: Path) -> None:
    made = make_loader("cut", SHORT, tmp_path)
    [data] = BatchLoader(made.reader, made.topology, STEP, STEP // 2, device).steps(0, 1)
    assert not any(tensor.is_pinned() for batch in data.micro_batches for tensor in batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locking is for a GPU")
def test_batches_for_a_gpu_are_page_locked_and_the_same(tmp_path: Path) -> None:
    made = make_loader("best_fit, responses", SHORT, tmp_path)
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    loader = BatchLoader(made.reader, made.topology, STEP, STEP // 2, device)
    for number, data in enumerate(loader.steps(0, 5)):
        expected = made.load(number * STEP)
        assert data.digest == expected.digest
        for mine, plain in zip(data.micro_batches, expected.micro_batches, strict=True):
            assert all(tensor.is_pinned() for tensor in mine)
            copied = [tensor.to(device, non_blocking=True) for tensor in mine]
            assert all(torch.equal(a.cpu(), b) for a, b in zip(copied, plain, strict=True))
