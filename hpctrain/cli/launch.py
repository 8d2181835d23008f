"""The command that hands a run to a cluster: submit."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from hpctrain.cli.runs import ConfigFile, Overrides


class Command(str, Enum):
    """What the ranks of a job run."""

    train = "train"
    finetune = "finetune"


def submit(
    config: ConfigFile,
    site: Annotated[str, typer.Option(help="Name of a profile in launch/sites, or the path of one.")],
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(help="Whole nodes.", min=1)] = 1,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="--time HH:MM:SS", help="Time limit; the queue's if left out.", envvar="SBATCH_TIMELIMIT"
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition", "--queue", help="Queue; the site's default if left out.", envvar="SBATCH_PARTITION"
        ),
    ] = None,
    account: Annotated[str | None, typer.Option(help="Who pays.", envvar="SBATCH_ACCOUNT")] = None,
    job_name: Annotated[str | None, typer.Option(help="The run's name if left out.")] = None,
    chain: Annotated[
        int, typer.Option(help="Submit this many jobs that run one after the other.", min=1)
    ] = 1,
    gpus_per_node: Annotated[
        int | None, typer.Option(help="GPUs of a node, a rank each; the site's if left out.", min=0)
    ] = None,
    ranks_per_node: Annotated[
        int | None, typer.Option(help="Ranks of a node without GPUs; 2 if left out.", min=1)
    ] = None,
    command: Annotated[Command, typer.Option(help="What the job runs.")] = Command.train,
    only_print: Annotated[bool, typer.Option("--print", help="Print the script; submit nothing.")] = False,
) -> None:
    """Check a run and the nodes it asks for, write its batch script, and hand it to the scheduler.

    Everything that is wrong is said at once, before the job waits in a queue. The script is kept in the run
    directory as submitted-N.sh.
    """
    from hpctrain.launch.check import Request
    from hpctrain.launch.submit import hand_over, how_to_watch, prepare
    from hpctrain.progress import say

    request = Request(nodes, time, partition, account, job_name, chain, gpus_per_node, ranks_per_node)
    prepared = prepare(config, overrides or [], command.value, site, request, only_print)
    for remark in prepared.remarks:
        say(f"note: {remark}")
    if only_print:
        print(prepared.text, end="")
    elif prepared.local:
        say(f"no scheduler at {prepared.site.name}: starting the ranks here")
        os.execv(prepared.local[0], prepared.local)
    else:
        script, jobs = hand_over(prepared)
        print(how_to_watch(prepared, script, jobs))
