"""What a run did, as numbers and as one screen of text."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, read_manifest
from hpctrain.report.record import RunRecord, Start, describe_layout, find_legs, find_starts, read_run
from hpctrain.shards.layout import SHARDS_FORMAT, SHARDS_KIND
from hpctrain.train.profile import PROFILE_NAME
from hpctrain.train.rundir import ORIGIN_NAME

State = Literal["finished", "stopped", "failed", "running", "interrupted"]


@dataclass(frozen=True)
class LanguageSummary:
    """One language: what the run could read of it, and what the model makes of text it never read.

    Counts are None where the shards are gone, losses where there was no evaluation.
    """

    language: str
    documents: int | None
    """Documents of the training split."""
    bytes: int | None
    """Their size before tokenization."""
    tokens: int | None
    """Their tokens."""
    validation_documents: int | None
    """Documents of the held-out split."""
    loss_before: float | None
    """Held-out loss at step 0, nats per token."""
    loss_after: float | None
    """The same at the latest evaluation."""
    bits_per_byte_before: float | None
    """Held-out bits per byte at step 0."""
    bits_per_byte_after: float | None
    """The same at the latest evaluation."""


@dataclass(frozen=True)
class Summary:
    """The numbers of a run. What is not known yet, or no longer, is None."""

    name: str
    directory: str
    state: State
    """`interrupted`: no job holds the directory, and no end was recorded."""
    state_text: str
    """The state in words."""
    step: int
    """Optimizer steps done."""
    steps: int | None
    """Optimizer steps of the whole run."""
    parameters: int | None
    precision: str | None
    device: str | None
    ranks: int | None
    """World size of the latest start."""
    layout: str | None
    """ZeRO stage and pipeline stages of the latest start."""
    versions: dict[str, str]
    """Versions of hpctrain and what it runs on, at the latest start."""
    first_loss: float | None
    """Training loss of the first step, nats per token."""
    last_loss: float | None
    """Training loss of the latest step, nats per token."""
    tokens_seen: int | None
    """Training tokens up to the latest step."""
    epochs: dict[str, float]
    """How often the training text of each source has been seen up to the latest step; of each part of the
    mixture where the shards do not know sources. Empty where the run did not tell."""
    tokens_per_second: float | None
    """Median over the steps since the ranks or the layout last changed, all ranks together."""
    mfu: float | None
    """The same of the share of the devices' peak, by 6 P + 12 L D S; None where the peak was not known."""
    mfu_causal: float | None
    """The same with half of the attention's products."""
    data_wait_share: float | None
    """Of the time in these steps, the share that a rank waited for data; None where the run did not tell."""
    step_seconds_total: float
    """Time in steps that count, without start-up, evaluation and saves."""
    evaluated_step: int | None
    """Step of the latest evaluation."""
    languages: tuple[LanguageSummary, ...]
    """In alphabetical order."""
    licences: dict[str, int]
    """Bytes of the corpus by licence."""
    shards: str | None
    shards_problem: str | None
    """Why counts of documents are missing, if they are."""
    restarts: tuple[Start, ...]
    """Every start but the first."""
    repeated_steps: int
    """Steps that were done more than once."""
    repeats_saw_same_data: bool | None
    """Whether each repeated step read the same tokens as before; None if none was repeated."""
    checkpoint: str | None
    """The newest committed checkpoint."""
    export: str | None
    """The newest export."""
    report: str | None
    """The newest HTML report in the run directory."""
    profile: str | None
    """Where traces of steps lie, if some were taken."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, ready for JSON."""
        return asdict(self)


def print_summary(run: Path) -> None:
    """Print what a run did on stdout: one screen of at most 40 lines, 100 columns wide.

    Raises DataError if `run` is not the directory of a run.
    """
    from hpctrain.report.screen import show  # rich is slow to import

    show(summarize(run))


