"""The preflight as a command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpctrain.errors import ConfigError, LaunchError
from hpctrain.parallel.world import is_placed, rank_of


def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG", help="YAML file of the run.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[section.key=value ...]")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run will live, if not where the config says.")
    ] = None,
    ranks: Annotated[int | None, typer.Option(help="Start this many ranks on this machine.", min=1)] = None,
    seconds: Annotated[float, typer.Option(help="Longest time for all checks together.", min=5.0)] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine, or under srun or mpiexec this allocation, before a job burns it.

    Exit code 0, or 2 and a list of what is wrong.
    """
    if ranks is not None:
        if is_placed(os.environ):
            raise ConfigError("--ranks: a launcher has already placed this process; leave --ranks out")
        from hpctrain.launch.local import run_ranks

        command = [sys.executable, "-m", "hpctrain", "doctor", "--seconds", str(seconds)]
        command += ["--run-dir", str(run_dir)] if run_dir else []
        command += ["--json"] if as_json else []
        command += ["--", str(config), *(overrides or [])] if config else []
        sys.exit(run_ranks(command, ranks))
    from hpctrain.doctor.diagnose import diagnose
    from hpctrain.doctor.screen import as_dict, complaint, show
    from hpctrain.doctor.subject import Request

    environment = dict(os.environ)  # as the launcher made it: joining the others sets variables of its own
    diagnosis = diagnose(Request(environment, seconds, config, tuple(overrides or ()), run_dir))
    if diagnosis is None:
        return  # rank 0 speaks for all
    if rank_of(environment) == 0:  # another rank that found no rank 0 has only its complaints
        if as_json:
            print(json.dumps(as_dict(diagnosis), indent=1))
        else:
            show(diagnosis)
    if diagnosis.wrong:
        complaints = "\n".join(f"  {complaint(line)}" for line in diagnosis.wrong)
        raise LaunchError(f"{len(diagnosis.wrong)} wrong:\n{complaints}")
