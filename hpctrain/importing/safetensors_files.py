"""The weights of a Hugging Face directory: names, shapes and tensors, read one at a time; no pickles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hpctrain.errors import DataError
from hpctrain.model.huggingface import huggingface_name

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_FLOATS = ("F64", "F32", "F16", "BF16")
_DERIVED = ".rotary_emb.inv_freq"
"""Old writers kept the rotary frequencies, which follow from the config."""


class SafetensorsFiles:
    """The safetensors files of a directory, one or several with an index; closed as a context ends."""

    def __init__(self, directory: Path) -> None:
        """Read the names of all tensors. Raises DataError for files that are missing, damaged or foreign."""
        self.directory = directory
        self._stack = ExitStack()
        self._open: dict[Path, Any] = {}
        self.place = self._find_places()

    def __enter__(self) -> SafetensorsFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def shape(self, name: str) -> torch.Size:
        """Shape of a tensor."""
        return torch.Size(self._slice(name).get_shape())

    def is_float(self, name: str) -> bool:
        """Whether a tensor is of a kind that this model is made of, and not quantised."""
        return self._slice(name).get_dtype() in _FLOATS

    def read(self, name: str) -> Tensor:
        """A tensor in fp32. Raises DataError if it has values that are no numbers."""
        path = self.place[name]
        try:
            weight: Tensor = self._file(path).get_tensor(name).float()
        except (SafetensorError, OSError) as reason:
            raise DataError(f"{path}: {name} cannot be read: {reason}") from None
        if not bool(torch.isfinite(weight).all()):
            raise DataError(f"{path}: {name} has values that are not finite")
        return weight

    def _find_places(self) -> dict[str, Path]:
        """The file of each tensor."""
        index, single = self.directory / INDEX_NAME, self.directory / SINGLE_NAME
        if index.is_file():
            return self._read_index(index)
        if not single.is_file():
            pickled = any(self.directory.glob("*.bin")) or any(self.directory.glob("*.pt*"))
            why = "; it has pickled weights, which are not read: convert them" if pickled else ""
            raise DataError(f"{self.directory}: has no {SINGLE_NAME} and no {INDEX_NAME}{why}")
        return dict.fromkeys(self._file(single).keys(), single)

    def _read_index(self, index: Path) -> dict[str, Path]:
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = {str(file) for file in named.values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as reason:
            raise DataError(f"{index}: not a readable index: {reason!r}") from None
        if foreign := sorted(file for file in files if Path(file).name != file):
            raise DataError(f"{index}: names files elsewhere: {', '.join(foreign)}")
        if missing := sorted(file for file in files if not (self.directory / file).is_file()):
            raise DataError(f"{self.directory}: lacks {', '.join(missing)}, which {index.name} names")
        places = {name: self.directory / file for name, file in named.items()}
        lost = sorted(name for name, path in places.items() if name not in self._file(path).keys())  # noqa: SIM118
        if lost:
            raise DataError(f"{index}: names tensors that are not in their files: {_some(lost)}")
        return places

    def _slice(self, name: str) -> Any:
        return self._file(self.place[name]).get_slice(name)

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = self._stack.enter_context(safe_open(path, "pt", device="cpu"))
            except (SafetensorError, OSError) as reason:
                raise DataError(f"{path}: not a readable safetensors file: {reason}") from None
        return self._open[path]


def check_tensors(files: SafetensorsFiles, shapes: Mapping[str, torch.Size], tied: bool) -> None:
    """Compare what there is with what the model needs. Raises DataError with every difference."""
    wanted = {huggingface_name(name): shape for name, shape in shapes.items()}
    there = {name for name in files.place if not name.endswith(_DERIVED)}
    head, embedding = huggingface_name("head.weight"), huggingface_name("embedding.weight")
    problems = []
    if tied and head in there and {head, embedding} <= there:
        there.discard(head)
        if not torch.equal(files.read(head), files.read(embedding)):
            problems.append(f"tie_word_embeddings is set, but {head} differs from {embedding}")
    if missing := sorted(set(wanted) - there):
        problems.append(f"lacks {_some(missing)}")
    if extra := sorted(there - set(wanted)):
        problems.append(f"has tensors that the model of config.json has no place for: {_some(extra)}")
    for name in sorted(there & set(wanted)):
        if files.shape(name) != wanted[name]:
            found, expected = (_cross(shape) for shape in (files.shape(name), wanted[name]))
            problems.append(f"{name} is {found}, config.json says {expected}")
        elif not files.is_float(name):
            problems.append(f"{name} is not of a floating-point kind; quantised weights are not read")
    if problems:
        raise DataError("\n".join(f"{files.directory}: {problem}" for problem in problems))


def _some(names: Iterable[str]) -> str:
    """The first names of a long list."""
    names = list(names)
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _cross(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
