"""The command line: parse, call one function, print. Rooms are imported only when their command runs."""

from __future__ import annotations

import os
import sys

import typer

from hpctrain.cli import (
    data,
    doctor,
    export,
    importing,
    instructions,
    launch,
    models,
    plan,
    runs,
    shards,
    tasks,
    verify,
)
from hpctrain.errors import HpctrainError, StoppedEarly
from hpctrain.progress import tell_batch_script

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
app.add_typer(shards.shards, name="shards")
app.add_typer(importing.importing, name="import")
app.add_typer(tasks.tasks, name="tasks")
app.add_typer(instructions.instructions, name="instructions")
app.add_typer(runs.checkpoint, name="checkpoint")
app.add_typer(verify.verify, name="verify")
for command in (
    runs.train, runs.finetune, runs.report, launch.submit, plan.plan, doctor.doctor,
    models.evaluate, models.generate, export.export,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Run a command; every error of ours becomes one message on stderr and its exit code."""
    code = 0
    try:
        app()
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except HpctrainError as error:
        code = error.exit_code
        if not error.everywhere or runs.is_first_rank():
            print(f"hpctrain: {error}", file=sys.stderr)
            if code != StoppedEarly.exit_code:  # the launcher's own code may be that of ranks it killed then
                tell_batch_script(str(code))
    except KeyboardInterrupt:
        code = 130
    sys.stdout.flush()
    sys.stderr.flush()
    if "torch" in sys.modules:
        # Native threads of torch may still touch Python objects: tearing the interpreter down under them
        # has aborted ranks that had finished, and turned exit code 75 into a crash.
        os._exit(code)
    sys.exit(code)
