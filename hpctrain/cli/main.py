"""The command line: parse, call one function, print. Rooms are imported only when their command runs."""

from __future__ import annotations

import sys

import typer

from hpctrain.cli import data, models, runs
from hpctrain.errors import HpctrainError

app = typer.Typer(
    name="hpctrain",
    help="Train language models for HPC code on HPC clusters.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.corpus, name="corpus")
app.add_typer(data.tokenizer, name="tokenizer")
app.add_typer(data.shards, name="shards")
app.add_typer(runs.checkpoint, name="checkpoint")
for command in (runs.train, runs.report, models.evaluate, models.generate, models.export):
    app.command()(command)


def main() -> None:
    """Run a command; every error of ours becomes one message on stderr and its exit code."""
    try:
        app()
    except HpctrainError as error:
        if not error.everywhere or runs.is_first_rank():
            print(f"hpctrain: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
