"""A copy of what a rank owns in host memory, so that training may go on while it is written."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from hpctrain.checkpoint.format import fragment_key
from hpctrain.checkpoint.fragments import fragment_tensors
from hpctrain.engine.base import Engine
from hpctrain.engine.fragments import owned_fragments

_ELEMENT_BYTES = 4


@dataclass(frozen=True)
class Snapshot:
    """A rank's fragments as they were at one step: the content of its safetensors file."""

    header: bytes
    """The JSON header of the safetensors format: dtype, shape and byte range of each key."""
    data: memoryview
    """All tensors one after the other, as bytes; valid until the next snapshot."""
    ranges: dict[str, list[tuple[int, int]]]
    """The ranges of each parameter that are in it."""


class HostBuffer:
    """Where one snapshot after the other is taken: memory, page-locked where there is a GPU, or local disk.

    With a staging directory it is a mapped file there, already unlinked, so that it goes with the process.
    """

    def __init__(self, staging: Path | None = None) -> None:
        self.staging, self.flat = staging, torch.empty(0)

    def take(self, engine: Engine) -> Snapshot:
        """Copy this rank's fragments. When it returns, the engine may step. OSError: staging has no room."""
        fragments = [fragment for fragment in owned_fragments(engine) if not fragment.is_replica]
        tensors = [fragment_tensors(engine, fragment) for fragment in fragments]
        elements = sum(tensor.numel() for kinds in tensors for tensor in kinds.values())
        if self.flat.numel() != elements:
            self.flat = self._allocate(elements)
        header: dict[str, object] = {}
        ranges: dict[str, list[tuple[int, int]]] = {}
        position = 0
        for fragment, kinds in zip(fragments, tensors, strict=True):
            name, start, stop = fragment.parameter, fragment.start, fragment.start + fragment.elements
            ranges.setdefault(name, []).append((start, stop))
            for kind, tensor in kinds.items():
                end = position + fragment.elements
                self.flat[position:end].copy_(tensor, non_blocking=True)
                header[fragment_key(name, kind, start, stop)] = _entry(position, end)
                position = end
        if self.flat.is_pinned():
            torch.cuda.synchronize()
        return Snapshot(_encode(header), self.flat.numpy().view("u1").data, ranges)

    def _allocate(self, elements: int) -> torch.Tensor:
        if self.staging is None:
            return torch.empty(elements, dtype=torch.float32, pin_memory=torch.cuda.is_available())
        with tempfile.NamedTemporaryFile(dir=self.staging, prefix="hpctrain-", suffix=".snapshot") as file:
            os.posix_fallocate(file.fileno(), 0, elements * _ELEMENT_BYTES)
            return torch.from_file(file.name, shared=True, size=elements, dtype=torch.float32)


def _entry(start: int, stop: int) -> dict[str, object]:
    """What the header says of a 1-D fp32 tensor at these elements of the file's data."""
    offsets = [start * _ELEMENT_BYTES, stop * _ELEMENT_BYTES]
    return {"dtype": "F32", "shape": [stop - start], "data_offsets": offsets}


def _encode(header: dict[str, object]) -> bytes:
    """The header padded with spaces, as the format asks, so that the data begins at a multiple of 8."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
