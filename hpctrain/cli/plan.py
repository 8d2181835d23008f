"""The command that predicts a run: plan."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hpctrain.cli.runs import AsJson, ConfigFile, Overrides
from hpctrain.errors import ConfigError


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    site: Annotated[str, typer.Option(help="Name of a profile in launch/sites, or a path.")] = "generic",
    nodes: Annotated[int, typer.Option(help="Whole nodes.", min=1)] = 1,
    gpus_per_node: Annotated[int | None, typer.Option(help="The site's if left out.", min=0)] = None,
    gpu_memory: Annotated[
        float | None, typer.Option(help="GiB of one GPU; the site's if left out.", min=0.1)
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Where the shards are not there yet.", min=2)] = None,
    tokens: Annotated[float | None, typer.Option(help="To train on; train.steps if left out.", min=1)] = None,
    tflops: Annotated[
        float | None, typer.Option(help="TFLOP/s that a rank sustains; 40% of a known GPU's peak.", min=1e-6)
    ] = None,
    link: Annotated[float, typer.Option(help="GB/s between ranks of a node.", min=1e-3)] = 150.0,
    network: Annotated[float, typer.Option(help="GB/s of a rank between nodes.", min=1e-3)] = 20.0,
    scaling: Annotated[bool, typer.Option("--scaling", help="Traffic on 8 to 4,096 ranks.")] = False,
    as_json: AsJson = False,
) -> None:
    """Predict memory, step time and node-hours of every layout, without a GPU.

    Exit code 0, or 2 where no layout fits.
    """
    from hpctrain.plan.forecast import Asked, forecast
    from hpctrain.plan.screen import as_dict, lines, scaling_lines

    asked = Asked(site, nodes, gpus_per_node, gpu_memory, vocab_size, tokens, tflops, link, network)
    found = forecast(config, overrides or [], asked)
    if as_json:
        print(json.dumps(as_dict(found), indent=1))
    else:
        print("\n".join(scaling_lines(found) if scaling else lines(found)))
    if not found.fitting and not scaling:
        raise ConfigError(f"no layout fits {nodes} nodes of {found.site.name}; see what would, above")