def summarize(run: Path) -> Summary:
    """Everything the report says in numbers about the run in a directory.

    Raises DataError if it is not the directory of a run.
    """
    return summarize_record(read_run(run))


def summarize_record(record: RunRecord) -> Summary:
    """The same of a run that has been read."""
    start = (record.events_of("start") or [{}])[-1]
    losses = record.series("loss")[1]
    tokens, evaluations = record.series("tokens")[1], _evaluations(record)
    shards, shards_problem = _read_shards(record)
    repeated, same_data = _repeats(record)
    state, state_text = _state(record)
    return Summary(
        name=str(record.setting("run.name") or record.directory.name),
        directory=str(record.directory),
        state=state,
        state_text=state_text,
        step=record.step,
        steps=record.setting("train.steps"),
        parameters=start.get("parameters"),
        precision=start.get("precision"),
        device=start.get("device"),
        ranks=start.get("world_size"),
        layout=describe_layout(start) if start else None,
        versions=start.get("versions", {}),
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        tokens_seen=int(tokens[-1]) if tokens else None,
        epochs=_epochs(record, start),
        tokens_per_second=_median(record, "tokens_per_second"),
        mfu=_median(record, "mfu"),
        mfu_causal=_median(record, "mfu_causal"),
        data_wait_share=_data_wait_share(record),
        step_seconds_total=sum(record.series("step_seconds")[1]),
        evaluated_step=evaluations[-1]["step"] if evaluations else None,
        languages=_languages(evaluations, shards),
        licences=shards.counts.get("licences", {}) if shards else {},
        shards=record.setting("data.shards"),
        shards_problem=shards_problem,
        restarts=tuple(find_starts(record)[1:]),
        repeated_steps=repeated,
        repeats_saw_same_data=same_data,
        **_places(record),
    )


def _epochs(record: RunRecord, start: dict[str, Any]) -> dict[str, float]:
    """What the latest start foresaw for the whole run, up to the latest step."""
    foreseen: dict[str, float] = start.get("source_epochs") or start.get("epochs") or {}
    done = record.step / max(1, record.setting("train.steps") or 1)
    return {name: round(epochs * done, 4) for name, epochs in foreseen.items()}


def _latest(record: RunRecord, name: str) -> dict[int, float]:
    """One number by step, of the steps under the present ranks and layout."""
    began = max((step for step, _ in find_legs(record)), default=0)
    values = dict(zip(*record.series(name), strict=True))
    return {step: value for step, value in values.items() if step > began} or values


def _median(record: RunRecord, name: str) -> float | None:
    values = _latest(record, name).values()
    return statistics.median(values) if values else None


def _data_wait_share(record: RunRecord) -> float | None:
    """By the seconds of the steps: a loader that stalls now and then has a median of nothing."""
    shares, seconds = _latest(record, "data_wait_share"), _latest(record, "step_seconds")
    told = {step: seconds[step] for step in shares if step in seconds}
    total = sum(told.values())
    return sum(shares[step] * took for step, took in told.items()) / total if total else None


def _state(record: RunRecord) -> tuple[State, str]:
    """Where the run stands, from the last start, stop or fault and from whether a job holds it."""
    if (record.directory / ORIGIN_NAME).is_file() and not record.events_of("start"):
        return "finished", "imported, not trained here"
    last = (record.events_of("start", "stop", "fault") or [{}])[-1]
    place = f"step {record.step:,} of {record.setting('train.steps') or 0:,}"
    if record.is_held:
        return "running", f"running, {place}"
    if last.get("event") == "fault":
        return (
            "failed",
            f"failed after {place}: loss {last.get('loss')}, gradient norm {last.get('grad_norm')}",
        )
    if last.get("event") == "stop":
        if last.get("reason") == "finished":
            return "finished", f"finished, {place}"
        return "stopped", f"stopped at {place}, saved: the same command goes on"
    return "interrupted", f"interrupted at {place}: no end recorded, the same command goes on"


