"""Open the shards of a run: verified, mixed, and dealt to this rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.batches import BatchLoader, SampleReader
from hpctrain.loader.cutting import CharacterCutter
from hpctrain.loader.fim import FimTokens
from hpctrain.loader.heldout import HeldOut, build_heldout, build_heldout_responses
from hpctrain.loader.mixture import (
    DataConfig,
    Epochs,
    Mixture,
    build_mixture,
    build_pools,
    count_epochs,
    length_problems,
    make_plans,
)
from hpctrain.loader.order import SampleOrder
from hpctrain.manifest import Manifest, find_damage
from hpctrain.parallel.process import Gang
from hpctrain.parallel.topology import Topology
from hpctrain.shards.layout import RESPONSES, TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.config import RunConfig

if TYPE_CHECKING:
    import torch


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
    counted_share: float = 1.0
    """See `counted_share`."""


def open_data(
    config: RunConfig,
    shards: Manifest,
    topology: Topology,
    verify: bool = True,
    device: torch.device | None = None,
) -> TrainingData:
    """Verify the shards, if asked to (the ranks share the reading), and set up batches; a collective call.

    `device`: where the batches of training go, see `BatchLoader`.
    Raises DataError that names each damaged file, on every rank.
    """
    if verify:
        _verify(config, shards, Gang(topology.rank, topology.world_size))
    tokenizer = Tokenizer.load(config.data.shards / TOKENIZER_DIRECTORY)
    if config.data.packing == "best_fit":
        _make_plans(config.data, shards, Gang(topology.rank, topology.world_size))
    mixture, reader = open_reader(config.data, shards, tokenizer, config.run.seed)
    train = config.train
    epochs = count_epochs(mixture, reader.order, train.steps * train.global_batch_size)
    heldout = {}
    if train.evaluate_every_steps:
        heldout = open_heldout(config, tokenizer, topology, train.evaluate_sequences)
    loader = BatchLoader(reader, topology, train.global_batch_size, train.micro_batch_size, device)
    share = counted_share(config.data, shards)
    return TrainingData(loader, heldout, tokenizer.vocab_size, *epochs, counted_share=share)


def open_heldout(
    config: RunConfig,
    tokenizer: Tokenizer,
    topology: Topology,
    sequences: int,
    shards: Path | None = None,
    verify: bool = False,
) -> dict[str, HeldOut]:
    """Held-out text of the config's shards, or of others, by language: at most so many sequences of each.

    Where the run learns responses only, only they count; of other shards, where there are responses. Raises
    ConfigError if an example is longer than a sequence.
    """
    data = config.data if shards is None else config.data.model_copy(update={"shards": shards})
    manifest = read_shards_manifest(data.shards)
    responses = data.loss == "response" if shards is None else bool(manifest.details.get(RESPONSES))
    if responses and (problems := length_problems(data, manifest)):
        raise ConfigError(problems)
    streams = open_streams(data.shards, "validation", verify=verify)
    build = build_heldout_responses if responses else build_heldout
    return build(
        streams, packed_marks(tokenizer), tokenizer.token_bytes, topology, data.sequence_length,
        config.train.micro_batch_size, sequences,
    )  # fmt: skip


def counted_share(config: DataConfig, shards: Manifest) -> float:
    """The share of the training tokens that count: 1, or that of the responses where only they are learnt."""
    if config.loss != "response":
        return 1.0
    tokens, responses = (shards.counts[what]["train"] for what in ("tokens", RESPONSES))
    return float(sum(responses.values()) / sum(tokens.values()))


def open_reader(
    config: DataConfig, shards: Manifest, tokenizer: Tokenizer, seed: int
) -> tuple[Mixture, SampleReader]:
    """The mixture of a config, and what reads its samples. Plans of best_fit must have been made."""
    marks = packed_marks(tokenizer) if config.packing == "best_fit" else fim_tokens(tokenizer)
    pools = build_pools(open_streams(config.shards, "train", verify=False), config)
    mixture = build_mixture(pools, config, shards, marks.pad)
    cutter = CharacterCutter(tokenizer) if config.fim.cuts == "character" else None
    return mixture, SampleReader(
        SampleOrder(*mixture.order, seed), mixture.components, config.fim, marks, cutter,
        responses_only=config.loss == "response",
    )  # fmt: skip


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


def packed_marks(tokenizer: Tokenizer) -> FimTokens:
    """The marks of the loader where sequences are filled up with padding."""
    return replace(fim_tokens(tokenizer), pad=tokenizer.special.pad)
