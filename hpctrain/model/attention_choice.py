"""`model.attention: auto` where a device has several quick backends: each is tried at the run's own shape."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from hpctrain.errors import ConfigError
from hpctrain.model.attention import Attention, available_backends, check_backend, make_attention
from hpctrain.parallel.process import Gang

_WARMUPS = 3
_ROUNDS = 7
_MOST_LAYERS = 4
_MOST_DIFFERENCE = 0.05  # of bf16 results from sdpa's, relative; correct ones are under 0.01


@dataclass(frozen=True)
class Trial:
    """What backends are tried at: the attention of one micro-batch of a run."""

    heads: int
    kv_heads: int
    width: int
    """Of one head."""
    length: int
    """Positions of a sequence."""
    boundaries: Tensor
    """[M] int32 of B sequences, on the device; see `attention`."""
    dtype: torch.dtype
    layers: int = 1
    """Blocks of the model: what is made once a forward pass counts that much less."""

    @property
    def batch(self) -> int:
        """Sequences of the micro-batch."""
        return int(self.boundaries[-1]) // self.length


@dataclass(frozen=True)
class Measured:
    """What one rank saw."""

    seconds: dict[str, float]
    """Median of a layer's forward and backward, by backend."""
    left_out: dict[str, str]
    """Why a backend cannot be used, by backend."""


@dataclass(frozen=True)
class AttentionChoice:
    """The backend of a run, and what it was chosen by."""

    backend: str
    seconds: dict[str, float] = field(default_factory=dict)
    """A layer's forward and backward: the mean over ranks of their medians. Empty if nothing was measured."""
    left_out: dict[str, str] = field(default_factory=dict)
    place: str = ""
    """Device, versions and shape that it was measured at."""

    def record(self) -> dict[str, Any]:
        """For the run's `start` event."""
        return asdict(self)

    def describe(self) -> str:
        """The choice and the times in a line."""
        order = sorted(self.seconds, key=self.seconds.__getitem__)
        times = ", ".join(f"{name} {1e3 * self.seconds[name]:.2f} ms" for name in order)
        left = "".join(f"; left out: {name} ({reason})" for name, reason in self.left_out.items())
        return f"attention: {self.backend}, of a layer's forward and backward in {times}{left}"


def choose_backend(
    name: str, device: torch.device, precision: str, trial: Callable[[], Trial], place: str, gang: Gang,
    events: Callable[[], Iterable[Mapping[str, Any]]],
) -> AttentionChoice:  # fmt: skip
    """The backend for `model.attention: name`; a collective call where `auto` has something to choose from.

    A backend that is named, or the only quick one, is taken unmeasured; `trial` is made only for measuring.
    What an earlier start of the run measured at the same `place` holds, so that a restart goes on with the
    same arithmetic: rank 0 looks into the run's `events`. Raises ConfigError where no backend can be used.
    """
    if name != "auto":
        check_backend(name, device.type, precision)
        return AttentionChoice(name)
    quick = [each for each in available_backends(device.type, precision) if each != "eager"]
    if len(quick) == 1:
        return AttentionChoice(quick[0])
    kept = [json.dumps(each) for each in _kept(events(), place)] if gang.rank == 0 else []
    if found := gang.concatenate(kept):
        return AttentionChoice(**json.loads(found[-1]))
    return agree(measure(quick, trial()), gang, place)


def _kept(events: Iterable[Mapping[str, Any]], place: str) -> list[Mapping[str, Any]]:
    """What earlier starts measured at this place."""
    told = [event.get("attention") for event in events if event.get("event") == "start"]
    return [each for each in told if each and each["seconds"] and each["place"] == place]


