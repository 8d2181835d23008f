"""What is wrong with a run and the nodes it asks for, found before the queue finds it."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.checkpoint.format import checkpoint_directories
from hpctrain.errors import ConfigError, DataError
from hpctrain.launch.site import Queue, Site, seconds_of
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.brake import STOP_FILE
from hpctrain.train.budget import choose_levels
from hpctrain.train.config import RunConfig, check_layout
from hpctrain.train.memory import frozen_gpu_bytes, least_gpu_bytes
from hpctrain.train.rundir import CHECKPOINTS_NAME

SUBMIT_COMMANDS = {"slurm": "sbatch", "pbs": "qsub", "flux": "flux"}
DEFAULT_RANKS_PER_NODE = 2
"""Ranks of a node without GPUs, as launch/job.sh has it."""

_WORD = re.compile(r"[\w.:@/+-]+", re.ASCII)
_LOG_PATHS = {"slurm": r"[\w./+=@:,~ -]+", "flux": r"[\w./+=@:,~ -]+", "pbs": r"[\w./+=@~-]+"}
"""Paths that a header can carry: no quotes, no placeholders, and for PBS no blanks."""


@dataclass(frozen=True)
class Request:
    """What the user asks the scheduler for."""

    nodes: int = 1
    time: str | None = None
    """HH:MM:SS or D-HH:MM:SS; None: the queue's limit."""
    queue: str | None = None
    account: str | None = None
    job_name: str | None = None
    """None: the run's name."""
    chain: int = 1
    """Jobs to submit, one after the other."""
    gpus_per_node: int | None = None
    """None: as the site says."""
    ranks_per_node: int | None = None
    """Of nodes without GPUs; None: two."""


def queue_of(site: Site, request: Request) -> tuple[str | None, Queue]:
    """The name of the job's queue and what is known of it; (None, nothing) for the scheduler's own."""
    name = request.queue or site.default_queue
    return name, site.queues.get(name or "", Queue())


def gpus_per_node(site: Site, request: Request) -> int:
    """GPUs that the job has on each node."""
    if request.gpus_per_node is not None:
        return request.gpus_per_node
    return site.node.gpus if queue_of(site, request)[1].gpus else 0


def ranks_per_node(site: Site, request: Request) -> int:
    """Ranks on each node: one a GPU, else as many as asked for."""
    return gpus_per_node(site, request) or request.ranks_per_node or DEFAULT_RANKS_PER_NODE


def seconds(site: Site, request: Request) -> int | None:
    """The job's time limit: the one asked for, else the queue's; None: the scheduler's own.

    Raises ValueError for a time that is not one.
    """
    time = request.time or queue_of(site, request)[1].longest(request.nodes)
    return None if time is None else seconds_of(time)


def allocation_problems(site: Site, request: Request) -> Iterator[str]:
    """What the site would refuse, a line each."""
    if site.scheduler == "none":
        yield from _problems_without_scheduler(site, request)
        return
    yield from _queue_problems(site, request)
    if request.account is None and site.account_required:
        yield f"--account: {site.name} wants every job to name one"
    named = {"--account": request.account, "--job-name": request.job_name, "--partition": request.queue}
    for option, value in named.items():
        if value is not None and not _WORD.fullmatch(value):
            yield f"{option}: {value!r} must be letters, digits and .:@/+-_"
    gpus, ranks = gpus_per_node(site, request), ranks_per_node(site, request)
    if gpus > site.node.gpus > 0:
        yield f"--gpus-per-node: {gpus}, but a node of {site.name} has {site.node.gpus}"
    if gpus and request.ranks_per_node not in (None, gpus):
        yield f"--ranks-per-node: nodes with {gpus} GPUs run {gpus} ranks, one a GPU; leave it out"
    if site.node.cores is not None and ranks > site.node.cores:
        yield f"--ranks-per-node: {ranks} ranks, but a node of {site.name} has {site.node.cores} cores"


def _problems_without_scheduler(site: Site, request: Request) -> Iterator[str]:
    asked = {
        "--nodes": request.nodes > 1, "--time": request.time, "--partition": request.queue,
        "--account": request.account, "--chain": request.chain > 1, "--job-name": request.job_name,
    }  # fmt: skip
    for option, given in asked.items():
        if given:
            yield f"{option}: {site.name} has no scheduler; ranks start on this machine; leave it out"


