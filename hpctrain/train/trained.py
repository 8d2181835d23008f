"""A trained model in one process, for evaluation, generation and export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hpctrain.checkpoint.restore import Whole, newest_whole
from hpctrain.checkpoint.weights import tensors
from hpctrain.config import Section, load_config
from hpctrain.errors import CheckpointError, DataError
from hpctrain.model.attention import choose_attention
from hpctrain.model.transformer import Transformer, build_layers
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.tokenizer.foreign import ForeignTokenizer
from hpctrain.train.config import RunConfig
from hpctrain.train.rundir import CONFIG_NAME, ORIGIN_NAME
from hpctrain.train.weights import open_weights


class Origin(Section):
    """Where an imported model came from."""

    name: str
    """The name of the directory it was imported from."""
    licence: str | None
    """As its model card states it; None if that does not."""


@dataclass(frozen=True)
class Trained:
    """A run's newest whole checkpoint as a model, with what it was made with."""

    run: Path
    config: RunConfig
    tokenizer: Tokenizer
    model: Transformer
    """In fp32 on the CPU, in evaluation mode; an adapter is merged."""
    checkpoint: Whole
    unseen: frozenset[int] = frozenset()
    """Ids that the weights have never met: marks that an import added, until a run has trained them."""


def find_origin(run: Path) -> Origin | None:
    """The imported model that a run's weights descend from; None if they began as random ones.

    Follows run.start_from, as far as those directories still are where they were.
    """
    seen: set[Path] = set()
    place: Path | None = run
    while place is not None and place.resolve() not in seen and (place / CONFIG_NAME).is_file():
        seen.add(place.resolve())
        if (place / ORIGIN_NAME).is_file():
            return Origin.model_validate_json((place / ORIGIN_NAME).read_text(encoding="utf-8"))
        place = load_config(place / CONFIG_NAME, [], RunConfig).run.start_from
    return None


def load_trained(run: Path) -> Trained:
    """Load the newest whole checkpoint of a run, whatever layout wrote it.

    Raises DataError if the directory is not a run's, CheckpointError if no checkpoint is whole.
    """
    if not (run / CONFIG_NAME).is_file():
        raise DataError(f"{run}: not a run directory (no {CONFIG_NAME})")
    config = load_config(run / CONFIG_NAME, [], RunConfig)
    tokenizer = Tokenizer.load(run / TOKENIZER_DIRECTORY)
    whole = newest_whole(run / "checkpoints", may_start_anew=False)
    if whole is None:
        raise CheckpointError(f"{run}: has no checkpoint yet")
    attention = choose_attention("auto", "cpu", "fp32")
    with torch.device("meta"):  # no initial weights: all of them are replaced
        model = Transformer(build_layers(config.model, tokenizer.vocab_size, config.run.seed, attention))
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    with open_weights(run, whole) as weights:
        for name in sorted({*shapes, *weights.shapes}):
            if shapes.get(name) != weights.shapes.get(name):
                raise CheckpointError(f"{whole.directory}: {name} does not fit the model of {CONFIG_NAME}")
        model.load_state_dict(dict(tensors(weights)), assign=True)
    added: list[int] = []
    if isinstance(tokenizer, ForeignTokenizer) and (run / ORIGIN_NAME).is_file():
        added = tokenizer.marks.added
    return Trained(run, config, tokenizer, model.eval(), whole, frozenset(added))
