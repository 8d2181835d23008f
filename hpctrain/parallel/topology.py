"""Which rank does what: pure arithmetic, no process group needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from hpctrain.config import Section


class ParallelConfig(Section):
    """How the model and its optimizer are spread over the ranks."""

    zero_stage: int = Field(default=1, ge=1, le=3)
    """ZeRO stage: 1 shards optimizer state, 2 gradients too, 3 parameters too."""
    pipeline_stages: int = Field(default=1, ge=1)
    """Number of pipeline stages; more than one needs zero_stage 1."""


@dataclass(frozen=True)
class Topology:
    """The place of one rank: `pipeline_stages` x `data_parallel_size` = `world_size`.

    Ranks of one stage are adjacent, as in DeepSpeed's PipeDataParallelTopology.
    """

    world_size: int
    rank: int
    pipeline_stages: int

    @property
    def data_parallel_size(self) -> int:
        """Number of replicas that see different samples."""
        return self.world_size // self.pipeline_stages

    @property
    def data_parallel_rank(self) -> int:
        """Which replica this rank belongs to."""
        return self.rank % self.data_parallel_size

    @property
    def stage(self) -> int:
        """Which pipeline stage this rank runs."""
        return self.rank // self.data_parallel_size


def layout_problems(parallel: ParallelConfig, world_size: int, blocks: int) -> list[str]:
    """What is impossible about a layout of a model with this many blocks, a line each; empty if it fits."""
    problems = []
    stages = parallel.pipeline_stages
    if stages > 1 and parallel.zero_stage > 1:
        problems.append(
            f"parallel.zero_stage: {parallel.zero_stage} cannot be combined with a pipeline, which needs "
            "whole gradients in each stage; use 1, or parallel.pipeline_stages: 1"
        )
    if stages > blocks + 1:
        problems.append(
            f"parallel.pipeline_stages: {stages} stages, but a model of {blocks} layers can be cut into at "
            f"most {blocks + 1}"
        )
    if world_size % stages:
        problems.append(f"parallel.pipeline_stages: {stages} does not divide the {world_size} ranks")
    return problems


def accumulation_steps(global_batch_size: int, micro_batch_size: int, data_parallel_size: int) -> int | None:
    """Micro-batches each replica runs before an optimizer step, or None if the sizes do not divide."""
    per_step = micro_batch_size * data_parallel_size
    return None if global_batch_size % per_step else global_batch_size // per_step


def split_model(costs: Sequence[int], stages: int, head_apart: bool = True) -> list[int]:
    """Cut the layer list (embedding, blocks, norm, head) into stages; see `split_layers`.

    The embedding stays with the first block and the norm with the head. Each stage then has matrices and
    norm weights, so the same optimizer groups: DeepSpeed sums the gradient norm over the stages group by
    group, and hangs where one stage has fewer. Without `head_apart` norm and head stay with the last block:
    where only blocks are trained, each stage needs one.
    """
    units = [costs[0] + costs[1], *costs[2:-2], costs[-2] + costs[-1]]
    if not head_apart and len(units) > 1:
        units[-2:] = [sum(units[-2:])]
    inner = split_layers(units, stages)[1:-1]
    return [0, *(cut + 1 for cut in inner), len(costs)]


def split_layers(costs: Sequence[int], stages: int) -> list[int]:
    """Cut a layer list into contiguous stages so that the dearest stage is as cheap as can be.

    Returns stages + 1 indices; every stage gets at least one layer. Raises ValueError if there are fewer
    layers than stages.
    """
    if stages > len(costs):
        raise ValueError(f"{len(costs)} layers cannot fill {stages} stages")
    before = [0]
    for cost in costs:
        before.append(before[-1] + cost)
    # best[s][n]: (cost of the dearest of s stages over the first n layers, where the last stage begins)
    best: list[dict[int, tuple[int, int]]] = [{0: (0, 0)}]
    for stage in range(1, stages + 1):
        previous = best[-1]
        best.append(
            {
                stop: min((max(previous[start][0], before[stop] - before[start]), start)
                          for start in previous if start < stop)
                for stop in range(stage, len(costs) + 1)
            }
        )  # fmt: skip
    cuts = [len(costs)]
    for stage in range(stages, 0, -1):
        cuts.append(best[stage][cuts[-1]][1])
    return cuts[::-1]
