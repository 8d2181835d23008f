"""Every layout of a run on some ranks: what it needs, how long it takes, and which fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hpctrain.model.config import ModelConfig
from hpctrain.parallel.topology import ParallelConfig, accumulation_steps, layout_problems
from hpctrain.plan.cost import Rates, Step, predict_step
from hpctrain.train.activations import Recompute
from hpctrain.train.memory import Layout, Memory, memory_of, peak_bytes

RECOMPUTATIONS: tuple[Recompute, ...] = (False, "cheap", True)


@dataclass(frozen=True)
class Job:
    """What is trained, however it is spread."""

    model: ModelConfig
    vocab_size: int
    sequence_length: int
    precision: str
    global_batch_size: int
    steps: int
    optimizer: str = "adamw"
    """As `optimizer.kind`."""
    device: str = "cuda"
    """Or "cpu": they differ in how much of the logits is there at once."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one global batch."""
        return self.global_batch_size * self.sequence_length


@dataclass(frozen=True)
class Candidate:
    """A layout with its predictions."""

    layout: Layout
    memory: list[Memory]
    """Of each pipeline stage."""
    step: Step

    @property
    def peak(self) -> int:
        """Memory of the rank that needs most, in bytes."""
        return peak_bytes(self.memory)


def candidates(job: Job, ranks: int, rates: Rates) -> list[Candidate]:
    """All layouts of so many ranks, the quickest first, whether they fit or not."""
    found = [candidate(job, layout, rates) for layout in possible_layouts(job, ranks)]
    return sorted(found, key=lambda each: (each.step.seconds, each.peak))


def candidate(job: Job, layout: Layout, rates: Rates) -> Candidate:
    """One layout with its predictions."""
    shape = (job.model, job.vocab_size, job.sequence_length, job.precision, layout)
    memory = memory_of(*shape, device=job.device, optimizer=job.optimizer)
    return Candidate(layout, memory, predict_step(*shape, rates))


def possible_layouts(job: Job, ranks: int) -> Iterator[Layout]:
    """ZeRO 1, 2, 3 and pipelines, each micro-batch that divides the global batch, each `train.recompute`."""
    for stages in range(1, min(ranks, job.model.layers + 1) + 1):
        for zero in (1, 2, 3):
            parallel = ParallelConfig(zero_stage=zero, pipeline_stages=stages)
            if layout_problems(parallel, ranks, job.model.layers):
                continue
            replicas = ranks // stages
            for exponent in range(int(math.log2(job.global_batch_size)) + 1):
                pieces = accumulation_steps(job.global_batch_size, 2**exponent, replicas)
                if pieces:
                    for recompute in RECOMPUTATIONS:
                        yield Layout(replicas, stages, zero, 2**exponent, pieces, recompute)
