"""The HTML of a corpus's page, as a Jinja template."""

from hpctrain.report.template import page_head

_STYLE = """\
h3 { margin: 1rem 0 0.4rem; font-size: 0.95rem; }
.sample { margin: 0.3rem 0 0.9rem; padding: 0.6rem 0.8rem; border: 1px solid var(--line); border-radius: 6px;
  max-height: 15rem; overflow: auto; }
.columns { display: grid; gap: 0 2.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); }
"""

CORPUS_PAGE = (
    page_head("{{ record.name }}: what is in the corpus", _STYLE)
    + """\
<body>
<main>
{% macro amounts(rows, head, total) %}
<table>
<thead><tr><th scope="col">{{ head }}</th><th scope="col" class="n">files</th>
<th scope="col" class="n">size</th><th scope="col" class="n">share</th></tr></thead>
<tbody>
{% for name, each in rows %}
<tr><th scope="row" class="wide">{{ name }}</th><td class="n">{{ each.files | count }}</td>
<td class="n">{{ each.bytes | size }}</td><td class="n">{{ share(each.bytes, total) }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endmacro %}
<header>
<h1>{{ record.name }}</h1>
<p class="muted">{{ subtitle }}</p>
</header>

<div class="tiles">
<div><b>{{ kept.files | count }}</b><span>documents, {{ kept.bytes | size }}</span></div>
<div><b>{{ seen.files | count }}</b><span>files seen, {{ seen.bytes | size }}</span></div>
<div><b>{{ duplicates.files | count }}</b><span>duplicates dropped, {{ duplicates.bytes | size }}</span></div>
<div><b>{{ contaminated.files | count }}</b><span>copies of benchmarks dropped</span></div>
<div><b>{{ secrets.values() | sum | count }}</b><span>secrets and addresses replaced</span></div>
</div>

<div class="pictures">
{% for each in pictures %}
<figure><picture>
<source media="(prefers-color-scheme: dark)" srcset="{{ each.dark }}">
<img alt="{{ each.text }}" src="{{ each.light }}">
</picture></figure>
{% endfor %}
</div>

<section>
<h2>By source</h2>
<table>
<thead><tr><th scope="col">source</th><th scope="col" class="n">seen</th><th scope="col" class="n">size</th>
<th scope="col" class="n">kept</th><th scope="col" class="n">size</th>
<th scope="col">dropped, by reason</th></tr></thead>
<tbody>
{% for row in sources %}
<tr><th scope="row" class="nowrap">{{ row.name }}</th><td class="n">{{ row.seen.files | count }}</td>
<td class="n">{{ row.seen.bytes | size }}</td><td class="n">{{ row.kept.files | count }}</td>
<td class="n">{{ row.kept.bytes | size }}</td><td class="wide muted">{{ row.dropped }}</td></tr>
{% endfor %}
</tbody>
</table>
{% if missing %}
<h3>Not there</h3>
<table>
{% for name, reason in missing.items() %}
<tr><th scope="row" class="narrow">{{ name }}</th><td class="wide">{{ reason }}</td></tr>
{% endfor %}
</table>
{% endif %}
</section>

<section>
<h2>By language and split</h2>
<table>
<thead><tr><th scope="col">language</th>
{% for split in splits %}
<th scope="col" class="n">{{ split }}</th><th scope="col" class="n">size</th>
{% if tokens %}<th scope="col" class="n">tokens</th>{% endif %}
{% endfor %}
<th scope="col" class="n">share</th></tr></thead>
<tbody>
{% for language, by_split, total in languages %}
<tr><th scope="row">{{ language }}</th>
{% for split in splits %}
<td class="n">{{ by_split[split].files | count if split in by_split else "" }}</td>
<td class="n">{{ by_split[split].bytes | size if split in by_split else "" }}</td>
{% if tokens %}
<td class="n">{{ tokens[split][language] | count if split in by_split else "" }}</td>
{% endif %}
{% endfor %}
<td class="n">{{ share(total.bytes, kept.bytes) }}</td></tr>
{% endfor %}
</tbody>
</table>
</section>

<section>
<h2>Licences and programming models</h2>
<div class="columns">
<div>{{ amounts(classes, "licence class", kept.bytes) }}
<h3></h3>
{{ amounts(models, "programming model", kept.bytes) }}
<p class="muted">A document that uses two models counts for both.</p></div>
<div>{{ amounts(licences, "licence", kept.bytes) }}</div>
</div>
</section>

<section>
<h2>What was dropped, and why</h2>
{{ amounts(dropped, "reason", seen.bytes) }}
</section>

<section>
<h2>Duplicates, benchmarks, secrets</h2>
<div class="columns">
<div>
{% if clusters %}
<table>
<thead><tr><th scope="col">document that stayed</th><th scope="col" class="n">copies dropped</th></tr></thead>
<tbody>
{% for each in clusters %}
<tr><td class="wide">{{ each.path }}</td><td class="n">{{ each.copies | count }}</td></tr>
{% endfor %}
</tbody>
</table>
{% else %}<p class="muted">No duplicates were found.</p>{% endif %}
</div>
<div>
{% if benchmarks %}
{{ amounts(benchmarks, "benchmark", seen.bytes) }}
{% else %}<p class="muted">No file was dropped as a copy of a benchmark.</p>{% endif %}
{% if secrets %}
<table>
<thead><tr><th scope="col">replaced</th><th scope="col" class="n">places</th></tr></thead>
<tbody>
{% for kind, number in secrets.items() %}
<tr><td>{{ kind }}</td><td class="n">{{ number | count }}</td></tr>
{% endfor %}
</tbody>
</table>
{% else %}<p class="muted">No secret or address was replaced.</p>{% endif %}
</div>
</div>
{% if removals %}
<details>
<summary>Files dropped as copies of benchmarks</summary>
<table>
{% for each in removals %}
<tr><td class="wide"><code>{{ each.source }}/{{ each.path }}</code></td>
<td class="wide">{{ each.detail }}</td></tr>
{% endfor %}
</table>
{% if contaminated.files > removals | length %}
<p class="muted">The first {{ removals | length }}; all are in the tables of verdicts.</p>
{% endif %}
</details>
{% endif %}
</section>

{% for reason, found in samples %}
<details>
<summary>{{ reason }}: how such files begin</summary>
{% for each in found %}
<h3><code>{{ each.source }}/{{ each.path }}</code> <span class="muted">{{ each.bytes | size }}</span></h3>
<pre class="sample">{{ each.text }}</pre>
{% endfor %}
</details>
{% endfor %}

<footer>Corpus {{ record.fingerprint }}. Of one file: <code>hpctrain corpus why DIR PATH</code>.
Written by hpctrain {{ version }}.</footer>
</main>
</body>
</html>
"""
)
