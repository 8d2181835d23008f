"""The HTML of a report, as a Jinja template, and the style of all pages.

They are text of the program, so they travel in a module.
"""

STYLE = """\
:root { --paper: #fff; --page: #f4f5f7; --ink: #1d2530; --muted: #5b6675; --line: #e2e5ea; --accent: #0072b2;
  --good: #00734f; --warn: #9a5b00; --bad: #b3361b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161b22; --page: #0d1117; --ink: #e4e8ee; --muted: #98a3b1; --line: #2b323c;
    --accent: #56b4e9; --good: #2fbf96; --warn: #e6a823; --bad: #f4845f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 3rem; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 0.75rem; font-size: 1.05rem; }
p { margin: 0.4rem 0; }
.muted { color: var(--muted); }
.state { font-weight: 600; }
.finished { color: var(--good); } .running { color: var(--accent); }
.stopped, .interrupted { color: var(--warn); } .failed { color: var(--bad); }
.tiles { display: flex; flex-wrap: wrap; gap: 1px; overflow: hidden;
  margin: 1.5rem 0; background: var(--line); border: 1px solid var(--line); border-radius: 10px; }
.tiles div { flex: 1 1 170px; background: var(--paper); padding: 0.9rem 1.1rem; }
.tiles b { display: block; font-size: 1.45rem; font-weight: 600; letter-spacing: -0.01em; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tiles span { color: var(--muted); font-size: 0.85rem; }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }
figure, section, details { margin: 0; background: var(--paper); border: 1px solid var(--line);
  border-radius: 10px; overflow: hidden; }
figure { padding: 0.5rem; }
figure img { display: block; width: 100%; height: auto; }
section, details { margin-top: 1rem; padding: 1.1rem 1.25rem; overflow-x: auto; }
summary { font-weight: 600; cursor: pointer; }
details[open] summary { margin-bottom: 0.75rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--muted); font-weight: 500; }
th, td { padding: 0.38rem 0.9rem 0.38rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > * { border-bottom: 0; }
.n { text-align: right; white-space: nowrap; }
th[scope=row] { color: inherit; font-weight: 600; }
tfoot * { color: var(--muted); }
.wide { overflow-wrap: anywhere; }
.nowrap, .narrow { white-space: nowrap; }
.narrow { width: 1%; padding-right: 2rem; }
code, pre { font: 0.85rem/1.55 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 1.5rem; color: var(--muted); font-size: 0.85rem; }
"""
"""What pages look like, in light and in dark."""


def page_head(title: str, style: str = "") -> str:
    """The start of a page up to its body: `title` may hold template text, `style` adds to that of all pages.

    Nothing is fetched and no script runs, whatever the page shows.
    """
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{STYLE}{style}</style>
</head>
"""


PAGE = (
    page_head("{{ summary.name }}: what the run did")
    + """\
<body>
<main>
<header>
<h1>{{ summary.name }}</h1>
<p><span class="state {{ summary.state }}">{{ summary.state_text }}</span></p>
</header>

{% if summary.ranks is not none %}
<div class="tiles">
<div><b>{{ summary.parameters | count }}</b><span>parameters, {{ summary.precision }}</span></div>
<div><b>{{ summary.ranks }} &times; {{ summary.device }}</b><span>ranks, {{ summary.layout }}</span></div>
{% if summary.last_loss is not none %}
<div><b>{{ summary.first_loss | decimal(2) }} → {{ summary.last_loss | decimal(2) }}</b>
<span>training loss, nats per token</span></div>
<div><b>{{ summary.tokens_seen | count }}</b>
<span>training tokens in {{ summary.step_seconds_total | duration }}</span></div>
<div><b>{{ summary.tokens_per_second | count }}</b><span>tokens per second, median</span></div>
{% endif %}
<div><b>{{ summary.restarts | length }}</b>
<span>restarts, {{ summary.repeated_steps }} steps repeated</span></div>
</div>
{% endif %}

