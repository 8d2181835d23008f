"""From shard directories to components: the addressable pools that the sample order draws from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from hpctrain.config import Section, fingerprint
from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.component import Component, Part
from hpctrain.loader.fim import FimConfig
from hpctrain.loader.order import SampleOrder
from hpctrain.loader.packing import (
    Packed,
    PackedComponent,
    make_plan,
    measure_best_fit,
    measure_cut,
    plan_path,
)
from hpctrain.manifest import Manifest
from hpctrain.shards.layout import RESPONSES
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.shards.stream import TokenStream
from hpctrain.tasks.template import Template

_ANY = "any"
_FIRST_FIM_KEYS = ("rate", "suffix_first")


class DataConfig(Section):
    """What the model is trained on."""

    shards: Path
    """Directory of token shards."""
    sequence_length: int = Field(default=1024, gt=1)
    """Positions of one training sequence, in tokens."""
    mixture: dict[str, float] = {}
    """Weight of each part, relative to the others: `c` is a language, `any/lapack` a source, `c/lapack` a
    language of a source, which then counts in no other part. What no part names is left out. Empty: all as
    they occur, each sequence once an epoch."""
    temperature: float | None = Field(default=None, ge=1)
    """Instead of weights: every part's is its tokens to the power of 1/temperature. 1 keeps the shares as
    they occur, larger ones bring them nearer to each other."""
    temperature_over: Literal["languages", "sources", "both"] = "languages"
    """What the parts are to which the temperature applies."""
    packing: Literal["cut", "best_fit"] = "cut"
    """cut: documents are laid end to end and cut into sequences. best_fit: a document is cut only where it is
    longer than a sequence, and sequences are filled up with padding."""
    packing_plans: Path | None = None
    """Directory that keeps the plans of best_fit; by default one beside the shards, which must be writable
    when a plan is made."""
    fim: FimConfig = FimConfig()
    """Fill in the middle."""
    loss: Literal["all", "response"] | None = None
    """Tokens to learn: all, or the responses in shards of instructions. None: responses if there are any."""
    template: Template | None = None
    """How requests stand in the text, as the shards of instructions say; filled in by the run."""

    @field_validator("mixture")
    @classmethod
    def _positive(cls, mixture: dict[str, float]) -> dict[str, float]:
        wrong = [f"{part}: {weight}" for part, weight in mixture.items() if weight <= 0]
        if wrong:
            raise ValueError(
                f"weights must be positive (leave a language or source out to skip it); {', '.join(wrong)}"
            )
        return mixture

    @model_validator(mode="after")
    def _one_of_both(self) -> DataConfig:
        if self.mixture and self.temperature is not None:
            raise ValueError("give weights in mixture or a temperature, not both")
        return self


def settle_data(config: DataConfig, shards: Manifest) -> DataConfig:
    """The config with `loss` and `template` as the shards have it, where they are not given.

    Raises ConfigError with everything in which config and shards contradict each other.
    """
    details = shards.details
    has_responses = bool(details.get(RESPONSES))
    loss = config.loss or ("response" if has_responses else "all")
    template = details.get("template")
    problems = []
    if loss == "response" and not has_responses:
        problems.append(f"data.loss: {config.shards} does not say what is a response; use all")
    if config.template not in (None, template):
        problems.append(f"data.template: {config.shards} was built with {template}; leave it out")
    if has_responses and config.packing != "best_fit":
        problems.append("data.packing: examples must stay whole; use best_fit")
    if has_responses and config.fim.rate:
        problems.append("data.fim.rate: shards of instructions are not rearranged; use 0")
    problems += length_problems(config, shards)
    if problems:
        raise ConfigError(problems)
    return config.model_copy(update={"loss": loss, "template": template})


def length_problems(config: DataConfig, shards: Manifest) -> list[str]:
    """What to say of shards of instructions of which an example is longer than a sequence; else nothing."""
    longest, length = shards.details.get("longest", 0), config.sequence_length
    if longest <= length + 1:
        return []
    return [
        f"data.sequence_length: {length}, but the longest example of {config.shards} has {longest} tokens; "
        f"use {longest - 1}, or build the shards with --context {length} --too-long drop"
    ]


def data_identity(config: DataConfig) -> dict[str, str]:
    """Fingerprints of what decides a run's samples besides shards, seed and sequence length.

    Keys that did not always exist count only where they are not at their defaults: runs that began before
    them go on.
    """
    fim = config.fim.model_dump(mode="json")
    default = FimConfig().model_dump(mode="json")
    kept = {name: value for name, value in fim.items() if name in _FIRST_FIM_KEYS or value != default[name]}
    mixture: object = config.mixture
    if config.temperature is not None:
        mixture = {"temperature": config.temperature, "over": config.temperature_over}
    packing = {} if config.packing == "cut" else {"data.packing": config.packing}
    loss = {"data.loss": config.loss} if config.loss == "response" else {}
    return {"data.mixture": fingerprint(mixture), "data.fim": fingerprint(kept), **packing, **loss}


class Stream(Protocol):
    """Tokens of one language, addressable by position."""

    def __len__(self) -> int: ...
    def read(self, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]: ...  # noqa: D102


@dataclass(frozen=True)
class Pool:
    """What one weight is for: parts of streams, by name."""

    name: str
    weight: float
    parts: list[Part]

    @property
    def tokens(self) -> int:
        """Tokens of all parts."""
        return sum(len(part) for part in self.parts)


def build_pools(streams: Mapping[str, TokenStream], config: DataConfig) -> list[Pool]:
    """The parts of a mixture: one a weight, or all streams as one without weights.

    Raises ConfigError with everything that the shards lack or that two weights both name, DataError if
    sources are asked of shards that do not know them.
    """
    whole = {name: Part(stream, 0, len(stream)) for name, stream in streams.items()}
    if config.temperature is not None:
        pools = _pools_by(streams, whole, config.temperature_over)
        return [
            Pool(name, sum(len(part) for part in parts) ** (1 / config.temperature), parts)
            for name, parts in pools.items()
        ]
    if not config.mixture:
        return [Pool("all", 1.0, list(whole.values()))]
    if not any("/" in name for name in config.mixture):
        if missing := sorted(set(config.mixture) - set(streams)):
            known = ", ".join(sorted(streams))
            raise ConfigError(f"data.mixture: {config.shards} has no {', '.join(missing)}; it has {known}")
        return [Pool(name, weight, [whole[name]]) for name, weight in config.mixture.items()]
    claimed = _claim(_runs(streams), config)
    return [Pool(name, weight, claimed[name]) for name, weight in config.mixture.items()]


_Runs = dict[tuple[str, str], list[Part]]
"""By language and source, in the order of the streams."""


def _runs(streams: Mapping[str, TokenStream]) -> _Runs:
    runs: _Runs = {}
    for language, stream in streams.items():
        for source, start, stop in stream.sources():
            runs.setdefault((language, source), []).append(Part(stream, start, stop))
    return runs


def _pools_by(
    streams: Mapping[str, TokenStream], whole: Mapping[str, Part], over: str
) -> dict[str, list[Part]]:
    """The parts to which a temperature applies."""
    if over == "languages":
        return {name: [part] for name, part in whole.items()}
    pools: dict[str, list[Part]] = {}
    for (language, source), parts in _runs(streams).items():
        name = f"{_ANY if over == 'sources' else language}/{source}"
        pools.setdefault(name, []).extend(parts)
    return pools


def _claim(runs: _Runs, config: DataConfig) -> dict[str, list[Part]]:
    """The runs that each weight is for. A language of a source that is named itself counts there only."""
    claimed: dict[str, list[Part]] = {name: [] for name in config.mixture}
    problems = []
    for (language, source), parts in runs.items():
        name = f"{language}/{source}"
        names = [name] if name in claimed else [n for n in (language, f"{_ANY}/{source}") if n in claimed]
        if len(names) > 1:
            problems.append(
                f"data.mixture: {' and '.join(names)} both name {name}; give {name} a weight of its own"
            )
        for each in names[:1]:
            claimed[each] += parts
    known = ", ".join(sorted({language for language, _ in runs}))
    sources = ", ".join(sorted({source for _, source in runs}))
    problems += [
        f"data.mixture: {config.shards} has nothing left for {name}; languages: {known}; sources: {sources}"
        for name, parts in claimed.items()
        if not parts
    ]
    if problems:
        raise ConfigError(problems)
    return claimed


@dataclass(frozen=True)
class Mixture:
    """What the sample order draws from."""

    pools: Sequence[Pool]
    components: Sequence[Component]
    """One for each pool."""

    @property
    def order(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Sequences and weight of each component, as `SampleOrder` takes them."""
        sizes = tuple(len(component) for component in self.components)
        return sizes, tuple(pool.weight for pool in self.pools)


