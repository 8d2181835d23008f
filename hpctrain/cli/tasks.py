"""Commands about fine-tuning tasks: their data."""

from __future__ import annotations

from typing import Annotated

import typer

from hpctrain.cli.data import AsJson, ConfigFile, Overrides, Stage
from hpctrain.errors import ConfigError

tasks = typer.Typer(help="Data of fine-tuning tasks.", no_args_is_help=True)


@tasks.command("build")
def tasks_build(config: ConfigFile, overrides: Overrides = None) -> None:
    """Make the records of the task that a fine-tuning config names, in task.data, and the run's shards.

    Data that is already there and was made of the same is left alone.
    """
    from hpctrain.cli.tables import show
    from hpctrain.config import load_config
    from hpctrain.manifest import is_finished
    from hpctrain.progress import say
    from hpctrain.shards.layout import TOKENIZER_DIRECTORY
    from hpctrain.tasks.build import build_task_data, show_task_data
    from hpctrain.train.config import RunConfig
    from hpctrain.train.prepare import prepare_data

    record = load_config(config, overrides or [], RunConfig)
    task, run = record.task, record.run.start_from
    if task is None:
        raise ConfigError(f"{config}: task: not given; `hpctrain tasks build` needs to know what to build")
    directory = build_task_data(task, task.data)
    if run is not None and is_finished(run / TOKENIZER_DIRECTORY):
        prepare_data(record)
    else:
        say(f"no shards yet: there is no tokenizer of run.start_from, {run}; they are made when there is")
    show(show_task_data(directory), f"Data of the task {task.name}, {task.data}", as_json=False)


@tasks.command("show")
def tasks_show(
    directory: Stage,
    as_json: AsJson = False,
    example: Annotated[int | None, typer.Option(min=1, help="Print this record of the test instead.")] = None,
) -> None:
    """Records, families and bytes by split and language; with --example one record as it is asked."""
    from hpctrain.cli.tables import show
    from hpctrain.tasks.build import show_task_data
    from hpctrain.tasks.records import read_records

    if example is None:
        show(show_task_data(directory), f"Data of a task, {directory}", as_json)
        return
    records = list(read_records(directory / "test.jsonl"))
    if example > len(records):
        raise ConfigError(f"--example: {example}; the test has {len(records)} records")
    record = records[example - 1]
    if as_json:
        print(record.model_dump_json(indent=1))
        return
    print(f"--- prompt ({record.language}, {record.path})\n{record.prompt}")
    if record.suffix is not None:
        print(f"--- suffix\n{record.suffix}")
    print(f"--- response\n{record.response}")
