"""The weights that a run has come to: of a run with an adapter, the base's with the adapter merged in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hpctrain.checkpoint.format import CHECKPOINT_FORMAT, CHECKPOINT_KIND, checkpoint_directories
from hpctrain.checkpoint.restore import FragmentFiles, Whole, examine, newest_whole
from hpctrain.checkpoint.weights import CheckpointWeights, MergedWeights, Weights
from hpctrain.config import load_config
from hpctrain.errors import CheckpointError, DataError, HpctrainError
from hpctrain.manifest import Manifest, read_manifest
from hpctrain.parallel.process import ALONE, Gang
from hpctrain.train.config import BASE_INPUT, RunConfig
from hpctrain.train.rundir import CHECKPOINTS_NAME, CONFIG_NAME


@contextmanager
def open_weights(run: Path, whole: Whole) -> Iterator[Weights]:
    """The weights of a run at one of its checkpoints, by name; adapters are merged, also one on another.

    Raises CheckpointError if the checkpoint of the base is gone or damaged.
    """
    config = load_config(run / CONFIG_NAME, [], RunConfig)
    with ExitStack() as stack:
        files = stack.enter_context(FragmentFiles(whole))
        own = CheckpointWeights(files, whole)
        if config.adapter is None:
            yield own
            return
        start_from, base = base_of(config, whole.manifest)
        weights = stack.enter_context(open_weights(start_from, base))
        yield MergedWeights(weights, own, config.adapter.scale)


def base_of(config: RunConfig, manifest: Manifest, gang: Gang = ALONE) -> tuple[Path, Whole]:
    """The run and the checkpoint whose weights the adapters of a checkpoint's manifest change; verified.

    The ranks of `gang` share the reading. Raises CheckpointError if it is gone or damaged.
    """
    run = config.run.start_from
    assert run is not None  # a config with an adapter has one
    wanted = manifest.inputs.get(BASE_INPUT)
    for directory in checkpoint_directories(run / CHECKPOINTS_NAME):
        if _fingerprint_of(directory) == wanted:
            found, damage = examine(directory, gang)
            if found is None or damage:
                raise _everywhere(
                    CheckpointError("\n".join(["run.start_from: the base is damaged", *damage]))
                )
            return run, Whole(directory, found)
    raise _everywhere(
        CheckpointError(
            f"run.start_from: {run} no longer has the checkpoint whose weights the adapters of "
            f"{config.run.dir} change; bring it back (its fingerprint is {wanted})"
        )
    )


def choose_start(config: RunConfig, gang: Gang = ALONE) -> Whole:
    """The checkpoint that a run begins with: the newest whole one of `run.start_from`; of a run with an
    adapter that has saved before, the one that it began with. A collective call.

    Raises DataError if there is none, CheckpointError as `base_of` does.
    """
    run = config.run.start_from
    assert run is not None
    if config.adapter is not None:
        for directory in checkpoint_directories(config.run.dir / CHECKPOINTS_NAME):
            if (manifest := _manifest_of(directory)) and BASE_INPUT in manifest.inputs:
                return base_of(config, manifest, gang)[1]
    whole = newest_whole(run / CHECKPOINTS_NAME, may_start_anew=False, gang=gang)
    if whole is None:
        raise _everywhere(DataError(f"run.start_from: {run} has no checkpoint"))
    return whole


def _manifest_of(directory: Path) -> Manifest | None:
    """The manifest of a checkpoint, if it can be believed."""
    try:
        return read_manifest(directory, CHECKPOINT_KIND, CHECKPOINT_FORMAT, CheckpointError)
    except CheckpointError:
        return None


def _fingerprint_of(directory: Path) -> str | None:
    manifest = _manifest_of(directory)
    return manifest.fingerprint if manifest else None


def _everywhere(error: HpctrainError) -> HpctrainError:
    error.everywhere = True
    return error
