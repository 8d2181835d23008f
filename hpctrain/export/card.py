"""The model card: what the model is, what it was trained on, and how well it does."""

from __future__ import annotations

from jinja2 import Environment, StrictUndefined

from hpctrain.errors import DataError
from hpctrain.shards.reader import read_shards_manifest
from hpctrain.train.metrics import read_metrics
from hpctrain.train.trained import Trained

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [code, hpc]
---
# {{ name }}

A decoder of the Llama family with {{ "{:,}".format(parameters) }} parameters, trained from scratch on source
code with hpctrain: {{ "{:,}".format(tokens) }} tokens in {{ "{:,}".format(step) }} steps of sequences of
{{ sequence_length }} tokens.

{% if last -%}
Training loss at the last step: {{ "%.3f"|format(last.loss) }} nats per token.
{% endif %}
{% if bits -%}
## Held-out bits per byte

| language | bits per byte |
|---|---|
{% for language, value in bits.items() -%}
| {{ language }} | {{ "%.3f"|format(value) }} |
{% endfor %}
{% endif -%}
{% if data -%}
## Data

| language | documents | bytes | tokens |
|---|---|---|---|
{% for row in data -%}
| {{ row | join(" | ") }} |
{% endfor %}
Licences of the documents, by bytes:

| licence | bytes |
|---|---|
{% for licence, bytes in licences.items() -%}
| {{ licence }} | {{ "{:,}".format(bytes) }} |
{% endfor %}
{% else -%}
The shards this model was trained on are no longer where the run found them, so their shares are not told.
{% endif %}
## Prompt

    <document><language:LANGUAGE><file_name>PATH<content>CODE

Languages: {{ languages | join(", ") }}. Fill in the middle: `<fim_prefix>`, `<fim_suffix>`, `<fim_middle>`.
"""


def model_card(trained: Trained, name: str) -> str:
    """The card as Markdown, from the run's metrics and its shards' manifest."""
    lines = [line for line in read_metrics(trained.run) if line["step"] <= trained.checkpoint.state.step]
    evaluated = [line for line in lines if "bits_per_byte_by_language" in line]
    data, licences = _data(trained)
    template = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=False).from_string(_CARD)
    return template.render(
        name=name,
        parameters=trained.checkpoint.manifest.counts["parameters"],
        tokens=trained.checkpoint.state.tokens,
        step=trained.checkpoint.state.step,
        sequence_length=trained.config.data.sequence_length,
        last=lines[-1] if lines and "loss" in lines[-1] else None,
        bits=evaluated[-1]["bits_per_byte_by_language"] if evaluated else None,
        data=data,
        licences=licences,
        languages=sorted(trained.tokenizer.languages),
    )


def _data(trained: Trained) -> tuple[list[list[str]], dict[str, int]]:
    """Rows of training data by language, and bytes by licence; empty where the shards are gone."""
    try:
        counts = read_shards_manifest(trained.config.data.shards).counts
    except DataError:
        return [], {}
    rows = [
        [language, *(f"{counts[what]['train'][language]:,}" for what in ("documents", "bytes", "tokens"))]
        for language in sorted(counts["tokens"]["train"])
    ]
    return rows, dict(sorted(counts["licences"].items(), key=lambda item: -item[1]))
