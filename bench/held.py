"""Counts what the tensors of a process hold."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BUCKET_BYTES = 10**8
"""DeepSpeed's buckets are at least so large, and nothing else here is."""


class Peak(TorchDispatchMode):
    """Follows the storage of every tensor that an operation makes, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now, self.peak = [0, 0], [0, 0]
        for tensor in living_tensors():
            self.see(tensor.untyped_storage())

    def see(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed."""
        size, key = storage.nbytes(), storage._cdata
        if not size or key in self.alive:
            return
        kind = int(size >= BUCKET_BYTES)

        def freed(_: object) -> None:
            if self.alive.pop(key, None) is not None:
                self.now[kind] -= size

        self.alive[key] = weakref.ref(storage, freed)
        self.now[kind] += size
        self.peak[kind] = max(self.peak[kind], self.now[kind])

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu":
                self.see(leaf.untyped_storage())
        return result


def living_tensors() -> Iterator[torch.Tensor]:
    for found in gc.get_objects():
        if type(found) in (torch.Tensor, torch.nn.Parameter) and found.device.type == "cpu":
            yield found
            if found.is_leaf and found.grad is not None:
                yield found.grad
