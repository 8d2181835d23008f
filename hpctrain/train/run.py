"""A training run, from its config to its last step: read it as a table of contents."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from hpctrain import __version__
from hpctrain.checkpoint.format import RunState, checkpoint_directories, checkpoint_name
from hpctrain.checkpoint.restore import Whole, looks_whole
from hpctrain.checkpoint.retention import check_room
from hpctrain.checkpoint.save import Saved, Saver
from hpctrain.config import dump_yaml, read_yaml
from hpctrain.engine.base import Engine
from hpctrain.engine.build import build_engine
from hpctrain.errors import HpctrainError
from hpctrain.loader.mixture import describe_epochs
from hpctrain.manifest import Manifest, is_finished, write_atomically
from hpctrain.model.attention import choose_attention, eager_attention
from hpctrain.model.attention_choice import AttentionChoice, Trial, choose_backend
from hpctrain.model.compiled import choose_compile
from hpctrain.model.config import layer_costs
from hpctrain.model.float8 import FLOAT8_MULTIPLE, check_float8, float8_layers, products_in_bf16
from hpctrain.model.lora import adapt_layers
from hpctrain.model.recompute import recompute_layers
from hpctrain.model.transformer import Layer, build_layers
from hpctrain.parallel.meeting import meet
from hpctrain.parallel.process import Gang, process_group, raise_together
from hpctrain.parallel.topology import Topology, accumulation_steps
from hpctrain.parallel.watch import Watch
from hpctrain.parallel.world import World
from hpctrain.progress import say
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.beginning import check_progress, find_base, find_checkpoint, restore_or_begin
from hpctrain.train.brake import Brake, longest_save_seconds, refuse_stopped
from hpctrain.train.budget import choose_levels
from hpctrain.train.config import RunConfig, changes, check_layout, identity, settle
from hpctrain.train.data import TrainingData, counted_share, open_data
from hpctrain.train.fault import FaultReport
from hpctrain.train.loop import Loop
from hpctrain.train.metrics import EVENTS_NAME, MetricSink, WandbSink, read_events
from hpctrain.train.rundir import CHECKPOINTS_NAME, CONFIG_NAME, Journal, hold, log_path, rank_log
from hpctrain.train.signals import stop_signals
from hpctrain.train.startup import StartClock, has_bf16_products
from hpctrain.train.weights import open_weights


def train(config: RunConfig, world: World) -> None:
    """Pretrain by a config as one rank of a world; goes on from the run's newest whole checkpoint."""
    clock = StartClock(world.job_start)
    check_layout(config, world.size)
    if is_finished_run(config):
        return
    refuse_stopped(config.run.dir)
    clock.mark("import")
    shards = read_shards_manifest(config.data.shards)
    config = settle(config, shards)
    topology = Topology(world.size, world.rank, config.parallel.pipeline_stages)
    with ExitStack() as stack:
        brake = Brake(config.run.dir, stack.enter_context(stop_signals()), world.rank == 0, world.deadline)
        meeting = stack.enter_context(meet(world))
        fault = FaultReport(world)
        watch = stack.enter_context(Watch(meeting, config.watch, fault))
        device = stack.enter_context(process_group(world, meeting))
        clock.mark("rendezvous")
        changed = _claim(stack, config, world, brake, shards.details["vocab_size"])
        log = stack.enter_context(rank_log(config.run.dir, world.rank))
        watch.write_stacks_to(log_path(config.run.dir, world.rank))
        data = open_data(config, shards, topology, device=device)
        base = find_base(config, shards, Gang(world.rank, world.size))
        watch.beat()
        clock.mark("data")
        attention = choose_run_attention(config, data, Gang(world.rank, world.size), device)
        watch.beat()
        engine = build(config, shards, topology, device, base, attention.backend)
        watch.beat()
        clock.mark("initialize")
        journal = fault.journal = Journal(config.run.dir, world)
        stack.callback(journal.close)
        sinks = _sinks(stack, config, world)
        own = identity(config, shards, base.manifest if base else None)
        saver = stack.enter_context(_saver(config, engine, journal, brake, own))
        fault.saver = saver
        whole = find_checkpoint(config, topology, saver.identity)
        start = whole.state if whole else RunState(step=0, samples=0, tokens=0)
        check_progress(config, world, start.step, changed)
        loop = Loop(config, engine, data, journal, sinks, brake, watch, clock, saver, start, device)
        _introduce(config, data, journal, start.step, changed, device, attention, log)
        restore_or_begin(loop, whole)
        watch.beat()
        clock.mark("restore")
        loop.run()


