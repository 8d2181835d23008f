"""Compare two checkpoints tensor by tensor, whatever layouts wrote them, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from hpctrain.checkpoint.restore import FragmentFiles, Whole, examine
from hpctrain.errors import CheckpointError

_BLOCK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Difference:
    """How one tensor differs between two checkpoints."""

    parameter: str
    kind: str
    """weight, and what the optimizer keeps: exp_avg, exp_avg_sq or momentum."""
    elements: int
    differing: int
    """Number of elements whose bits differ."""
    largest: float
    """Largest absolute difference; nan if either side has one that is not a number."""


def compare(first: Whole, second: Whole) -> Iterator[Difference]:
    """Every tensor of two checkpoints of one model, also those that are equal.

    Raises CheckpointError that names what differs if they do not hold the same parameters and shapes, or were
    written under another optimizer.kind.
    """
    shapes, others = first.manifest.details["shapes"], second.manifest.details["shapes"]
    apart = sorted(name for name in {*shapes, *others} if shapes.get(name) != others.get(name))
    if apart:
        raise CheckpointError(
            f"{first.directory} and {second.directory} hold different models\n"
            + "\n".join(
                f"{name}: {shapes.get(name, 'none')} and {others.get(name, 'none')}" for name in apart
            )
        )
    with FragmentFiles(first) as left, FragmentFiles(second) as right:
        for name, shape in shapes.items():
            if left.kinds(name) != right.kinds(name):
                raise CheckpointError(
                    f"{first.directory} and {second.directory} were written under another optimizer.kind: of "
                    f"{name} they hold {', '.join(left.kinds(name))} and {', '.join(right.kinds(name))}"
                )
            for kind in left.kinds(name):
                yield _compare_tensor(left, right, name, kind, prod(shape))


def _compare_tensor(
    left: FragmentFiles, right: FragmentFiles, parameter: str, kind: str, elements: int
) -> Difference:
    differing, largest = 0, torch.zeros((), dtype=torch.float64)
    for start in range(0, elements, _BLOCK_ELEMENTS):
        one = torch.empty(min(_BLOCK_ELEMENTS, elements - start))
        other = torch.empty_like(one)
        left.read_into(one, parameter, kind, start)
        right.read_into(other, parameter, kind, start)
        differing += int((one.view(torch.int32) != other.view(torch.int32)).sum())
        largest = torch.maximum(largest, (one.double() - other.double()).abs().max())
    return Difference(parameter, kind, elements, differing, float(largest))


def verified(directory: Path) -> Whole:
    """A checkpoint whose checksums hold. Raises CheckpointError with everything that is damaged."""
    manifest, damage = examine(directory)
    if manifest is None or damage:
        raise CheckpointError("\n".join(damage))
    return Whole(directory, manifest)


def differing_rows(first: Path, second: Path) -> list[dict[str, Any]]:
    """A row for each tensor that differs."""
    one, other = verified(first), verified(second)
    return [
        {
            "parameter": each.parameter,
            "kind": each.kind,
            "elements": each.elements,
            "differing": each.differing,
            "largest": f"{each.largest:.3e}",
        }
        for each in compare(one, other)
        if each.differing
    ]
