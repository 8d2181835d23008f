"""A trained model in one process, for evaluation, generation and export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from hpctrain.checkpoint.restore import Whole, full_weights, newest_whole
from hpctrain.config import load_config
from hpctrain.errors import CheckpointError, DataError
from hpctrain.model.attention import choose_attention
from hpctrain.model.transformer import Transformer, build_layers
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.config import RunConfig
from hpctrain.train.rundir import CONFIG_NAME


@dataclass(frozen=True)
class Trained:
    """A run's newest whole checkpoint as a model, with what it was made with."""

    run: Path
    config: RunConfig
    tokenizer: Tokenizer
    model: Transformer
    """In fp32 on the CPU, in evaluation mode."""
    checkpoint: Whole


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
    model = Transformer(build_layers(config.model, tokenizer.vocab_size, config.run.seed, attention))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in full_weights(whole):
            if name not in parameters or parameters[name].shape != weight.shape:
                raise CheckpointError(f"{whole.directory}: {name} does not fit the model of {CONFIG_NAME}")
            parameters.pop(name).copy_(weight)
    if parameters:
        raise CheckpointError(f"{whole.directory}: lacks {', '.join(sorted(parameters))}")
    return Trained(run, config, tokenizer, model.eval(), whole)
