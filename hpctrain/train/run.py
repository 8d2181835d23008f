"""A training run, from its config to its last step: read it as a table of contents."""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from hpctrain import __version__
from hpctrain.checkpoint.format import RunState, checkpoint_directories, checkpoint_name
from hpctrain.checkpoint.restore import Whole, check_identity, looks_whole, newest_whole, restore
from hpctrain.checkpoint.retention import check_room
from hpctrain.checkpoint.save import Saved, Saver
from hpctrain.config import dump_yaml, read_yaml
from hpctrain.engine.base import Engine
from hpctrain.engine.build import build_engine
from hpctrain.errors import CheckpointError, HpctrainError
from hpctrain.manifest import is_finished, write_atomically
from hpctrain.model.attention import choose_attention
from hpctrain.model.transformer import build_layers, layer_costs
from hpctrain.parallel.process import Gang, process_group, raise_together
from hpctrain.parallel.topology import Topology, accumulation_steps
from hpctrain.parallel.world import World
from hpctrain.progress import say
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.config import RunConfig, changes, check_layout, identity
from hpctrain.train.data import TrainingData, open_data
from hpctrain.train.loop import Loop
from hpctrain.train.metrics import EVENTS_NAME, MetricSink, WandbSink, read_events
from hpctrain.train.rundir import CONFIG_NAME, Journal, hold, rank_log
from hpctrain.train.signals import stop_signals


def train(config: RunConfig, world: World) -> None:
    """Pretrain by a config as one rank of a world; goes on from the run's newest whole checkpoint."""
    check_layout(config, world.size)
    if is_finished_run(config):
        return
    shards = read_shards_manifest(config.data.shards)
    topology = Topology(world.size, world.rank, config.parallel.pipeline_stages)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signals())
        device = stack.enter_context(process_group(world))
        changed = _claim(stack, config, world, shards.details["vocab_size"])
        log = stack.enter_context(rank_log(config.run.dir, world.rank))
        data = open_data(config, shards, topology)
        engine = build(config, data.vocab_size, topology, device)
        journal = Journal(config.run.dir, world)
        stack.callback(journal.close)
        sinks = _sinks(stack, config, world)
        saver = stack.enter_context(_saver(config, engine, journal, identity(config, shards)))
        whole = _find_checkpoint(config, topology, saver.identity)
        start = whole.state if whole else RunState(step=0, samples=0, tokens=0)
        loop = Loop(config, engine, data, journal, sinks, stop, saver, start, device)
        _introduce(config, data, journal, start.step, changed, device, log)
        _restore_or_begin(loop, whole)
        loop.run()


def is_finished_run(config: RunConfig) -> bool:
    """Whether the last step's checkpoint is there, by its sealed manifest and the sizes of its files."""
    found = checkpoint_directories(_checkpoints(config))
    return bool(found) and found[0].name >= checkpoint_name(config.train.steps) and looks_whole(found[0])


def build(config: RunConfig, vocab_size: int, topology: Topology, device: torch.device) -> Engine:
    """The model and its engine for this rank; a collective call."""
    train, model = config.train, config.model
    attention = choose_attention(model.attention, device.type, train.precision)
    accumulation = accumulation_steps(
        train.global_batch_size, train.micro_batch_size, topology.data_parallel_size
    )
    assert accumulation is not None  # check_layout saw to it
    return build_engine(
        build_layers(model, vocab_size, config.run.seed, attention),
        layer_costs(model, vocab_size),
        config.parallel, topology, config.optimizer,
        device=device, precision=train.precision, micro_batch_size=train.micro_batch_size,
        accumulation_steps=accumulation, recompute=train.recompute,
    )  # fmt: skip


def _saver(config: RunConfig, engine: Engine, journal: Journal, run_identity: dict[str, str]) -> Saver:
    def tell(saved: Saved) -> None:
        journal.event(
            "save", saved.step,
            blocked_seconds=round(saved.blocked_seconds, 4), seconds=round(saved.seconds, 3),
            bytes=saved.bytes, retired=saved.retired,
        )  # fmt: skip

    return Saver(engine, _checkpoints(config), config.checkpoint, run_identity, tell)


def _checkpoints(config: RunConfig) -> Path:
    return config.run.dir / "checkpoints"


