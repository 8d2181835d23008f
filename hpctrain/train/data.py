"""Open the shards of a run: verified, mixed, and dealt to this rank."""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.errors import DataError
from hpctrain.loader.batches import BatchLoader, SampleReader
from hpctrain.loader.fim import FimTokens
from hpctrain.loader.heldout import HeldOut, build_heldout
from hpctrain.loader.mixture import build_components
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


def open_data(config: RunConfig, shards: Manifest, topology: Topology, verify: bool = True) -> TrainingData:
    """Verify the shards, if asked to (the ranks share the reading), and set up batches; a collective call.

    Raises DataError that names each damaged file, on every rank.
    """
    if verify:
        _verify(config, shards, Gang(topology.rank, topology.world_size))
    tokenizer = Tokenizer.load(config.data.shards / TOKENIZER_DIRECTORY)
    marks = fim_tokens(tokenizer)
    streams = open_streams(config.data.shards, "train", verify=False)
    components, weights = build_components(streams, config.data)
    order = SampleOrder(tuple(len(component) for component in components), weights, config.run.seed)
    reader = SampleReader(order, components, config.data.fim, marks)
    train = config.train
    heldout = {}
    if train.evaluate_every_steps:
        heldout = build_heldout(
            open_streams(config.data.shards, "validation", verify=False), marks, tokenizer.token_bytes,
            topology, config.data.sequence_length, train.micro_batch_size, train.evaluate_sequences,
        )  # fmt: skip
    loader = BatchLoader(reader, topology, train.global_batch_size, train.micro_batch_size)
    return TrainingData(loader, heldout, tokenizer.vocab_size)


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