def make_plans(pools: Sequence[Pool], config: DataConfig, shards: Manifest) -> list[Manifest]:
    """Make the plans of best_fit that are not there yet, and verify the others; for one rank to call.

    Returns the plans' manifests, one a pool. Raises DataError if they cannot be written or are damaged.
    """
    try:
        return [
            make_plan(pool.parts, config.sequence_length, _plan_of(pool, config, shards)) for pool in pools
        ]
    except DataError as reason:
        raise DataError(f"packing: {reason}; data.packing_plans can name another directory") from None


def _plan_of(pool: Pool, config: DataConfig, shards: Manifest) -> Path:
    directory = config.packing_plans or config.shards.parent / f"{config.shards.name}.packing"
    return plan_path(pool.parts, config.sequence_length, shards, directory)


def build_mixture(pools: Sequence[Pool], config: DataConfig, shards: Manifest, pad: int) -> Mixture:
    """The components of the pools; for best_fit their plans must have been made.

    Raises ConfigError if spans are asked for that the shards do not have, DataError if a pool holds less than
    one sequence.
    """
    if config.fim.rate and config.fim.spans and not shards.details.get("spans"):
        raise ConfigError(f"data.fim.spans: {config.shards} has no spans; build the shards with --spans")
    if config.packing == "best_fit" and shards.details.get("order") == "repository":
        raise ConfigError(
            f"data.packing: {config.shards} lays the files of a repository as one text, which best_fit would "
            "take apart; use cut, or build the shards with --order path"
        )
    length = config.sequence_length
    components = [
        Component(pool.parts, length)
        if config.packing == "cut"
        else PackedComponent(pool.parts, length, _plan_of(pool, config, shards), pad)
        for pool in pools
    ]
    for pool, component in zip(pools, components, strict=True):
        if not len(component):
            name = "the training split" if pool.name == "all" else pool.name
            raise DataError(
                f"{config.shards}: {name} holds fewer tokens than one sequence of {config.sequence_length}; "
                "shorten data.sequence_length or leave it out of data.mixture"
            )
    return Mixture(pools, components)