def _claim(stack: ExitStack, config: RunConfig, world: World, vocab_size: int) -> dict[str, list[Any]]:
    """Rank 0 takes the run directory for the job and writes its config; all ranks learn if it could not.

    Returns, on rank 0, what differs from the config of the start before.
    """
    problem: HpctrainError | None = None
    changed: dict[str, list[Any]] = {}
    if world.rank == 0:
        try:
            stack.enter_context(hold(config.run.dir, world))
            parameters = config.model.parameter_count(vocab_size)
            if warning := check_room(config.run.dir, parameters, config.checkpoint, config.train.steps):
                say(warning)
            if (config.run.dir / CONFIG_NAME).is_file():
                changed = changes(read_yaml(config.run.dir / CONFIG_NAME), config)
            write_atomically(config.run.dir / CONFIG_NAME, dump_yaml(config))
            _keep_tokenizer(config.data.shards / TOKENIZER_DIRECTORY, config.run.dir / TOKENIZER_DIRECTORY)
        except HpctrainError as error:
            problem = error
        except OSError as error:
            problem = HpctrainError(f"run.dir: {error.filename}: {error.strerror}")
    raise_together(problem)
    return changed


def _keep_tokenizer(source: Path, target: Path) -> None:
    """A copy in the run directory, so that a run can be exported without its shards."""
    if not is_finished(target):
        shutil.copytree(source, target, dirs_exist_ok=True)


def _sinks(stack: ExitStack, config: RunConfig, world: World) -> list[MetricSink]:
    if world.rank != 0 or config.log.wandb == "disabled":
        return []
    sink = WandbSink(config.log, config.run.name, config.run.dir, config.model_dump(mode="json"))
    stack.callback(sink.close)
    return [sink]


def _introduce(
    config: RunConfig,
    data: TrainingData,
    journal: Journal,
    step: int,
    changed: dict[str, list[Any]],
    device: torch.device,
    log: logging.Logger,
) -> None:
    """Say once what starts here."""
    import deepspeed

    parameters = config.model.parameter_count(data.vocab_size)
    versions = {"hpctrain": __version__, "torch": torch.__version__, "deepspeed": deepspeed.__version__}
    details: dict[str, Any] = {
        "parameters": parameters, "device": device.type, "precision": config.train.precision,
        "layout": config.parallel.model_dump(), "versions": versions, "changed": changed,
    }  # fmt: skip
    journal.event("start", step, **details)
    log.info("start: %s", details)
    if journal.world.rank == 0:
        say(
            f"{config.run.name}: {parameters / 1e6:.1f}M parameters in {config.train.precision} on "
            f"{journal.world.size} {device.type} ranks, ZeRO {config.parallel.zero_stage}, "
            f"{config.parallel.pipeline_stages} pipeline stages"
        )


def _find_checkpoint(config: RunConfig, topology: Topology, run_identity: dict[str, str]) -> Whole | None:
    """The newest whole checkpoint, if it is of this very run; None for a run that never saved."""
    gang = Gang(topology.rank, topology.world_size)
    whole = newest_whole(_checkpoints(config), config.checkpoint.start_anew, gang)
    if whole is None:
        _refuse_lost_checkpoints(config)
    else:
        check_identity(whole, run_identity)
    return whole


def _restore_or_begin(loop: Loop, whole: Whole | None) -> None:
    """Load the checkpoint; a run without one begins by saving step 0."""
    if whole is None:
        loop.save(wait=True)
        return
    restore(loop.engine, whole)
    loop.saved_step = whole.state.step
    layout = whole.manifest.details["layout"]
    loop.journal.event("restore", whole.state.step, checkpoint=whole.directory.name, saved_by=layout)
    if loop.engine.topology.rank == 0:
        say(
            f"going on from {whole.directory.name} of {loop.config.train.steps} steps, saved by "
            f"{layout['world_size']} ranks, ZeRO {layout['zero_stage']}, "
            f"{layout['pipeline_stages']} pipeline stages"
        )


def _refuse_lost_checkpoints(config: RunConfig) -> None:
    """A run that has saved before does not silently begin again at step 0."""
    if config.checkpoint.start_anew or not (config.run.dir / EVENTS_NAME).is_file():
        return
    if any(event["event"] == "save" for event in read_events(config.run.dir)):
        error = CheckpointError(
            f"{config.run.dir}: the run has saved checkpoints, but none is left; bring them back, or set "
            "checkpoint.start_anew=true to begin at step 0"
        )
        error.everywhere = True
        raise error
