"""Find the newest whole checkpoint, verify it, and read what this rank owns of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from hpctrain.checkpoint.format import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KIND,
    OPTIMIZER_INPUT,
    RunState,
    fragment_key,
)
from hpctrain.checkpoint.fragments import fragment_tensors, publish_master_weights, step_count
from hpctrain.engine.base import Engine
from hpctrain.engine.fragments import owned_fragments
from hpctrain.errors import CheckpointError, DataError
from hpctrain.manifest import Manifest, find_damage, newer_format, read_manifest
from hpctrain.parallel.process import ALONE, Gang
from hpctrain.progress import say

if TYPE_CHECKING:  # it reads what is opened here
    from hpctrain.checkpoint.weights import Weights


@dataclass(frozen=True)
class Whole:
    """A checkpoint whose files all agree with its manifest."""

    directory: Path
    manifest: Manifest

    @property
    def state(self) -> RunState:
        """Where the run stood."""
        return RunState(**{name: self.manifest.counts[name] for name in RunState.model_fields})


def examine(directory: Path, gang: Gang = ALONE) -> tuple[Manifest | None, list[str]]:
    """A checkpoint's manifest and what is damaged about it; no tensor is parsed before its checksum is."""
    try:
        manifest = read_manifest(directory, CHECKPOINT_KIND, CHECKPOINT_FORMAT, CheckpointError)
    except CheckpointError as reason:
        return None, [str(reason)]
    mine = sorted(manifest.files)[gang.rank :: gang.size]
    return manifest, gang.concatenate(find_damage(directory, manifest, mine))


def looks_whole(directory: Path) -> bool:
    """Whether the manifest is sealed and every file has its size; contents are not read."""
    try:
        manifest = read_manifest(directory, CHECKPOINT_KIND, CHECKPOINT_FORMAT, CheckpointError)
    except CheckpointError:
        return False
    sizes = {directory / name: record.bytes for name, record in manifest.files.items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())


def newest_whole(directory: Path, may_start_anew: bool, gang: Gang = ALONE) -> Whole | None:
    """The newest checkpoint whose checksums hold; None if the run never saved one.

    The ranks of `gang` share the reading; a collective call where they are several. Says why each newer one
    was passed over. Raises CheckpointError if there are some and none is whole, or if a newer hpctrain
    wrote one: that is not damaged, and a run that went back would overwrite it.
    """
    damage: list[str] = []
    for candidate in sorted(directory.glob("step-*"), reverse=True):
        if newer := newer_format(candidate, CHECKPOINT_FORMAT):
            raise _everywhere(CheckpointError(newer))
        manifest, found = examine(candidate, gang)
        if manifest is not None and not found:
            if damage and gang.rank == 0:
                say(f"warning: going back to {candidate.name}, because newer checkpoints are damaged:")
                for line in damage:
                    say(f"  {line}")
            return Whole(candidate, manifest)
        damage += found
    if damage and not may_start_anew:
        raise _everywhere(
            CheckpointError(
                f"{directory}: no checkpoint is whole; set checkpoint.start_anew=true to begin at step 0\n"
                + "\n".join(damage)
            )
        )
    return None


def _everywhere(error: CheckpointError) -> CheckpointError:
    error.everywhere = True
    return error


def check_identity(whole: Whole, identity: Mapping[str, str]) -> None:
    """Refuse to go on with other data or another model. Raises DataError with every difference.

    Raises CheckpointError if it holds the state of another optimizer.
    """
    saved = whole.manifest.inputs
    before, now = saved.get(OPTIMIZER_INPUT, "adamw"), identity.get(OPTIMIZER_INPUT, "adamw")
    if before != now:
        raise _everywhere(
            CheckpointError(
                f"{whole.directory}: was written under optimizer.kind: {before}, and the config says {now}; "
                f"set optimizer.kind={before}, or begin a new run with these weights by run.start_from"
            )
        )
    differing = [name for name in identity if saved.get(name) != identity[name]]
    if differing:
        raise DataError(
            f"{whole.directory}: the run began with other inputs; use another run.dir or restore them\n"
            + "\n".join(f"{name}: began with {saved.get(name)}, now {identity[name]}" for name in differing)
        )


def restore(engine: Engine, whole: Whole) -> None:
    """Load this rank's fragments, whatever layout wrote them, and the optimizer's counters; collective."""
    with FragmentFiles(whole) as files, torch.no_grad():
        for fragment in owned_fragments(engine):
            step_count(engine, fragment).fill_(whole.state.step)
            for kind, tensor in fragment_tensors(engine, fragment).items():
                files.read_into(tensor, fragment.parameter, kind, fragment.start)
    publish_master_weights(engine, whole.state.step, whole.state.samples)


def load_weights(engine: Engine, weights: Weights) -> None:
    """Load this rank's weights only: a run that begins with another's begins with an optimizer of its own."""
    with torch.no_grad():
        for fragment in owned_fragments(engine):
            weight = fragment_tensors(engine, fragment)["weight"]
            weights.read_into(weight, fragment.parameter, fragment.start)
    publish_master_weights(engine, 0, 0)


def full_weights(whole: Whole) -> Iterator[tuple[str, torch.Tensor]]:
    """Each parameter's fp32 weight in its whole shape, one at a time."""
    with FragmentFiles(whole) as files:
        for name, shape in whole.manifest.details["shapes"].items():
            flat = torch.empty(torch.Size(shape).numel(), dtype=torch.float32)
            files.read_into(flat, name, "weight", 0)
            yield name, flat.view(shape)


class FragmentFiles:
    """The fragment files of a checkpoint, opened as they are needed and read by range."""

    def __init__(self, whole: Whole) -> None:
        self.directory = whole.directory
        self.pieces: dict[tuple[str, str], list[tuple[int, int, str]]] = defaultdict(list)
        self.stack = ExitStack()
        self.open: dict[str, Any] = {}
        for name in sorted(whole.manifest.files):
            for key in self._file(name).keys():  # noqa: SIM118 - not a dict
                parameter, kind, start, stop = key.split("|")
                self.pieces[parameter, kind].append((int(start), int(stop), name))

    def __enter__(self) -> FragmentFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def kinds(self, parameter: str) -> list[str]:
        """What is kept of a parameter, the weight first."""
        found = {kind for name, kind in self.pieces if name == parameter}
        return sorted(found, key=lambda kind: (kind != "weight", kind))

    def read_into(self, target: torch.Tensor, parameter: str, kind: str, start: int) -> None:
        """Fill a 1-D tensor with the range of a parameter's state that begins at `start`."""
        stop = start + target.numel()
        filled = 0
        for begin, end, name in self.pieces[parameter, kind]:
            low, high = max(start, begin), min(stop, end)
            if low < high:
                piece = self._file(name).get_slice(fragment_key(parameter, kind, begin, end))
                target[low - start : high - start].copy_(piece[low - begin : high - begin])
                filled += high - low
        if filled != target.numel():
            raise CheckpointError(
                f"{self.directory}: holds {filled} of {target.numel()} elements of {parameter} ({kind}); "
                "it was written for another model"
            )

    def _file(self, name: str) -> Any:
        if name not in self.open:
            try:
                self.open[name] = self.stack.enter_context(
                    safe_open(self.directory / name, "pt", device="cpu")
                )
            except (SafetensorError, OSError) as reason:
                raise CheckpointError(
                    f"{self.directory / name}: not a readable fragment file: {reason}"
                ) from None
        return self.open[name]