def _evaluations(record: RunRecord) -> list[dict[str, Any]]:
    return [line for line in record.metrics if line.get("bits_per_byte_by_language")]


def _read_shards(record: RunRecord) -> tuple[Manifest | None, str | None]:
    """The manifest of the run's shards, or why its counts cannot be told."""
    shards = record.setting("data.shards")
    if not shards:
        return None, "the config names no shards"
    try:
        manifest = read_manifest(Path(shards), SHARDS_KIND, SHARDS_FORMAT)
    except DataError:
        state = "not readable" if Path(shards).exists() else "gone"
        return None, f"{shards}: these shards are {state}, so documents cannot be counted"
    except OSError as reason:
        return None, f"{shards}: {reason.strerror}, so documents cannot be counted"
    if _trained_on(record) not in (None, manifest.fingerprint):
        return None, f"{shards}: these are no longer the shards that the run read, so they are not counted"
    return manifest, None


def _trained_on(record: RunRecord) -> str | None:
    """Fingerprint of the shards that the newest checkpoint was trained on, if it tells."""
    checkpoint = record.newest_checkpoint()
    if checkpoint is None:
        return None
    try:
        text = (checkpoint / "manifest.json").read_text(encoding="utf-8")
        return Manifest.model_validate_json(text).inputs.get("data.shards")
    except (OSError, ValueError):
        return None


def _languages(evaluations: list[dict[str, Any]], shards: Manifest | None) -> tuple[LanguageSummary, ...]:
    counts = shards.counts if shards else {}
    before = evaluations[0] if evaluations and evaluations[0]["step"] == 0 else {}
    after = evaluations[-1] if evaluations and evaluations[-1]["step"] > 0 else {}
    names = {name for evaluation in evaluations for name in evaluation["bits_per_byte_by_language"]}
    names |= {name for split in counts.get("documents", {}).values() for name in split}

    def counted(what: str, split: str, language: str) -> int | None:
        return counts[what].get(split, {}).get(language, 0) if what in counts else None

    def measured(evaluation: dict[str, Any], what: str, language: str) -> float | None:
        value: float | None = evaluation.get(what, {}).get(language)
        return value

    return tuple(
        LanguageSummary(
            language=name,
            documents=counted("documents", "train", name),
            bytes=counted("bytes", "train", name),
            tokens=counted("tokens", "train", name),
            validation_documents=counted("documents", "validation", name),
            loss_before=measured(before, "loss_by_language", name),
            loss_after=measured(after, "loss_by_language", name),
            bits_per_byte_before=measured(before, "bits_per_byte_by_language", name),
            bits_per_byte_after=measured(after, "bits_per_byte_by_language", name),
        )
        for name in sorted(names)
    )


def _repeats(record: RunRecord) -> tuple[int, bool | None]:
    """How many steps were done more than once, and whether each saw the same data every time."""
    digests = defaultdict(list)
    for line in record.lines:
        if "batch_digest" in line:
            digests[line["step"]].append(line["batch_digest"])
    repeated = [seen for seen in digests.values() if len(seen) > 1]
    return len(repeated), all(len(set(seen)) == 1 for seen in repeated) if repeated else None


def _places(record: RunRecord) -> dict[str, str | None]:
    """Where the newest checkpoint, export and report lie, and the traces."""
    checkpoint = record.newest_checkpoint()
    exports = [event["path"] for event in record.events_of("export") if "path" in event]
    reports = sorted(record.directory.glob("*.html"), key=lambda path: path.stat().st_mtime)
    traces = list((record.directory / PROFILE_NAME).glob("*.json.gz"))
    return {
        "checkpoint": str(checkpoint) if checkpoint else None,
        "export": str(exports[-1]) if exports else None,
        "report": str(reports[-1]) if reports else None,
        "profile": str(record.directory / PROFILE_NAME) if traces else None,
    }
