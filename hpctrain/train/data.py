"""Open the shards of a run: verified, mixed, and dealt to this rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpctrain.errors import DataError
from hpctrain.loader.batches import BatchLoader, SampleReader
from hpctrain.loader.cutting import CharacterCutter
from hpctrain.loader.fim import FimTokens
from hpctrain.loader.heldout import HeldOut, build_heldout
from hpctrain.loader.mixture import (
    DataConfig,
    Epochs,
    Mixture,
    build_mixture,
    build_pools,
    count_epochs,
    make_plans,
)
from hpctrain.loader.order import SampleOrder
from hpctrain.manifest import Manifest, find_damage
from hpctrain.parallel.process import Gang
from hpctrain.parallel.topology import Topology
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.config import RunConfig


@dataclass(frozen=True)
class TrainingData:
    """What a run reads."""

    loader: BatchLoader
    heldout: dict[str, HeldOut]
    """By language; empty if the run does not evaluate."""
    vocab_size: int
    epochs: list[Epochs]
    """How often the run goes through each part of its mixture."""
    source_epochs: list[Epochs]
    """How often it goes through each source; empty where the shards do not know sources."""


def open_data(config: RunConfig, shards: Manifest, topology: Topology, verify: bool = True) -> TrainingData:
    """Verify the shards, if asked to (the ranks share the reading), and set up batches; a collective call.

    Raises DataError that names each damaged file, on every rank.
    """
    if verify:
        _verify(config, shards, Gang(topology.rank, topology.world_size))
    tokenizer = Tokenizer.load(config.data.shards / TOKENIZER_DIRECTORY)
    marks = fim_tokens(tokenizer)
    if config.data.packing == "best_fit":
        _make_plans(config.data, shards, Gang(topology.rank, topology.world_size))
    mixture, reader = open_reader(config.data, shards, tokenizer, config.run.seed)
    train = config.train
    epochs = count_epochs(mixture, reader.order, train.steps * train.global_batch_size)
    heldout = {}
    if train.evaluate_every_steps:
        heldout = build_heldout(
            open_streams(config.data.shards, "validation", verify=False), marks, tokenizer.token_bytes,
            topology, config.data.sequence_length, train.micro_batch_size, train.evaluate_sequences,
        )  # fmt: skip
    loader = BatchLoader(reader, topology, train.global_batch_size, train.micro_batch_size)
    return TrainingData(loader, heldout, tokenizer.vocab_size, *epochs)


def open_reader(
    config: DataConfig, shards: Manifest, tokenizer: Tokenizer, seed: int
) -> tuple[Mixture, SampleReader]:
    """The mixture of a config, and what reads its samples. Plans of best_fit must have been made."""
    marks = fim_tokens(tokenizer)
    if config.packing == "best_fit":
        marks = replace(marks, pad=tokenizer.special.pad)
    pools = build_pools(open_streams(config.shards, "train", verify=False), config)
    mixture = build_mixture(pools, config, shards, marks.pad)
    cutter = CharacterCutter(tokenizer) if config.fim.cuts == "character" else None
    return mixture, SampleReader(
        SampleOrder(*mixture.order, seed), mixture.components, config.fim, marks, cutter
    )


def _make_plans(config: DataConfig, shards: Manifest, gang: Gang) -> None:
    """Let rank 0 make the plans of best_fit; a collective call."""
    pools = build_pools(open_streams(config.shards, "train", verify=False), config)
    problems = []
    if gang.rank == 0:
        try:
            make_plans(pools, config, shards)
        except DataError as reason:
            problems = [str(reason)]
    if problems := gang.concatenate(problems):
        error = DataError(problems[0])
        error.everywhere = True
        raise error


def _verify(config: RunConfig, shards: Manifest, gang: Gang) -> None:
    mine = sorted(shards.files)[gang.rank :: gang.size]
    damage = gang.concatenate(find_damage(config.data.shards, shards, mine))
    if damage:
        error = DataError("\n".join(["the shards are damaged; build them again", *damage]))
        error.everywhere = True
        raise error


def fim_tokens(tokenizer: Tokenizer) -> FimTokens:
    """The marks of the loader, from the tokenizer's control tokens."""
    special = tokenizer.special
    return FimTokens(
        document=special.document, content=special.content, end=special.end,
        prefix=special.fim_prefix, suffix=special.fim_suffix, middle=special.fim_middle,
    )  # fmt: skip