def is_finished_run(config: RunConfig) -> bool:
    """Whether the last step's checkpoint is there, by its sealed manifest and the sizes of its files."""
    found = checkpoint_directories(config.run.dir / CHECKPOINTS_NAME)
    return bool(found) and found[0].name >= checkpoint_name(config.train.steps) and looks_whole(found[0])


def choose_run_attention(
    config: RunConfig, data: TrainingData, gang: Gang, device: torch.device
) -> AttentionChoice:
    """The attention backend of a run, measured where there is a choice; a collective call."""
    model, train = config.model, config.train
    dtype = torch.float32 if train.precision == "fp32" else torch.bfloat16
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    place = (
        f"{name}, torch {torch.__version__}, {train.precision}, {train.micro_batch_size} x "
        f"{config.data.sequence_length} x {model.heads}/{model.kv_heads} heads of {model.head_size}"
    )

    def trial() -> Trial:
        boundaries = data.loader.load(0).micro_batches[0].boundaries.to(device)
        return Trial(
            model.heads, model.kv_heads, model.head_size, config.data.sequence_length, boundaries, dtype,
            model.layers,
        )  # fmt: skip

    def events() -> list[dict[str, Any]]:
        return read_events(config.run.dir) if (config.run.dir / EVENTS_NAME).is_file() else []

    return choose_backend(model.attention, device, train.precision, trial, place, gang, events)


def build(
    config: RunConfig,
    shards: Manifest,
    topology: Topology,
    device: torch.device,
    base: Whole | None = None,
    backend: str | None = None,
) -> Engine:
    """The model and its engine for this rank; a collective call.

    `config` is settled with the shards; `base` is the checkpoint that an adapter changes; `backend` is that
    of the attention, the config's if none is given.
    """
    train, vocab_size = config.train, int(shards.details["vocab_size"])
    accumulation = accumulation_steps(
        train.global_batch_size, train.micro_batch_size, topology.data_parallel_size
    )
    assert accumulation is not None  # check_layout saw to it
    compiled = choose_compile(train.compile, device, topology.rank == 0)
    levels = choose_levels(config, vocab_size, topology.world_size, compiled).levels
    with run_layers(config, vocab_size, device, base, backend) as layers:
        return build_engine(
            recompute_layers(layers, levels), layer_costs(config.model, vocab_size), config.parallel,
            topology, config.optimizer, device=device, precision=train.precision,
            micro_batch_size=train.micro_batch_size, accumulation_steps=accumulation,
            counted_share=counted_share(config.data, shards), compiled=compiled,
        )  # fmt: skip


@contextmanager
def run_layers(
    config: RunConfig,
    vocab_size: int,
    device: torch.device,
    base: Whole | None = None,
    backend: str | None = None,
) -> Iterator[list[Layer]]:
    """The layer list of a run, to be built inside the block: an adapter reads the weights of its base."""
    precision = config.train.precision
    attention = choose_attention(backend or config.model.attention, device.type, precision)
    layers = build_layers(config.model, vocab_size, config.run.seed, attention)
    if precision == "fp8":
        check_float8(layers, device)
    with ExitStack() as stack:
        if config.adapter is not None:
            assert base is not None
            assert config.run.start_from is not None
            weights = stack.enter_context(open_weights(config.run.start_from, base))

            def fill(name: str, target: torch.Tensor) -> None:
                target.copy_(weights.read(name))

            layers = adapt_layers(layers, config.adapter, config.run.seed, fill)
        yield float8_layers(layers) if precision == "fp8" else layers