@dataclass(frozen=True)
class Epochs:
    """How often a run sees a pool or a source."""

    name: str
    tokens: int
    """Tokens there are."""
    epochs: float
    """How often each is seen, on average."""


def count_epochs(mixture: Mixture, order: SampleOrder, samples: int) -> tuple[list[Epochs], list[Epochs]]:
    """How often `samples` samples go through each pool, and through each source where these are known."""
    quotas = order.quotas()
    seen = [samples * quota / sum(quotas) / size for quota, size in zip(quotas, order.sizes, strict=True)]
    pools = [
        Epochs(pool.name, pool.tokens, round(epochs, 4))
        for pool, epochs in zip(mixture.pools, seen, strict=True)
    ]
    tokens: dict[str, int] = {}
    visits: dict[str, float] = {}
    for pool, epochs in zip(mixture.pools, seen, strict=True):
        for name, size in (each for part in pool.parts for each in part.source_sizes()):
            tokens[name] = tokens.get(name, 0) + size
            visits[name] = visits.get(name, 0.0) + size * epochs
    return pools, [
        Epochs(name, tokens[name], round(visits[name] / tokens[name], 4)) for name in sorted(tokens)
    ]


def describe_epochs(pools: Sequence[Epochs], sources: Sequence[Epochs]) -> str:
    """Both in one line."""
    parts, by_source = (
        ", ".join(f"{each.name} {each.epochs:.3g}" for each in group) for group in (pools, sources)
    )
    return f"{parts}; by source: {by_source}" if by_source else parts


def compare_packing(shards: Path, sequence_length: int) -> list[Packed]:
    """What each way of packing makes of the training split without a mixture; makes the plan of best_fit."""
    manifest = read_shards_manifest(shards)
    config = DataConfig(shards=shards, sequence_length=sequence_length, packing="best_fit")
    pools = build_pools(open_streams(shards, "train", verify=False), config)
    plans = make_plans(pools, config, manifest)
    return [measure_cut(pools[0].parts, sequence_length), measure_best_fit(plans[0])]
