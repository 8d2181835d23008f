"""What a checkpoint looks like on disk: names and keys, stated once."""

from __future__ import annotations

from pathlib import Path

from hpctrain.config import Section
from hpctrain.manifest import MANIFEST_NAME

CHECKPOINT_KIND = "checkpoint"
CHECKPOINT_FORMAT = 1
OPTIMIZER_INPUT = "optimizer.kind"
"""Among the inputs of a checkpoint, where it is not that of AdamW."""
PARTIAL_PATTERN = ".step-*.partial*"
"""Directories of saves that were never finished."""


class RunState(Section):
    """Where a run stands; with the fragments, everything that a restart needs."""

    step: int
    """Optimizer steps done."""
    samples: int
    """Samples consumed: the loader's whole state."""
    tokens: int
    """Tokens consumed."""


def checkpoint_name(step: int) -> str:
    """The directory name of a step's checkpoint; names sort by step."""
    return f"step-{step:08d}"


def checkpoint_directories(directory: Path) -> list[Path]:
    """The committed checkpoints of a run, newest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.glob("step-*") if (path / MANIFEST_NAME).is_file()]
    return sorted(found, reverse=True)


def fragment_file(rank: int) -> str:
    """The name of the file that holds a rank's fragments."""
    return f"rank-{rank:05d}.safetensors"


def fragment_key(parameter: str, kind: str, start: int, stop: int) -> str:
    """The tensor name of a fragment in its file: it carries the range, so no other map is needed."""
    return f"{parameter}|{kind}|{start}|{stop}"
