"""Look at checkpoints without an engine: what is there, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpctrain.checkpoint.format import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KIND,
    checkpoint_directories,
    checkpoint_name,
)
from hpctrain.checkpoint.restore import examine
from hpctrain.errors import CheckpointError
from hpctrain.manifest import read_manifest


def summarize(directory: Path) -> dict[str, Any]:
    """What the manifest of a checkpoint says, in a row; `-` where it does not."""
    manifest = read_manifest(directory, CHECKPOINT_KIND, CHECKPOINT_FORMAT, CheckpointError)
    layout = manifest.details["layout"]
    return {
        "checkpoint": directory.name,
        "step": manifest.counts["step"],
        "tokens": manifest.counts["tokens"],
        "loss": manifest.counts.get("loss", "-"),
        "bits_per_byte": manifest.counts.get("bits_per_byte", "-"),
        "parameters": manifest.counts["parameters"],
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "seconds": manifest.counts.get("seconds", "-"),
        "ranks": layout["world_size"],
        "zero_stage": layout["zero_stage"],
        "pipeline_stages": layout["pipeline_stages"],
    }


def tensors(directory: Path) -> list[dict[str, Any]]:
    """The parameters of a checkpoint with their whole shapes."""
    manifest = read_manifest(directory, CHECKPOINT_KIND, CHECKPOINT_FORMAT, CheckpointError)
    return [
        {"parameter": name, "shape": "x".join(map(str, shape))}
        for name, shape in manifest.details["shapes"].items()
    ]


def verdicts(directory: Path) -> list[dict[str, Any]]:
    """Each committed checkpoint, newest first: whole, or a row for each thing that is damaged."""
    return [
        {"checkpoint": path.name, "verdict": verdict}
        for path in checkpoint_directories(directory)
        for verdict in examine(path)[1] or ["whole"]
    ]


def choose(directory: Path, step: int | None) -> Path:
    """The directory of a step's checkpoint, or of the newest. Raises CheckpointError if there is none."""
    found = checkpoint_directories(directory)
    if step is not None:
        found = [path for path in found if path.name == checkpoint_name(step)]
    if not found:
        raise CheckpointError(f"{directory}: no checkpoint{'' if step is None else f' of step {step}'}")
    return found[0]
