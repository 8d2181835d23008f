"""The weights of a model as a checkpoint holds them, one at a time, an adapter merged into its base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from hpctrain.checkpoint.restore import FragmentFiles, Whole
from hpctrain.errors import CheckpointError
from hpctrain.model.lora import adapted_weight, adapter_names, merge


class Weights(Protocol):
    """The parameters of a model under our names, in fp32."""

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """Each parameter's whole shape."""

    def read(self, name: str) -> Tensor:
        """One parameter. Raises CheckpointError if it is not all there."""

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """Fill a 1-D tensor with the range of a parameter, flattened, that begins at `start`."""


class CheckpointWeights:
    """Weights as a checkpoint holds them, whatever layout wrote it."""

    def __init__(self, files: FragmentFiles, whole: Whole) -> None:
        self.files, self.directory = files, whole.directory
        self.shapes: Mapping[str, torch.Size] = {
            name: torch.Size(shape) for name, shape in whole.manifest.details["shapes"].items()
        }

    def read(self, name: str) -> Tensor:
        """One parameter in its whole shape."""
        flat = torch.empty(self._shape(name).numel(), dtype=torch.float32)
        self.files.read_into(flat, name, "weight", 0)
        return flat.view(self.shapes[name])

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """A range of a parameter; reads no more than that."""
        self._shape(name)
        self.files.read_into(target, name, "weight", start)

    def _shape(self, name: str) -> torch.Size:
        if name not in self.shapes:
            raise CheckpointError(f"{self.directory}: lacks {name}; it was written for another model")
        return self.shapes[name]


class MergedWeights:
    """The weights of a base, changed by the adapters that a checkpoint holds."""

    def __init__(self, base: Weights, adapters: Weights, scale: float) -> None:
        """`scale`: factor of what the adapters add. Raises CheckpointError if they do not fit the base."""
        self.base, self.adapters, self.scale = base, adapters, scale
        self.shapes = base.shapes
        for name in adapters.shapes:
            weight = adapted_weight(name)
            first, second = (adapters.shapes.get(each) for each in adapter_names(weight))
            if not first or not second or (second[0], first[1]) != base.shapes.get(weight):
                raise CheckpointError(f"the adapter's {name} does not fit the base's {weight}")

    def read(self, name: str) -> Tensor:
        """One merged parameter; holds it twice."""
        weight = self.base.read(name)
        first, second = adapter_names(name)
        if first not in self.adapters.shapes:
            return weight
        return merge(weight, self.adapters.read(first), self.adapters.read(second), self.scale)

    def read_into(self, target: Tensor, name: str, start: int) -> None:
        """A range of a merged parameter; holds the rows of the adapter's product that it lies in."""
        self.base.read_into(target, name, start)
        first, second = adapter_names(name)
        if first not in self.adapters.shapes or not target.numel():
            return
        width = self.shapes[name][1]
        top, bottom = start // width, -(-(start + target.numel()) // width)
        product = self.scale * (self.adapters.read(second)[top:bottom] @ self.adapters.read(first))
        offset = start - top * width
        target += product.flatten()[offset : offset + target.numel()].to(target)


def tensors(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Every parameter by name, one at a time."""
    for name in weights.shapes:
        yield name, weights.read(name)
