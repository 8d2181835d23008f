"""The model card: what the model is, what it was trained on, how, and how well it does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from hpctrain.errors import DataError
from hpctrain.export.card_template import CARD
from hpctrain.export.chat import control_pieces, document_head
from hpctrain.export.source import Source
from hpctrain.manifest import Manifest
from hpctrain.progress import say
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.metrics import EVENTS_NAME, METRICS_NAME, read_events, read_metrics
from hpctrain.train.rundir import ORIGIN_NAME
from hpctrain.train.trained import find_origin

EVALUATIONS_NAME = "evaluations"
_SMALLEST_SHARE = 0.001


def model_card(
    source: Source, name: str, format: str, dtype: str, facts: Mapping[str, Any] | None = None
) -> str:
    """The card as Markdown, from the run's metrics, events and evaluations, and from its shards' manifest.

    `facts` are what a format adds: `base`, the model that adapters belong to, and `file`, the file to load.
    """
    step = source.whole.state.step
    lines = [line for line in _metrics(source.run) if line["step"] <= step]
    evaluated = [line for line in lines if "bits_per_byte_by_language" in line]
    shards = _shards(source)
    template = Environment(
        autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(CARD)
    return template.render(
        name=name,
        format=format,
        dtype=dtype,
        facts={"base": None, "file": None} | dict(facts or {}),
        config=source.config,
        parameters=source.parameters,
        context=source.context,
        step=step,
        tokens=source.whole.state.tokens,
        started_from=source.config.run.start_from,
        origin=find_origin(source.run),
        is_import=(source.run / ORIGIN_NAME).is_file(),
        pieces=control_pieces(source.tokenizer),
        head=document_head(source.tokenizer, "LANGUAGE", "PATH"),
        is_chat=source.config.data.template == "chat",
        training=_training(source.run, lines),
        bits=evaluated[-1]["bits_per_byte_by_language"] if evaluated else {},
        languages_of_data=_languages(shards),
        licences=_licences(shards),
        evaluations=list(read_evaluations(source.run)),
        languages=sorted(source.tokenizer.languages),
    )


def _metrics(run: Path) -> list[dict[str, Any]]:
    return read_metrics(run) if (run / METRICS_NAME).is_file() else []


def _training(run: Path, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of the training: last loss, time in steps, energy where it was measured, latest layout."""
    events = read_events(run) if (run / EVENTS_NAME).is_file() else []
    start = ([event for event in events if event.get("event") == "start"] or [{}])[-1]
    layout = start.get("layout", {})
    joules = [line["energy_joules"] for line in lines if isinstance(line.get("energy_joules"), (int, float))]
    return {
        "loss": next((line["loss"] for line in reversed(lines) if "loss" in line), None),
        "hours": sum(line.get("step_seconds", 0.0) for line in lines) / 3600,
        "kilowatt_hours": sum(joules) / 3.6e6 if joules else None,
        "ranks": start.get("world_size"),
        "device": start.get("device"),
        "precision": start.get("precision"),
        "zero_stage": layout.get("zero_stage"),
        "pipeline_stages": layout.get("pipeline_stages"),
        "versions": start.get("versions", {}),
    }


def _shards(source: Source) -> Manifest | None:
    """The manifest of the shards that the run read; None where they are gone or others lie there now."""
    try:
        manifest = read_shards_manifest(source.config.data.shards)
    except DataError:
        return None
    trained_on = source.whole.manifest.inputs.get("data.shards")
    return manifest if trained_on in (None, manifest.fingerprint) else None


def _languages(shards: Manifest | None) -> list[dict[str, Any]]:
    """Documents, bytes, tokens and the share of tokens of each language's training text."""
    if shards is None:
        return []
    counts = {what: shards.counts[what].get("train", {}) for what in ("documents", "bytes", "tokens")}
    total = max(1, sum(counts["tokens"].values()))
    return [
        {"language": language, "share": counts["tokens"][language] / total}
        | {what: counts[what].get(language, 0) for what in counts}
        for language in sorted(counts["tokens"])
    ]


def _licences(shards: Manifest | None) -> list[tuple[str, int, float]]:
    """Licence, bytes and share, the largest first; those below a thousandth are summed up."""
    sizes: dict[str, int] = shards.counts.get("licences", {}) if shards is not None else {}
    total = max(1, sum(sizes.values()))
    rows = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    large = [(name, size) for name, size in rows if size / total >= _SMALLEST_SHARE]
    rest = sum(size for _, size in rows[len(large) :])
    others = [(f"{len(rows) - len(large)} others", rest)] if rest else []
    return [(name, size, size / total) for name, size in [*large, *others]]


def read_evaluations(run: Path) -> Iterable[dict[str, Any]]:
    """A table for each suite in RUN/evaluations: scores in rows, the model and its yardsticks in columns.

    A file that is not a list of results is left out, and that is said.
    """
    for path in sorted((run / EVALUATIONS_NAME).glob("*.json")):
        try:
            yield _table(json.loads(path.read_text(encoding="utf-8")), path.stem)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as reason:
            say(f"warning: {path} is not an evaluation's result ({reason!r}); the card goes without it")


def _table(results: list[dict[str, Any]], suite: str) -> dict[str, Any]:
    """Of the results of one suite; that of a run is the one whose settings tell a step."""
    steps = [result.get("settings", {}).get("step") for result in results]
    columns = [
        result["candidate"] if step is None else "this model"
        for result, step in zip(results, steps, strict=True)
    ]
    rows: dict[str, dict[str, str]] = {}
    for column, result in zip(columns, results, strict=True):
        for score in result["scores"]:
            what = ", ".join(f"{key} {value}" for key, value in score.get("group", {}).items())
            label = f"{score['metric']} ({what})" if what else score["metric"]
            value = "-" if score["value"] is None else f"{score['value']:.3f}"
            rows.setdefault(label, {})[column] = f"{value} of {score['count']:,} {score['unit']}"
    return {
        "suite": suite,
        "step": next((step for step in steps if step is not None), None),
        "columns": columns,
        "rows": [[label, *(values.get(name, "-") for name in columns)] for label, values in rows.items()],
    }
