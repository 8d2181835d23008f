"""The HTML of an evaluation's page, as a Jinja template."""

from hpctrain.report.template import page_head

_STYLE = """\
h3 { margin: 1rem 0 0.4rem; font-size: 0.95rem; }
.sample { margin: 0.3rem 0 0.9rem; padding: 0.6rem 0.8rem; border: 1px solid var(--line); border-radius: 6px;
  max-height: 22rem; overflow: auto; }
.sides { display: grid; gap: 0 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
details details { margin-left: 1rem; }
"""

EVALUATION_PAGE = (
    page_head("{{ title }}: evaluation", _STYLE)
    + """\
<body>
<main>
<header>
<h1>{{ title }}</h1>
<p class="muted">{{ subtitle }}</p>
</header>

{% for suite in suites %}
<section>
<h2>{{ suite.name }}</h2>
<div class="pictures">
{% for each in suite.pictures %}
<figure><picture>
<source media="(prefers-color-scheme: dark)" srcset="{{ each.dark }}">
<img alt="{{ each.text }}" src="{{ each.light }}">
</picture></figure>
{% endfor %}
</div>
<table>
<thead><tr><th scope="col">score</th><th scope="col" class="n">rests on</th>
{% for name in suite.candidates %}
<th scope="col" class="n">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in suite.rows %}
<tr><th scope="row">{{ row.name }}</th><td class="n">{{ row.count | count }} {{ row.unit }}</td>
{% for value in row.values %}
<td class="n">{{ value }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
{% if suite.tokens_per_second %}
<p class="muted">The model wrote {{ suite.tokens_per_second | count }} tokens a second.</p>
{% endif %}
{% if suite.settings %}
<details><summary>Settings</summary>
<table>
{% for name, value in suite.settings.items() %}
<tr><th scope="row">{{ name }}</th><td class="wide">{{ value }}</td></tr>
{% endfor %}
</table></details>
{% endif %}
{% if suite.skipped %}
<details><summary>Problems left out: {{ suite.skipped | length }}</summary>
<table>
{% for name, reason in suite.skipped.items() %}
<tr><th scope="row">{{ name }}</th><td class="wide">{{ reason }}</td></tr>
{% endfor %}
</table></details>
{% endif %}
{% for verdict, total, found in suite.samples %}
<details><summary>{{ verdict }}: {{ total }}{{ ", of which " ~ (found | length) ~ " are shown"
  if found | length < total else "" }}</summary>
{% for each in found %}
<details><summary><code>{{ each.problem }}</code>
<span class="muted">{{ each.language }}, {{ each.programming_model }}{{ each.told }}</span></summary>
<div class="sides">
<div><h3>Prompt</h3><pre class="sample">{{ each.prompt }}</pre></div>
<div><h3>Answer</h3><pre class="sample">{{ each.answer }}</pre></div>
</div>
{% if each.detail %}
<h3>What was said of it</h3><pre class="sample">{{ each.detail }}</pre>
{% endif %}
</details>
{% endfor %}
</details>
{% endfor %}
</section>
{% endfor %}

<footer>Written by hpctrain {{ version }}.</footer>
</main>
</body>
</html>
"""
)