def _queue_problems(site: Site, request: Request) -> Iterator[str]:
    name, queue = queue_of(site, request)
    if name is not None and site.queues and name not in site.queues:
        near = difflib.get_close_matches(name, site.queues, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        yield (
            f"--partition: the profile of {site.name} has no {name!r}; {hint}it has "
            f"{', '.join(site.queues)}; to use another, write it into a copy of the profile, and give that "
            "to --site"
        )
        return
    where = f"{name} of {site.name}"
    if queue.max_nodes is not None and request.nodes > queue.max_nodes:
        yield f"--nodes: {request.nodes}, but {where} takes at most {queue.max_nodes}"
    if request.nodes < queue.min_nodes:
        yield f"--nodes: {request.nodes}, but {where} takes no fewer than {queue.min_nodes}"
    try:
        asked = seconds_of(request.time) if request.time else None
    except ValueError as error:
        yield f"--time: {error}"
        return
    longest = queue.longest(request.nodes)
    if asked is not None and longest is not None and asked > seconds_of(longest):
        yield f"--time: {request.time}, but {where} gives at most {longest} with --nodes {request.nodes}"
    if asked == 0:
        yield "--time: no time at all"


def run_problems(config: RunConfig, command: str, site: Site, request: Request) -> Iterator[str]:
    """Why `hpctrain COMMAND` could not start or go on in the job, a line each."""
    gpus = gpus_per_node(site, request)
    world_size = request.nodes * ranks_per_node(site, request)
    layout_problems: list[str] = []
    try:
        check_layout(config, world_size)
    except ConfigError as error:
        layout_problems = error.problems
    yield from layout_problems
    yield from _place_problems("run.dir", config.run.dir, site)
    yield from _place_problems("data.shards", config.data.shards, site)
    path = config.run.dir.absolute()
    if site.scheduler in _LOG_PATHS and not re.fullmatch(_LOG_PATHS[site.scheduler], str(path)):
        yield (
            f"run.dir: {path}: the job's log is in it, and the header of a {site.scheduler} script cannot "
            "carry all of its characters; letters, digits and ./+=@~_- are safe"
        )
    yield from _directory_problems(config.run.dir)
    yield from _weights_problems(config, command)
    try:
        shards = read_shards_manifest(config.data.shards)
    except DataError as error:
        yield f"data.shards: {error}"
        return
    vocab_size = int(shards.details["vocab_size"])
    if not layout_problems:
        yield from _activation_problems(config, vocab_size, world_size)
    memory = queue_of(site, request)[1].gpu_memory_bytes or site.node.gpu_memory_bytes
    if gpus and memory is not None and site.node.gpu_vendor != "intel":
        yield from _memory_problems(config, vocab_size, world_size, memory)


def _place_problems(key: str, path: Path, site: Site) -> Iterator[str]:
    real = path.resolve()
    for local in site.node.local_paths:
        if real.is_relative_to(local):
            yield f"{key}: {path} is on {local}, which each node of {site.name} has for itself"


def _directory_problems(run: Path) -> Iterator[str]:
    """Whether the run directory can be written, and no hand brake is on."""
    existing = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    if not existing.is_dir():
        yield f"run.dir: {existing} is not a directory"
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield f"run.dir: {existing} cannot be written to"
    if (run / STOP_FILE).exists():
        yield f"run.dir: {run / STOP_FILE} is there, so the job would end at once; remove it to go on"


def _weights_problems(config: RunConfig, command: str) -> Iterator[str]:
    """Whether there is something to start from, where that is another run."""
    other = config.run.start_from
    if other is None and command == "finetune":
        yield "run.start_from: hpctrain finetune needs a run to start from"
    begun = checkpoint_directories(config.run.dir / CHECKPOINTS_NAME)
    if other is not None and not begun and not checkpoint_directories(other / CHECKPOINTS_NAME):
        yield f"run.start_from: {other} has no checkpoint"


def _activation_problems(config: RunConfig, vocab_size: int, world_size: int) -> Iterator[str]:
    """Whether a budget for activations can be kept, which does not depend on the compiler."""
    try:
        choose_levels(config, vocab_size, world_size, compiled=False)
    except ConfigError as error:
        yield from error.problems


def _memory_problems(config: RunConfig, vocab_size: int, world_size: int, memory_bytes: int) -> Iterator[str]:
    parameters, parallel = config.model.parameter_count(vocab_size), config.parallel
    replicas = max(1, world_size // parallel.pipeline_stages)
    layout = (config.train.precision, parallel.zero_stage, replicas, parallel.pipeline_stages)
    trained = config.parameter_count(vocab_size)
    need = least_gpu_bytes(trained, *layout) + frozen_gpu_bytes(parameters - trained, *layout)
    if need > memory_bytes:
        yield (
            f"model: {parameters / 1e9:.2f}G parameters in {config.train.precision} need at least "
            f"{need / 2**30:.1f} GiB of each GPU under ZeRO {parallel.zero_stage}, {replicas} replicas and "
            f"{parallel.pipeline_stages} pipeline stages, activations not counted; it has "
            f"{memory_bytes / 2**30:.0f} GiB: raise parallel.zero_stage, parallel.pipeline_stages or --nodes"
        )


def machine_problems(site: Site, venv: Path, to_print: bool) -> Iterator[str]:
    """What this machine lacks to submit, or only to print the script, a line each."""
    command = SUBMIT_COMMANDS.get(site.scheduler)
    if command is not None and not to_print and shutil.which(command) is None:
        yield f"--site {site.name}: no {command} here; run this on its login node, or look with --print"
    if not os.access(venv / "bin" / "hpctrain", os.X_OK):
        yield f"VENV: {venv} has no bin/hpctrain; install with launch/install.sh, or set VENV"


def remarks(site: Site, request: Request) -> Sequence[str]:
    """What the user should know although nothing is wrong."""
    found = []
    if site.tried is None:
        found.append(f"the profile of {site.name} has not been tried: look at the script with --print first")
    if gpus_per_node(site, request) and site.node.gpu_vendor == "intel":
        found.append(f"{site.name} has Intel GPUs, which hpctrain does not drive: the ranks run on CPUs")
    if site.scheduler != "none" and not site.requeue and request.chain == 1:
        found.append(
            f"jobs of {site.name} do not run again by themselves: the run stops, saved, at the time limit; "
            "--chain N submits N jobs in a row"
        )
    return found
