"""A config and an allocation to a forecast: the layouts that fit, the jobs they take, or what is missing."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.config import load_config
from hpctrain.errors import ConfigError, DataError
from hpctrain.launch.check import Request, gpus_per_node, queue_of, ranks_per_node, seconds
from hpctrain.launch.site import Site, load_site
from hpctrain.plan.cost import Rates
from hpctrain.plan.layouts import Candidate, Job, candidates
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.config import RunConfig
from hpctrain.train.throughput import peak_tflops

RESERVE = 0.06
"""Share of a GPU's memory left to the context, the communication library and fragmentation."""
_START_SECONDS = 300  # of each job: modules, imports, ranks meet, the checkpoint is read


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; None: as the site or the config says."""

    site: str = "generic"
    nodes: int = 1
    gpus_per_node: int | None = None
    gpu_memory: float | None = None
    """GiB of one GPU."""
    vocab_size: int | None = None
    tokens: float | None = None
    tflops: float | None = None
    """Sustained by one GPU."""
    inside: float = 150.0
    """GB/s between GPUs of a node."""
    outside: float = 20.0
    """GB/s of one GPU between nodes."""
    share_of_peak: float = 0.4


@dataclass(frozen=True)
class Jobs:
    """What a layout takes of a site."""

    seconds: float
    node_hours: float
    jobs: int
    """One after the other, under the queue's time limit."""
    end: datetime.datetime
    """If the first started now and none waited."""


@dataclass(frozen=True)
class Forecast:
    """All that is told."""

    job: Job
    site: Site
    nodes: int
    rates: Rates
    memory_bytes: int
    """Of one GPU, what is left after the reserve."""
    limit_seconds: int | None
    """Of one job; None: not known."""
    found: list[Candidate]
    """All layouts, the quickest first."""

    @property
    def fitting(self) -> list[Candidate]:
        """The layouts that fit, the quickest first."""
        return [each for each in self.found if each.peak <= self.memory_bytes]

    def jobs(self, candidate: Candidate) -> Jobs:
        """Node-hours, jobs and the earliest end."""
        work = candidate.step.seconds * self.job.steps
        if self.limit_seconds is None:
            number = 1
        else:
            number = math.ceil(work / max(1, self.limit_seconds - _START_SECONDS))
        total = work + number * _START_SECONDS
        now = datetime.datetime.now(datetime.timezone.utc)
        end = now + datetime.timedelta(seconds=min(total, 3e10))
        return Jobs(total, total * self.nodes / 3600, number, end)


def forecast(path: Path, overrides: Sequence[str], asked: Asked) -> Forecast:
    """Predict a run. Raises ConfigError with everything that is missing or wrong at once."""
    config, site = load_config(path, overrides, RunConfig), load_site(asked.site)
    request = Request(nodes=asked.nodes, gpus_per_node=asked.gpus_per_node)
    problems: list[str] = []
    if config.adapter is not None:
        problems.append("adapter: only runs that train all parameters are planned; take adapter out")
    vocab_size = asked.vocab_size or _vocab_size(config, problems)
    gpus = gpus_per_node(site, request)
    memory = _memory(site, request, gpus, asked, problems)
    flops = _flops(config, site, gpus, asked, problems)
    if problems:
        raise ConfigError(problems)
    each = ranks_per_node(site, request)
    rates = Rates(flops, asked.inside * 1e9, asked.outside * 1e9, each)
    train = config.train
    job = Job(
        config.model, vocab_size, config.data.sequence_length, train.precision, train.global_batch_size,
        train.steps, config.optimizer.kind, "cuda" if gpus else "cpu",
    )  # fmt: skip
    if asked.tokens is not None:
        steps = math.ceil(asked.tokens / job.tokens_per_step)
        job = Job(**{**vars(job), "steps": steps})
    found = candidates(job, asked.nodes * each, rates)
    if not found:
        raise ConfigError(
            f"train.global_batch_size: {train.global_batch_size} cannot be divided among "
            f"{asked.nodes * each} ranks by any layout; make it a multiple of the ranks"
        )
    return Forecast(job, site, asked.nodes, rates, memory, seconds(site, request), found)


def _vocab_size(config: RunConfig, problems: list[str]) -> int:
    try:
        return int(read_shards_manifest(config.data.shards).details["vocab_size"])
    except DataError as error:
        problems.append(f"data.shards: {error}; without shards give --vocab-size")
        return 0


def _memory(site: Site, request: Request, gpus: int, asked: Asked, problems: list[str]) -> int:
    known = queue_of(site, request)[1].gpu_memory_bytes or site.node.gpu_memory_bytes
    if asked.gpu_memory is not None:
        known = int(asked.gpu_memory * 2**30)
    elif not gpus and site.node.memory_bytes is not None:
        known = site.node.memory_bytes // ranks_per_node(site, request)
    if known is None:
        problems.append(f"--gpu-memory: the profile of {site.name} does not say it; give it in GiB")
    return int((known or 0) * (1 - RESERVE))


def _flops(config: RunConfig, site: Site, gpus: int, asked: Asked, problems: list[str]) -> float:
    if asked.tflops is not None:
        return asked.tflops * 1e12
    peak = config.log.peak_tflops
    if peak is None and gpus and config.train.precision != "fp32":
        peak = peak_tflops(site.node.gpu or "")
    if peak is None:
        problems.append(
            f"--tflops: what {site.node.gpu if gpus else 'a rank on CPUs'} sustains in "
            f"{config.train.precision} is not known; give it, in TFLOP/s a rank"
        )
    return (peak or 0.0) * 1e12 * asked.share_of_peak
