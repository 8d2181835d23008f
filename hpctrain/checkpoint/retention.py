"""Which checkpoints stay, and whether there is room for them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.checkpoint.config import CheckpointConfig
from hpctrain.checkpoint.format import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KIND,
    PARTIAL_PATTERN,
    checkpoint_directories,
    checkpoint_name,
)
from hpctrain.checkpoint.publish import remove_checkpoint
from hpctrain.errors import CheckpointError, ConfigError
from hpctrain.manifest import is_finished, read_manifest

BYTES_PER_PARAMETER = 12
"""An fp32 weight and two fp32 moments, the most that an optimizer keeps: Muon keeps one."""


@dataclass(frozen=True)
class Candidate:
    """What retention knows of a checkpoint."""

    name: str
    step: int
    bits_per_byte: float | None
    """Mean over the held-out languages; None if it was not evaluated, or its manifest cannot be read."""


def retire(directory: Path, newest_step: int, config: CheckpointConfig) -> list[str]:
    """Delete what need not stay and return the names.

    Call it when the checkpoint of `newest_step` has just been committed, and so is whole. Newer ones, which
    a restore has found damaged, are neither counted nor deleted: the run replaces them as it comes to them.
    What a deletion left half done when it was killed is deleted too.
    """
    for path in directory.glob("step-*"):
        if path.name < checkpoint_name(newest_step) and not is_finished(path):
            shutil.rmtree(path)
    known = [path for path in checkpoint_directories(directory) if path.name <= checkpoint_name(newest_step)]
    retired = superfluous([_candidate(path) for path in known], config)
    for name in retired:
        remove_checkpoint(directory / name)
    return retired


def superfluous(newest_first: Sequence[Candidate], config: CheckpointConfig) -> list[str]:
    """The names of the checkpoints that no rule keeps; never the first, for `keep` is at least 1."""
    kept = {each.name for each in newest_first[: config.keep]}
    if config.keep_every:
        kept |= {each.name for each in newest_first if each.step % config.keep_every == 0}
    evaluated = sorted(
        (each.bits_per_byte, -each.step, each.name) for each in newest_first if each.bits_per_byte is not None
    )
    kept |= {name for *_, name in evaluated[: config.keep_best]}
    return [each.name for each in newest_first if each.name not in kept]


def _candidate(path: Path) -> Candidate:
    step = int(path.name.removeprefix("step-"))
    try:
        counts = read_manifest(path, CHECKPOINT_KIND, CHECKPOINT_FORMAT, CheckpointError).counts
    except CheckpointError:
        return Candidate(path.name, step, None)
    return Candidate(path.name, step, counts.get("bits_per_byte"))


def remove_partials(directory: Path) -> None:
    """Delete what killed saves left behind; call it when no save is under way."""
    for path in directory.glob(PARTIAL_PATTERN):
        shutil.rmtree(path, ignore_errors=True)  # they count for nothing and take room only


def check_room(directory: Path, parameters: int, config: CheckpointConfig, steps: int) -> str | None:
    """Compare the free space of an existing directory with what a run's checkpoints will take.

    Raises ConfigError if the run would fail at its first saves: two checkpoints must fit where there is none
    yet, one more where there are some, since the last one is deleted only when the next is whole. Returns a
    warning if those fit but not all that will stay. Quotas are not seen: only the file system is asked.
    """
    each = BYTES_PER_PARAMETER * parameters
    present = len(checkpoint_directories(directory / "checkpoints"))
    saves = -(-steps // config.every_steps) + 1  # step 0 too
    marked = steps // config.keep_every + 1 if config.keep_every else 0
    most = min(saves, config.keep + config.keep_best + marked + 1)
    free = shutil.disk_usage(directory).free
    must = each * (1 if present else min(2, saves))
    if free < must:
        count = "one more checkpoint" if present else "the first checkpoints"
        raise ConfigError(
            f"run.dir: {directory} has {_text(free)} free; {count} of {_text(each)} "
            f"({BYTES_PER_PARAMETER} bytes a parameter) need {_text(must)}; free some, or use another disk"
        )
    later = each * max(0, most - present)
    if free < later:
        return (
            f"warning: {directory} has {_text(free)} free, but the checkpoints that checkpoint.keep, "
            f"keep_every and keep_best let stay will need {_text(later)} more"
        )
    return None


def _text(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"
