"""The data of a fine-tuning run, made from its `task` section where it is not there yet."""

from __future__ import annotations

from pathlib import Path

from hpctrain.errors import ConfigError, DataError
from hpctrain.manifest import Manifest, is_finished
from hpctrain.progress import say
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.tasks.build import build_task_data
from hpctrain.tasks.examples import ExampleOptions
from hpctrain.tasks.instructions import InstructionOptions, build_instructions
from hpctrain.train.config import RunConfig


def prepare_data(config: RunConfig) -> Manifest:
    """Make the task's examples and their shards; what is there of the same config is left alone.

    The test's examples stay out of the shards, which have the tokenizer of `run.start_from`. Examples that
    are longer than a sequence are left out, which is said. Raises DataError if something cannot be read or
    holds other data.
    """
    task, run = config.task, config.run.start_from
    if task is None or run is None:
        raise ConfigError("task: needs both a task section and run.start_from, whose tokenizer is used")
    directory = build_task_data(task, task.data)
    files = [directory / f"{split}.jsonl" for split in ("train", "validation")]
    options = InstructionOptions(
        ExampleOptions(template="plain"), context=config.data.sequence_length, too_long="drop"
    )
    manifest = build_instructions(files, _tokenizer(run), config.data.shards, options)
    say(f"task {task.name}: {sum(manifest.counts['documents']['train'].values()):,} examples to train on")
    return manifest


def refuse_missing_data(config: RunConfig, path: Path) -> None:
    """Raise DataError if a run under a launcher would find no data: ranks do not build it."""
    if config.task is not None and not is_finished(config.data.shards):
        error = DataError(
            f"{config.data.shards}: the data of the task {config.task.name} is not built; ranks under a "
            f"launcher do not build it: first run `hpctrain tasks build {path}`"
        )
        error.everywhere = True
        raise error


def _tokenizer(run: Path) -> Path:
    """The tokenizer of a run, which lies in its directory."""
    if not is_finished(run / TOKENIZER_DIRECTORY):
        raise DataError(f"run.start_from: {run} has no tokenizer; is it the directory of a run?")
    return run / TOKENIZER_DIRECTORY