<div class="pictures">
{% for each in pictures %}
<figure><picture>
<source media="(prefers-color-scheme: dark)" srcset="{{ each.dark }}">
<img alt="{{ each.picture.text }}" src="{{ each.light }}">
</picture></figure>
{% endfor %}
</div>

{% if summary.languages %}
<section>
<h2>By language</h2>
<table>
<thead><tr><th scope="col">language</th>
<th scope="col" class="n">files</th><th scope="col" class="n">size</th>
<th scope="col" class="n">tokens</th><th scope="col" class="n">held-out files</th>
<th scope="col" class="n">nats per token</th><th scope="col" class="n">bits per byte</th>
<th scope="col" class="n">change</th></tr></thead>
<tbody>
{% for row in summary.languages %}
<tr><th scope="row">{{ row.language }}</th><td class="n">{{ row.documents | count }}</td>
<td class="n">{{ row.bytes | size }}</td><td class="n">{{ row.tokens | count }}</td>
<td class="n">{{ row.validation_documents | count }}</td>
<td class="n">{{ row.loss_before | decimal }} → {{ row.loss_after | decimal }}</td>
<td class="n">{{ row.bits_per_byte_before | decimal }} → {{ row.bits_per_byte_after | decimal }}</td>
<td class="n">{{ change(row.bits_per_byte_before, row.bits_per_byte_after) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if summary.evaluated_step is not none %}
<p class="muted">Loss and bits per byte are measured on held-out files that no step reads, at step 0
{%- if summary.evaluated_step %} → step {{ "{:,}".format(summary.evaluated_step) }}{% endif %}.
Files, size and tokens count the training split.</p>
{% endif %}
{% if summary.licences %}
<p class="muted">Licences by size:
{% for licence, bytes in (summary.licences | dictsort(by="value", reverse=true))[:12] %}
{{ licence }} {{ bytes | size }}{{ "" if loop.last else ", " }}
{% endfor %}
{% if summary.licences | length > 12 %}and {{ summary.licences | length - 12 }} more{% endif %}
</p>
{% endif %}
</section>
{% endif %}

{% if restarts %}
<section>
<h2>Restarts</h2>
<table>
{% for time, text in restarts %}
<tr><td class="narrow muted">{{ time }}</td><td>{{ text }}</td></tr>
{% endfor %}
</table>
{% if repeats %}
<p class="muted">{{ repeats }}, by the digest that each step records of its batch.</p>
{% endif %}
</section>
{% endif %}

<section>
<h2>Where it lies</h2>
<table>
{% for label, place in places %}
<tr><th scope="row" class="narrow">{{ label }}</th><td class="wide"><code>{{ place }}</code></td></tr>
{% endfor %}
<tr><th scope="row" class="narrow">shards</th>
<td class="wide"><code>{{ summary.shards or "" }}</code></td></tr>
{% if summary.versions %}
<tr><th scope="row" class="narrow">made with</th><td>
{% for name, version in summary.versions.items() %}
{{ name }} {{ version }}{{ "" if loop.last else ", " }}
{% endfor %}
</td></tr>
{% endif %}
</table>
{% if summary.shards_problem %}<p class="muted wide">{{ summary.shards_problem }}.</p>{% endif %}
</section>

{% if events %}
<details>
<summary>Events</summary>
<table>
<thead><tr><th scope="col">time</th><th scope="col">event</th><th scope="col">step</th>
<th scope="col">ranks</th>
<th scope="col">job</th><th scope="col">details</th></tr></thead>
<tbody>
{% for row in events %}
<tr><td class="nowrap muted">{{ row.time }}</td><td class="nowrap">{{ row.kind }}</td>
<td class="nowrap">{{ row.steps }}</td><td>{{ row.ranks }}</td><td>{{ row.job }}</td>
<td class="wide">{{ row.details }}</td></tr>
{% endfor %}
</tbody>
</table>
</details>
{% endif %}

<details>
<summary>Config, as resolved</summary>
<pre>{{ config }}</pre>
</details>

<footer>Written by hpctrain {{ version }}.</footer>
</main>
</body>
</html>
"""
)
