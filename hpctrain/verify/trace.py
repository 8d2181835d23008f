"""Which files a step of a run was trained on, proven by the digest that the run recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpctrain.config import load_config
from hpctrain.errors import ConfigError, DataError
from hpctrain.loader.batches import digest_of
from hpctrain.loader.mixture import build_pools, make_plans
from hpctrain.loader.trace import Traced, trace
from hpctrain.shards.layout import TOKENIZER_DIRECTORY
from hpctrain.shards.reader import open_streams, read_shards_manifest
from hpctrain.tokenizer.codec import Tokenizer
from hpctrain.train.config import RunConfig
from hpctrain.train.data import open_reader
from hpctrain.train.metrics import read_metrics
from hpctrain.train.rundir import CONFIG_NAME


@dataclass(frozen=True)
class StepTrace:
    """What a step saw."""

    step: int
    first_sample: int
    samples: int
    digest: str
    """As metrics.jsonl has it and as the traced sequences give it."""
    documents: list[Traced]


def trace_step(run: Path, step: int, shards: Path | None = None) -> StepTrace:
    """Trace one step of a run from its config, its metrics and its shards.

    `shards` replaces the directory that the run names, where they have moved. Raises ConfigError for a step
    that the run has not done, DataError if the traced sequences are not those that the step saw.
    """
    if not (run / CONFIG_NAME).is_file():
        raise DataError(f"{run}: not a run directory (no {CONFIG_NAME})")
    record = load_config(run / CONFIG_NAME, [], RunConfig)
    config = record.data.model_copy(update={"shards": shards} if shards else {})
    first, count, digest = _find_step(run, step, config.sequence_length)
    manifest = read_shards_manifest(config.shards)
    tokenizer = Tokenizer.load(config.shards / TOKENIZER_DIRECTORY)
    if config.packing == "best_fit":
        make_plans(build_pools(open_streams(config.shards, "train", verify=False), config), config, manifest)
    _, reader = open_reader(config, manifest, tokenizer, record.run.seed)
    samples = np.arange(first, first + count, dtype=np.int64)
    found = f"{digest_of(samples, reader.read(samples)):016x}"
    if found != digest:
        raise DataError(
            f"{run}: step {step} saw a batch of digest {digest}, but {config.shards} and {CONFIG_NAME} give "
            f"{found}: they are not those that the step was trained with"
        )
    return StepTrace(step, first, count, digest, list(trace(reader, samples, tokenizer)))


def _find_step(run: Path, step: int, sequence_length: int) -> tuple[int, int, str]:
    """First sample of a step, its number of samples, and its digest, from the tokens that steps had seen."""
    records = {record["step"]: record for record in read_metrics(run)}
    done = [number for number, record in records.items() if "batch_digest" in record]
    if step not in done:
        upto = f"has steps 1 to {max(done)}" if done else "has done no step yet"
        raise ConfigError(f"--step: {run} {upto}, not {step}")
    before = records.get(step - 1, {}).get("tokens", 0) if step > 1 else 0
    if step > 1 and not before:
        raise DataError(
            f"{run}: metrics.jsonl has lost the line of step {step - 1}, after which {step} began"
        )
    first, last = before // sequence_length, records[step]["tokens"] // sequence_length
    return first, last - first, records[step]["batch_digest"]
