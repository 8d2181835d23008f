"""Bits per byte on held-out files, by language: comparable across tokenizers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from hpctrain.errors import DataError
from hpctrain.loader.heldout import HeldOut, build_heldout
from hpctrain.model.transformer import Transformer, next_token_loss
from hpctrain.parallel.topology import Topology
from hpctrain.progress import Progress, progress
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.train.data import fim_tokens
from hpctrain.train.trained import Trained


def bits_per_byte(trained: Trained, shards: Path | None, sequences: int) -> list[dict[str, Any]]:
    """Score at most `sequences` held-out sequences of each language: a row each, and one for all.

    `shards` replaces those of the run; they must be made with the same tokenizer, else DataError.
    """
    directory = shards or trained.config.data.shards
    if read_shards_manifest(directory).inputs["tokenizer"] != trained.tokenizer.fingerprint:
        raise DataError(f"{directory}: made with another tokenizer than {trained.run}")
    heldout = build_heldout(
        open_streams(directory, "validation"), fim_tokens(trained.tokenizer), trained.tokenizer.token_bytes,
        Topology(world_size=1, rank=0, pipeline_stages=1), trained.config.data.sequence_length,
        trained.config.train.micro_batch_size, sequences,
    )  # fmt: skip
    total = sum(len(part.micro_batches) for part in heldout.values())
    rows = []
    with progress("evaluate", total, "batches") as bar:
        for language, part in heldout.items():
            nats = _sum_of_losses(trained.model, part, bar)
            rows.append(_row(language, nats, part.tokens, part.content_bytes))
    everything = [sum(row[key] for row in rows) for key in ("nats", "tokens", "bytes")]
    return [_public(row) for row in [*rows, _row("all", *everything)]]


def _sum_of_losses(model: Transformer, part: HeldOut, bar: Progress) -> float:
    nats = 0.0
    with torch.no_grad():
        for batch in part.micro_batches:
            loss = next_token_loss(model(batch.tokens, batch.boundaries), batch.targets)
            nats += float(loss) * batch.targets.numel()
            bar.advance()
    return nats


def _row(language: str, nats: float, tokens: int, content_bytes: int) -> dict[str, Any]:
    return {"language": language, "nats": nats, "tokens": tokens, "bytes": content_bytes}


def _public(row: dict[str, Any]) -> dict[str, Any]:
    """What a reader wants of a row: nats per token and bits per byte."""
    return {
        "language": row["language"], "bytes": row["bytes"], "tokens": row["tokens"],
        "loss": row["nats"] / max(1, row["tokens"]),
        "bits_per_byte": row["nats"] / math.log(2) / max(1, row["bytes"]),
    }  # fmt: skip
