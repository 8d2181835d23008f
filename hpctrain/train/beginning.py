"""Where a run begins: at its newest checkpoint, with the weights of another run, or anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpctrain.checkpoint.restore import Whole, check_identity, load_weights, newest_whole, restore
from hpctrain.errors import CheckpointError, DataError, HpctrainError
from hpctrain.manifest import Manifest
from hpctrain.parallel.process import Gang, raise_together
from hpctrain.parallel.topology import Topology
from hpctrain.parallel.world import World
from hpctrain.progress import say
from hpctrain.train.brake import refuse_standstill
from hpctrain.train.config import RunConfig, identity
from hpctrain.train.loop import Loop
from hpctrain.train.metrics import EVENTS_NAME, read_events
from hpctrain.train.rundir import CHECKPOINTS_NAME
from hpctrain.train.weights import choose_start, open_weights


def find_base(config: RunConfig, shards: Manifest, gang: Gang) -> Whole | None:
    """The checkpoint whose weights the run's adapter changes; None without an adapter. A collective call.

    Raises DataError if it is of another model or tokenizer.
    """
    if config.adapter is None:
        return None
    whole = choose_start(config, gang)
    _check_start(config, whole, identity(config, shards))
    return whole


def find_checkpoint(config: RunConfig, topology: Topology, run_identity: dict[str, str]) -> Whole | None:
    """The newest whole checkpoint, if it is of this very run; None for a run that never saved."""
    gang = Gang(topology.rank, topology.world_size)
    whole = newest_whole(config.run.dir / CHECKPOINTS_NAME, config.checkpoint.start_anew, gang)
    if whole is None:
        _refuse_lost_checkpoints(config)
    else:
        check_identity(whole, run_identity)
    return whole


def check_progress(config: RunConfig, world: World, step: int, changed: dict[str, list[Any]]) -> None:
    """Do not go on for ever without getting on; a changed config is a new attempt."""
    problem: HpctrainError | None = None
    if world.rank == 0 and not changed and (config.run.dir / EVENTS_NAME).is_file():
        try:
            refuse_standstill(read_events(config.run.dir), world.series, step)
        except HpctrainError as error:
            problem = error
    raise_together(problem)


def restore_or_begin(loop: Loop, whole: Whole | None) -> None:
    """Load the checkpoint; a run without one begins by saving step 0."""
    if whole is None:
        if loop.config.run.start_from is not None:
            _take_weights(loop, loop.config.run.start_from)
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


def _take_weights(loop: Loop, run: Path) -> None:
    """Begin with another run's weights. Raises DataError if they are of another model or tokenizer."""
    gang = Gang(loop.engine.topology.rank, loop.engine.topology.world_size)
    whole = choose_start(loop.config, gang)
    if loop.config.adapter is None:  # an adapter's engine was built on them
        _check_start(loop.config, whole, loop.saver.identity)
        with open_weights(run, whole) as weights:
            load_weights(loop.engine, weights)
    loop.journal.event("weights", 0, run=str(run), checkpoint=whole.directory.name)
    if gang.rank == 0:
        say(f"beginning with the weights of {run}, {whole.directory.name}")


def _check_start(config: RunConfig, whole: Whole, run_identity: dict[str, str]) -> None:
    wanted = {name: run_identity[name] for name in ("model", "tokenizer")}
    if differing := [name for name in wanted if whole.manifest.inputs.get(name) != wanted[name]]:
        what = " and ".join(differing)
        raise _everywhere(
            DataError(
                f"run.start_from: {config.run.start_from} has another {what}; use its sections in this config"
            )
        )


def _everywhere(error: HpctrainError) -> HpctrainError:
    error.everywhere = True
    return error


def _refuse_lost_checkpoints(config: RunConfig) -> None:
    """A run that has saved before does not silently begin again at step 0."""
    if config.checkpoint.start_anew or not (config.run.dir / EVENTS_NAME).is_file():
        return
    if any(event["event"] == "save" for event in read_events(config.run.dir)):
        raise _everywhere(
            CheckpointError(
                f"{config.run.dir}: the run has saved checkpoints, but none is left; bring them back, or set "
                "checkpoint.start_anew=true to begin at step 0"
            )
        )
