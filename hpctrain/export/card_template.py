"""The model card's text, as a Jinja template."""

CARD = """\
---
library_name: {{ "peft" if format == "peft" else "transformers" }}
pipeline_tag: text-generation
tags: [code, hpc{{ ", gguf" if format == "gguf" }}{{ ", lora" if format == "peft" }}]
{% if facts.base %}
base_model: {{ facts.base }}
{% endif %}
---
# {{ name }}

{% if is_import %}
`{{ origin.name }}` as it was imported, a decoder of the Llama family with {{ "{:,}".format(parameters) }} \
parameters.
{% elif facts.base %}
LoRA adapters for `{{ facts.base }}`, trained on source code with hpctrain.
{% elif started_from %}
A decoder of the Llama family with {{ "{:,}".format(parameters) }} parameters, trained further from \
`{{ started_from }}` with hpctrain\
{{ ", with LoRA adapters of rank %d that are merged here"|format(config.adapter.rank) if config.adapter }}.
{% else %}
A decoder of the Llama family with {{ "{:,}".format(parameters) }} parameters, trained from scratch on source
code with hpctrain.
{% endif %}
{% if origin %}
It descends from `{{ origin.name }}`, whose licence is {{ origin.licence or "not stated in its card" }}.
{% endif %}
Weights are in {{ dtype }}{{ ", in `%s`"|format(facts.file) if facts.file }}.

{% if not is_import %}
## Training

| | |
|---|---|
| steps | {{ "{:,}".format(step) }} of {{ config.train.global_batch_size }} sequences of {{ context }} \
tokens |
| tokens | {{ "{:,}".format(tokens) }} |
{% if training.loss is not none %}
| loss at the last step | {{ "%.3f"|format(training.loss) }} nats per token |
| time in steps | {{ "%.2f"|format(training.hours) }} hours |
| optimizer | {{ "AdamW" if config.optimizer.kind == "adamw" else "Muon and AdamW" }}, \
learning rate {{ config.optimizer.learning_rate }} ({{ config.schedule.kind }}) |
{% endif %}
{% if training.ranks %}
| ranks at the end | {{ training.ranks }} ({{ training.device }}, {{ training.precision }}), \
ZeRO {{ training.zero_stage }}, {{ training.pipeline_stages }} pipeline stages |
{% endif %}
| energy | {{ "%.3f kWh"|format(training.kilowatt_hours) if training.kilowatt_hours is not none \
else "not measured" }} |
{% for package, version in training.versions.items() %}
| {{ package }} | {{ version }} |
{% endfor %}

{% if bits or evaluations %}
## Evaluation

{% endif %}
{% if bits %}
On files that no step read, measured during training:

| language | bits per byte |
|---|---|
{% for language, value in bits.items() %}
| {{ language }} | {{ "%.3f"|format(value) }} |
{% endfor %}

{% endif %}
{% for table in evaluations %}
Suite `{{ table.suite }}`{{ " at step {:,}".format(table.step) if table.step is not none }}:

| score | {{ table.columns | join(" | ") }} |
|---|{{ "---|" * table.columns|length }}
{% for row in table.rows %}
| {{ row | join(" | ") }} |
{% endfor %}

{% endfor %}
## Data

{% if languages_of_data %}
| language | documents | bytes | tokens | share of tokens |
|---|---|---|---|---|
{% for row in languages_of_data %}
| {{ row.language }} | {{ "{:,}".format(row.documents) }} | {{ "{:,}".format(row.bytes) }} | \
{{ "{:,}".format(row.tokens) }} | {{ "{:.2%}".format(row.share) }} |
{% endfor %}
{% if config.data.mixture %}

Drawn by weights of its own, not in these shares: \
{% for name, weight in config.data.mixture.items() %}{{ name }} {{ "%g"|format(weight) }}\
{{ ", " if not loop.last }}{% endfor %}.
{% endif %}
{% if licences %}

| licence | bytes | share |
|---|---|---|
{% for licence, bytes, share in licences %}
| {{ licence }} | {{ "{:,}".format(bytes) }} | {{ "{:.2%}".format(share) }} |
{% endfor %}
{% endif %}
{% else %}
The shards this model was trained on are no longer where the run found them, so their shares are not told.
{% endif %}
{% endif %}

## Prompt

    {{ head }}CODE

Languages: {{ languages | join(", ") }}. Fill in the middle: `{{ pieces.fim_prefix }}`, \
`{{ pieces.fim_suffix }}`, `{{ pieces.fim_middle }}`.
{% if is_chat %}
Requests: by the tokenizer's chat template, with `language` and `path` besides the messages.
{% endif %}
"""