def _saver(
    config: RunConfig, engine: Engine, journal: Journal, brake: Brake, run_identity: dict[str, str]
) -> Saver:
    def tell(saved: Saved) -> None:
        brake.saved(saved.seconds)
        journal.event(
            "save", saved.step,
            blocked_seconds=round(saved.blocked_seconds, 4), seconds=round(saved.seconds, 3),
            bytes=saved.bytes, retired=saved.retired,
        )  # fmt: skip

    return Saver(engine, config.run.dir / CHECKPOINTS_NAME, config.checkpoint, run_identity, tell)


def _claim(
    stack: ExitStack, config: RunConfig, world: World, brake: Brake, vocab_size: int
) -> dict[str, list[Any]]:
    """Rank 0 takes the run directory for the job and writes its config; all ranks learn if it could not.

    Returns, on rank 0, what differs from the config of the start before.
    """
    problem: HpctrainError | None = None
    changed: dict[str, list[Any]] = {}
    if world.rank == 0:
        try:
            stack.enter_context(hold(config.run.dir, world))
            parameters = config.parameter_count(vocab_size)
            if warning := check_room(config.run.dir, parameters, config.checkpoint, config.train.steps):
                say(warning)
            if (config.run.dir / EVENTS_NAME).is_file():
                brake.saved(longest_save_seconds(read_events(config.run.dir)))
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
    attention: AttentionChoice,
    log: logging.Logger,
) -> None:
    """Say once what starts here."""
    import deepspeed

    parameters = config.model.parameter_count(data.vocab_size)
    compiled = choose_compile(config.train.compile, device, is_first_rank=False)  # said when it was built
    activations = choose_levels(config, data.vocab_size, journal.world.size, compiled)
    trained = config.parameter_count(data.vocab_size)
    versions = {"hpctrain": __version__, "torch": torch.__version__, "deepspeed": deepspeed.__version__}
    details: dict[str, Any] = {
        "parameters": parameters, "trained_parameters": trained,
        "device": device.type, "precision": config.train.precision,
        "layout": config.parallel.model_dump(), "versions": versions, "changed": changed,
        "attention": attention.record(), "activations": vars(activations), "compiled": compiled,
        "epochs": {each.name: each.epochs for each in data.epochs},
        "source_epochs": {each.name: each.epochs for each in data.source_epochs},
    }  # fmt: skip
    journal.event("start", step, series=journal.world.series, **details)
    log.info("start: %s", details)
    if journal.world.rank == 0:
        say(
            f"{config.run.name}: {parameters / 1e6:.1f}M parameters{_adapter_note(config, trained)} in "
            f"{config.train.precision} on "
            f"{journal.world.size} {device.type} ranks, ZeRO {config.parallel.zero_stage}, "
            f"{config.parallel.pipeline_stages} pipeline stages"
        )
        if activations.budget is not None:
            say(activations.describe())
        if attention.seconds:
            say(attention.describe())
        if device.type == "cpu" and config.train.precision == "bf16" and not has_bf16_products():
            say("warning: this CPU has no bf16 instructions, a step takes tens of times as long as in fp32; "
                "use train.precision: fp32")  # fmt: skip
        if products := _products_in_bf16(config):
            say(f"fp8: sizes that are no multiple of {FLOAT8_MULTIPLE} stay in bf16: {', '.join(products)}")
        say(f"epochs of the whole run: {describe_epochs(data.epochs, data.source_epochs)}")


def _products_in_bf16(config: RunConfig) -> list[str]:
    """The products of the blocks that an fp8 run leaves in bf16."""
    if config.train.precision != "fp8":
        return []
    return products_in_bf16(build_layers(config.model, 1, config.run.seed, eager_attention))


def _adapter_note(config: RunConfig, trained: int) -> str:
    if config.adapter is None:
        return ""
    return f" and an adapter of rank {config.adapter.rank} with {trained:,}, which alone are trained,"
