"""Commands that prove: every layout one curve, killed and resumed equals straight."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpctrain.errors import ConfigError, HpctrainError, LaunchError
from hpctrain.parallel.process import choose_accelerator
from hpctrain.parallel.world import discover_world, is_placed

if TYPE_CHECKING:
    from hpctrain.train.config import RunConfig

verify = typer.Typer(help="Proofs that layouts agree and that a restart loses nothing.", no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[section.key=value ...]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Phase(str, Enum):
    """The two halves of the certificate."""

    train = "train"
    restore = "restore"


@verify.command("layouts")
def verify_layouts(
    config: ConfigFile,
    overrides: Overrides = None,
    ranks: Annotated[str, typer.Option(help="World sizes to start on this machine, in turn.")] = "1,2,4",
    steps: Annotated[int, typer.Option(help="Steps of each layout.", min=1)] = 3,
    full_size: Annotated[
        bool, typer.Option(help="Take the config's model, not a small one like it.")
    ] = False,
    scratch: Annotated[Path | None, typer.Option(help="Directory that all ranks share.")] = None,
    phase: Annotated[Phase | None, typer.Option(hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Train under every layout that fits, against a plain PyTorch loop; then restore each from each.

    Alone it starts its own ranks; under srun, mpiexec or torchrun it proves the layouts of that world.
    """
    choose_accelerator()
    from hpctrain.config import load_config
    from hpctrain.train.config import RunConfig
    from hpctrain.verify.layouts import certify_world, small_shape

    record = load_config(config, overrides or [], RunConfig)
    record = record if full_size else small_shape(record)
    if phase is not None or is_placed(os.environ):
        if scratch is None:
            raise ConfigError("--scratch: under a launcher, name a directory that all ranks share")
        world = discover_world(os.environ)
        certify_world(record, world, scratch, steps, [phase.value] if phase else ["train", "restore"])
        if phase is None and world.rank == 0:
            _show_certificate(scratch, record, as_json)
        return
    with tempfile.TemporaryDirectory(prefix="hpctrain-verify-") as own:
        _certify_here(record, [int(size) for size in ranks.split(",")], steps, scratch or Path(own))
        _show_certificate(scratch or Path(own), record, as_json)


def _certify_here(record: RunConfig, sizes: list[int], steps: int, scratch: Path) -> None:
    """Start each world on this machine, first to train, then to restore what all of them saved."""
    from hpctrain.config import dump_yaml
    from hpctrain.launch.local import run_ranks

    scratch.mkdir(parents=True, exist_ok=True)
    resolved = scratch / "config.yaml"
    resolved.write_text(dump_yaml(record), encoding="utf-8")
    command = [sys.executable, "-m", "hpctrain", "verify", "layouts", str(resolved), "--full-size"]
    for phase in Phase:
        for size in sizes:
            code = run_ranks(
                [*command, "--steps", str(steps), "--scratch", str(scratch), "--phase", phase.value], size
            )
            if code:
                raise LaunchError(
                    f"the certificate's {phase.value} phase on {size} ranks failed with code {code}"
                )


def _show_certificate(scratch: Path, record: RunConfig, as_json: bool) -> None:
    from hpctrain.cli.tables import show
    from hpctrain.verify.layouts import TOLERANCES, certificate

    rows = certificate(scratch, record.train.precision)
    tolerance = TOLERANCES[record.train.precision]
    title = (
        f"Relative differences from a plain PyTorch loop in {record.train.precision}; allowed: {tolerance}"
    )
    show(rows, title, as_json)
    wrong = [row["layout"] for row in rows if row["verdict"] != "agrees"]
    if wrong:
        raise HpctrainError(f"these layouts do not agree: {', '.join(wrong)}")


@verify.command("resume")
def verify_resume(
    config: ConfigFile,
    overrides: Overrides = None,
    ranks: Annotated[int, typer.Option(help="Ranks of the straight run.", min=1)] = 2,
    other_ranks: Annotated[int | None, typer.Option(help="Ranks after each kill, if others.", min=1)] = None,
    kills: Annotated[int, typer.Option(help="How often the run is killed.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 1,
    scratch: Annotated[Path | None, typer.Option(help="Where to keep both runs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train straight, and again with SIGKILLs at random moments, during saves too; compare everything."""
    choose_accelerator()
    from hpctrain.config import load_config
    from hpctrain.train.config import RunConfig
    from hpctrain.verify.resume import prove_resume

    record = load_config(config, overrides or [], RunConfig)
    with tempfile.TemporaryDirectory(prefix="hpctrain-verify-") as own:
        verdict = prove_resume(record, scratch or Path(own), ranks, other_ranks or ranks, kills, seed)
    print(json.dumps(verdict.as_dict(), indent=1) if as_json else verdict.text)
    if not verdict.equal:
        raise HpctrainError("the resumed run is not the straight one")