def agree(mine: Measured, gang: Gang, place: str = "") -> AttentionChoice:
    """The quickest backend over all ranks that none leaves out, the same on every rank; a collective call."""
    told = [json.loads(line) for line in gang.concatenate([json.dumps(asdict(mine))])]
    left_out: dict[str, str] = {}
    for rank, each in enumerate(told):
        where = f"rank {rank}: " if gang.size > 1 else ""
        left_out = {name: where + reason for name, reason in each["left_out"].items()} | left_out
    usable = [name for name in told[0]["seconds"] if name not in left_out]
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(f"model.attention: none of the quick backends can be used here: {reasons}")
    seconds = {name: fmean(each["seconds"][name] for each in told) for name in usable}
    return AttentionChoice(min(usable, key=seconds.__getitem__), seconds, left_out, place)


def measure(
    candidates: Sequence[str], trial: Trial, make: Callable[[str, str], Attention] = make_attention
) -> Measured:
    """Time forward and backward of each backend in turn, after warm-up, on random heads.

    One that fails to run, or whose results are not those of sdpa, is left out with the reason. The random
    state of the process stays as it is. `make` makes a backend by its name and the device type.
    """
    device = trial.boundaries.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        heads = _heads(trial)
        backends, left_out = _try(candidates, trial, make, heads)
        samples: dict[str, list[float]] = {name: [] for name in backends}
        for _ in range(_ROUNDS):
            for name, attend in backends.items():
                samples[name].append(_seconds(attend, trial, heads))
    del heads, backends
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Measured({name: median(each) for name, each in samples.items()}, left_out)


def _heads(trial: Trial) -> list[Tensor]:
    """Query, key, value, and the gradient of the output, all of deviation 1."""
    device = trial.boundaries.device
    generator = torch.Generator(device).manual_seed(1)
    return [
        torch.randn(
            trial.batch, trial.length, count, trial.width,
            generator=generator, device=device, dtype=trial.dtype,
        ).requires_grad_(number < 3)
        for number, count in enumerate([trial.heads, trial.kv_heads, trial.kv_heads, trial.heads])
    ]  # fmt: skip


def _try(
    candidates: Sequence[str], trial: Trial, make: Callable[[str, str], Attention], heads: list[Tensor]
) -> tuple[dict[str, Attention], dict[str, str]]:
    """The backends that run and are right, warmed up; and why the others are left out."""
    works: dict[str, Attention] = {}
    left_out: dict[str, str] = {}
    expected: list[Tensor] | None = None
    for name in sorted(candidates, key=lambda each: each != "sdpa"):  # the others are compared with it
        try:
            attend = make(name, trial.boundaries.device.type)
            for _ in range(_WARMUPS):
                found = _once(attend, heads, trial.boundaries)
            if name == "sdpa":
                expected = found
            off = 0.0 if expected is None else _difference(found, expected)
        except (RuntimeError, ValueError, ImportError) as reason:
            left_out[name] = (str(reason).strip() or type(reason).__name__).splitlines()[0]
            continue
        if off <= _MOST_DIFFERENCE:
            works[name] = attend
        else:
            left_out[name] = f"its results differ by {off:.2g} from those of sdpa, relatively"
    return works, left_out


def _once(attend: Attention, heads: list[Tensor], boundaries: Tensor) -> list[Tensor]:
    """The output and the gradients of query, key and value."""
    query, key, value, upstream = heads
    output = attend(query, key, value, boundaries)
    return [output.detach(), *torch.autograd.grad(output, (query, key, value), upstream)]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of a tensor, relative to its length; infinite where one is not finite."""
    worst = max(
        float((a.float() - b.float()).norm() / b.float().norm().clamp(min=1e-9))
        for a, b in zip(found, expected, strict=True)
    )
    return worst if all(bool(tensor.isfinite().all()) for tensor in found) else float("inf")


def _seconds(attend: Attention, trial: Trial, heads: list[Tensor]) -> float:
    """Of one layer, among as many as share what is made once a forward pass."""
    boundaries, layers = trial.boundaries.clone(), min(trial.layers, _MOST_LAYERS)
    _wait(boundaries.device)
    start = time.perf_counter()
    for _ in range(layers):
        _once(attend, heads, boundaries)
    _wait(boundaries.device)
    return (time.perf_counter() - start) / layers


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
