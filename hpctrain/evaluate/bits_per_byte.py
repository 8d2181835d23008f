"""Bits per byte on held-out files, by language and programming model: comparable across tokenizers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from hpctrain.corpus.models import programming_models
from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.heldout_files import heldout_files
from hpctrain.evaluate.models import require_trained
from hpctrain.evaluate.scored import (
    ScoredText,
    check_tokenizer,
    first_sequences,
    heldout_streams,
    score_heldout,
)
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.parallel.topology import Topology
from hpctrain.tasks.result import Result, Score
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.data import open_heldout
from hpctrain.train.trained import Trained

SEQUENCES = 64
"""Held-out sequences of each language, at most, where the user sets no limit."""
SERIAL = "serial"
"""Files that use no parallel programming model."""

Sums = tuple[float, int, int]
"""Nats, tokens and bytes."""


def run_bits_per_byte(candidate: Candidate, options: SuiteOptions) -> Result:
    """Bits per byte and loss of a local model: all, by language (with Fortran's form), by programming model.

    A file that uses several models counts for each. Where the run learnt responses only, they alone count,
    and only languages are told apart. Raises ConfigError for a candidate whose probabilities are not at hand.
    """
    trained = require_trained(candidate, "bits-per-byte")
    shards = options.shards or trained.config.data.shards
    sequences = options.limit or SEQUENCES
    if trained.config.data.loss == "response":
        groups = _of_responses(trained, shards, sequences)
    else:
        groups = _of_files(trained, shards, sequences)
    return Result(
        suite="bits-per-byte",
        candidate=candidate.name,
        scores=[score for group, sums in groups.items() for score in _scores(dict(group), sums)],
        settings={"shards": str(shards), "split": "validation", "sequences a language, at most": sequences},
    )


def _of_files(trained: Trained, shards: Path, sequences: int) -> dict[tuple[tuple[str, str], ...], Sums]:
    by_language: dict[str, Sums] = {}
    by_model: dict[str, Sums] = defaultdict(lambda: (0.0, 0, 0))
    length = trained.config.data.sequence_length
    chosen = {
        language: (stream, first_sequences(stream, length, sequences))
        for language, stream in heldout_streams(trained, shards).items()
    }
    for text in score_heldout(trained, chosen):
        by_language[text.language] = _sums(text, np.ones(len(text.positions), bool))
        for model, sums in _by_model(text, trained.tokenizer):
            by_model[model] = _add((by_model[model], sums))
    return {
        **{(("language", language),): sums for language, sums in by_language.items()},
        **{(("model", model),): by_model[model] for model in sorted(by_model)},
        (): _add(by_language.values()),
    }


def _by_model(text: ScoredText, tokenizer: Tokenizer) -> Iterable[tuple[str, Sums]]:
    """The sums of each file, once for every programming model that it uses."""
    first, last = int(text.positions[0]), int(text.positions[-1]) + 1
    for file in heldout_files(text.stream, text.language, tokenizer, first, last):
        inside = (text.positions >= file.start) & (text.positions <= file.start + len(file.ends))
        for model in programming_models(file.content, text.language) or {SERIAL}:
            yield model, _sums(text, inside)


def _of_responses(trained: Trained, shards: Path, sequences: int) -> dict[tuple[tuple[str, str], ...], Sums]:
    """As training measures responses: each example in one piece, several in a sequence."""
    check_tokenizer(trained, shards)
    alone = Topology(world_size=1, rank=0, pipeline_stages=1)
    heldout = open_heldout(trained.config, trained.tokenizer, alone, sequences, shards, verify=True)
    device = next(trained.model.parameters()).device
    groups: dict[tuple[tuple[str, str], ...], Sums] = {}
    for language, part in heldout.items():
        nats = 0.0
        with torch.inference_mode():
            for batch in part.micro_batches:
                tokens, targets, boundaries = (tensor.to(device) for tensor in batch)
                nats += float(trained.model(tokens, boundaries, targets)) * targets.numel()
        groups[(("language", language),)] = nats, part.tokens, part.content_bytes
    return {**groups, (): _add(groups.values())}


def _sums(text: ScoredText, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Sums:
    return float(text.nats[which].sum()), int(which.sum()), int(text.sizes[which].sum())


def _add(parts: Iterable[Sums]) -> Sums:
    nats, tokens, size = 0.0, 0, 0
    for part in parts:
        nats, tokens, size = nats + part[0], tokens + part[1], size + part[2]
    return nats, tokens, size


def _scores(group: dict[str, str], sums: Sums) -> list[Score]:
    nats, tokens, size = sums
    return [
        Score(
            metric="bits per byte", value=nats / math.log(2) / size if size else None, count=size,
            unit="bytes", group=group, lower_is_better=True,
        ),
        Score(
            metric="nats per token", value=nats / tokens if tokens else None, count=tokens, unit="tokens",
            group=group, lower_is_better=True,
        ),
    ]  # fmt: skip
