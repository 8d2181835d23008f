"""Commands about runs: train, report, checkpoint."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpctrain.errors import CheckpointError, ConfigError
from hpctrain.parallel.process import choose_accelerator
from hpctrain.parallel.world import discover_world, is_placed, rank_of

if TYPE_CHECKING:
    from hpctrain.train.config import RunConfig

checkpoint = typer.Typer(help="List, show, verify and compare checkpoints of a run.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[section.key=value ...]")]
RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    ranks: Annotated[int | None, typer.Option(help="Start this many ranks on this machine.", min=1)] = None,
) -> None:
    """Pretrain; goes on from the newest whole checkpoint in run.dir.

    Under srun, mpiexec or torchrun each process finds its rank by itself.
    """
    _train("train", config, overrides or [], ranks)


def finetune(
    config: ConfigFile,
    overrides: Overrides = None,
    ranks: Annotated[int | None, typer.Option(help="Start this many ranks on this machine.", min=1)] = None,
) -> None:
    """Train on from the weights of the run that run.start_from names; all else as in train.

    With an adapter section its weights stay, and an adapter is trained. With a task section the data is made
    first, where it is not there yet.
    """
    _train("finetune", config, overrides or [], ranks)


def _train(command: str, config: Path, overrides: list[str], ranks: int | None) -> None:
    """This process as a rank, or with `ranks` as the parent of so many."""
    if ranks is not None and is_placed(os.environ):
        raise ConfigError("--ranks: a launcher has already placed this process; leave --ranks out under it")
    if ranks is not None:
        sys.exit(_start_ranks(command, config, overrides, ranks))
    record = _load(command, config, overrides)
    choose_accelerator()
    from hpctrain.train.run import train as run

    run(record, discover_world(os.environ))


def _load(command: str, config: Path, overrides: list[str]) -> RunConfig:
    from hpctrain.config import load_config
    from hpctrain.train.config import RunConfig

    record = load_config(config, overrides, RunConfig)
    if command == "finetune" and record.run.start_from is None:
        raise ConfigError(f"{config}: run.start_from: hpctrain finetune needs a run to start from")
    if command == "finetune" and record.task is not None:
        _see_to_data(record, config)
    return record


def _see_to_data(record: RunConfig, config: Path) -> None:
    """Make the data of the run's task, unless a launcher placed this process: then it must be there."""
    from hpctrain.train.prepare import prepare_data, refuse_missing_data

    if is_placed(os.environ):
        refuse_missing_data(record, config)
    else:
        prepare_data(record)


def _start_ranks(command: str, config: Path, overrides: list[str], ranks: int) -> int:
    """Check the config once, then run this same command in every rank."""
    record = _load(command, config, overrides)
    choose_accelerator()
    from hpctrain.launch.local import run_ranks
    from hpctrain.progress import say
    from hpctrain.shards.reader import read_shards_manifest
    from hpctrain.train.config import check_layout
    from hpctrain.train.run import is_finished_run

    check_layout(record, ranks)
    if is_finished_run(record):
        say(f"{record.run.dir}: all {record.train.steps} steps are done")
        return 0
    read_shards_manifest(record.data.shards)
    return run_ranks([sys.executable, "-m", "hpctrain", command, str(config), *overrides], ranks)


def report(
    run: RunDirectory,
    html: Annotated[
        Path | None, typer.Option(help="Also write one self-contained HTML page, and a PNG.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What a run did, on one screen; with --html as a page with pictures."""
    from hpctrain.report.page import write_page
    from hpctrain.report.summary import print_summary, summarize

    if html is not None:
        write_page(run, html)
    if as_json:
        print(json.dumps(summarize(run).as_dict(), indent=1))
    else:
        print_summary(run)


@checkpoint.command("list")
def checkpoint_list(run: RunDirectory, as_json: AsJson = False) -> None:
    """The committed checkpoints of a run, newest first."""
    from hpctrain.checkpoint.format import checkpoint_directories
    from hpctrain.checkpoint.inspect import summarize
    from hpctrain.cli.tables import show

    rows = [summarize(path) for path in checkpoint_directories(run / "checkpoints")]
    show(rows, f"Checkpoints of {run}", as_json)


@checkpoint.command("show")
def checkpoint_show(run: RunDirectory, step: int | None = None, as_json: AsJson = False) -> None:
    """The tensors of a checkpoint: the newest, or that of --step."""
    from hpctrain.checkpoint.inspect import choose, tensors
    from hpctrain.cli.tables import show

    directory = choose(run / "checkpoints", step)
    show(tensors(directory), f"Tensors of {directory}", as_json)


@checkpoint.command("verify")
def checkpoint_verify(run: RunDirectory, as_json: AsJson = False) -> None:
    """Compare every file of every checkpoint with its manifest; exit code 4 if one is damaged."""
    from hpctrain.checkpoint.inspect import verdicts
    from hpctrain.cli.tables import show

    rows = verdicts(run / "checkpoints")
    show(rows, f"Checkpoints of {run}", as_json)
    damaged = sorted({row["checkpoint"] for row in rows if row["verdict"] != "whole"})
    if damaged:
        raise CheckpointError(f"{run}: damaged: {', '.join(damaged)}")


@checkpoint.command("diff")
def checkpoint_diff(
    run: RunDirectory,
    step_a: Annotated[int, typer.Argument(metavar="STEP_A", help="Step of the one checkpoint.")],
    step_b: Annotated[int, typer.Argument(metavar="STEP_B", help="Step of the other.")],
    other: Annotated[Path | None, typer.Option(help="Run directory of STEP_B, if it is another.")] = None,
    as_json: AsJson = False,
) -> None:
    """The weights and moments that differ between two steps, whatever layouts saved them."""
    choose_accelerator()
    from hpctrain.checkpoint.diff import differing_rows
    from hpctrain.checkpoint.inspect import choose
    from hpctrain.cli.tables import show

    first = choose(run / "checkpoints", step_a)
    second = choose((other or run) / "checkpoints", step_b)
    rows = differing_rows(first, second)
    show(rows, f"{len(rows)} tensors differ between {first} and {second}", as_json)


def is_first_rank() -> bool:
    """Whether this process speaks for all ranks."""
    return rank_of(os.environ) == 0
