"""Content rules on real packages: what each drops, what thresholds are chosen by, how fast each step is."""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import xxhash

from bench.table import Row, row
from hpctrain.config import load_config
from hpctrain.corpus.benchmarks import BenchmarkConfig
from hpctrain.corpus.build import CorpusConfig
from hpctrain.corpus.contamination import Benchmarks, ContaminationConfig
from hpctrain.corpus.filters import Filter, FilterConfig, letter_share, make_filters, table_share
from hpctrain.corpus.languages import find_language, may_be_kept
from hpctrain.corpus.secrets import scrub
from hpctrain.errors import DataError
from hpctrain.report.ledger_data import excerpt

ROOT = Path(__file__).parents[1]
CONFIGS = [ROOT / "configs/corpus/debian-hpc.yaml", ROOT / "configs/corpus/installed.yaml"]
KERNELS = BenchmarkConfig(name="kernels", path=str(ROOT / "examples/kernels"))
MARK = "<!-- Below: written by python -m bench filters --page. -->\n"
SAMPLES, SAMPLES_OF_A_SOURCE, SAMPLE_LINES = 6, 2, 6
TIMED_BYTES = 16 << 20
TIMED_PARTS = 3
PERCENTILES = (0.1, 1, 50, 99, 99.9)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configs", type=Path, nargs="+", default=CONFIGS, help="corpus configs")
    parser.add_argument("--page", type=Path, help="write what was dropped into this Markdown page")


@dataclass
class Findings:
    """What was seen of all files."""

    files: Counter[str] = field(default_factory=Counter)
    """By language."""
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By reason and language."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes dropped by reason."""
    samples: dict[tuple[str, str], list[tuple[int, str, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By reason and source: place in the order of hashes, path, how the file begins."""
    measures: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """By measure and language, of files that say of themselves that nobody generated them."""
    timed: list[tuple[str, str, bytes]] = field(default_factory=list)


def measure(options: argparse.Namespace) -> list[Row]:
    """Judge every file of the sources, then time the steps on some of them."""
    rules = make_filters(FilterConfig())
    found = Findings()
    size = 0
    for path, content in _files(options.configs):
        language = find_language(path, content)
        if language is None:
            continue
        _judge(found, rules, path, content, language)
        if size < TIMED_BYTES and xxhash.xxh3_64_intdigest(path.encode()) % 8 == 0:
            found.timed.append((path, language, content))
            size += len(content)
    if options.page:
        text = options.page.read_text(encoding="utf-8")
        options.page.write_text(text.partition(MARK)[0] + MARK + _page(found), encoding="utf-8")
    rows = [row("dropped", reason, "files", [sum(n for (r, _), n in found.dropped.items() if r == reason)])
            for reason in sorted(found.sizes)]  # fmt: skip
    return [*rows, *_speeds(found.timed, rules)]


def _files(configs: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Every file of the sources that could be kept by its name, once for each content."""
    seen: set[bytes] = set()
    for config in configs:
        for settings in load_config(config, [], CorpusConfig).sources:
            try:
                units = settings.open().units()
            except DataError as reason:
                print(f"{settings.name} is left out: {reason}")
                continue
            for entry in (entry for unit in units for entry in unit.entries()):
                if not entry.problem and may_be_kept(entry.path) and entry.size <= FilterConfig().max_bytes:
                    content = entry.read()
                    digest = xxhash.xxh3_128_digest(content)
                    if digest not in seen:
                        seen.add(digest)
                        yield f"{settings.name}/{entry.path}", content


def _judge(found: Findings, rules: list[Filter], path: str, content: bytes, language: str) -> None:
    found.files[language] += 1
    reason = next((rule.reason for rule in rules if not rule.keeps(content, language)), None)
    if reason:
        found.dropped[reason, language] += 1
        found.sizes[reason] += len(content)
        place = xxhash.xxh3_64_intdigest(path.encode())
        of_source = found.samples[reason, path.partition("/")[0]]
        of_source.append((place, path, excerpt(content, SAMPLE_LINES)))
        of_source.sort()
        del of_source[SAMPLES_OF_A_SOURCE:]
    if reason != "generated" and content.strip():
        lines = content.splitlines()
        found.measures["longest line", language].append(max(map(len, lines)))
        found.measures["mean line", language].append(len(content) / len(lines))
        found.measures["letter share", language].append(letter_share(content))
        if letter_share(content) < 0.35:
            found.measures["table share, where letters are under 0.35", language].append(
                table_share(content, language)
            )


def _page(found: Findings) -> str:
    total = sum(found.files.values())
    lines = [
        f"\n## What was dropped\n\nOf {total:,} different files:\n",
        "| reason | files | share | MB | by language |",
    ]
    lines.append("|---|---|---|---|---|")
    for reason, size in sorted(found.sizes.items(), key=lambda item: -item[1]):
        languages = {language: n for (r, language), n in found.dropped.items() if r == reason}
        number = sum(languages.values())
        said = ", ".join(f"{name} {n}" for name, n in sorted(languages.items(), key=lambda item: -item[1]))
        lines.append(f"| {reason} | {number:,} | {number / total:.2%} | {size / 1e6:.2f} | {said} |")
    heads = " | ".join(f"{p:g} %" for p in PERCENTILES)
    lines += [
        "\n## What the thresholds are measured against\n",
        "Percentiles over files that are not generated.\n",
    ]
    lines += [f"| measure | language | files | {heads} |", "|---|---|---|" + "---|" * len(PERCENTILES)]
    for (name, language), values in sorted(found.measures.items()):
        if len(values) >= 10:
            figures = " | ".join(f"{value:.3g}" for value in np.percentile(values, PERCENTILES))
            lines.append(f"| {name} | {language} | {len(values):,} | {figures} |")
    lines.append(
        "\n## Samples\n\nChosen by a hash of the path. The first lines of each file, addresses replaced.\n"
    )
    for reason in sorted(found.sizes):
        lines.append(f"### {reason}\n")
        samples = sorted(
            each for (r, _), of_source in found.samples.items() if r == reason for each in of_source
        )
        for _, path, text in samples[:SAMPLES]:
            shown = "\n".join(f"    {line[:100]}".rstrip() for line in text.splitlines()) or "    (empty)"
            lines.append(f"`{path}`\n\n{shown}\n")
    return "\n".join(lines).rstrip() + "\n"


def _speeds(timed: list[tuple[str, str, bytes]], rules: list[Filter]) -> list[Row]:
    """MB a CPU second of each step, each of the same files in three parts."""
    benchmarks = Benchmarks.load(ContaminationConfig(benchmarks=[KERNELS]))
    steps: dict[str, Callable[[str, bytes], object]] = {
        "rules on content": lambda language, content: [rule.keeps(content, language) for rule in rules],
        "secrets": lambda language, content: scrub(content),
        "contamination": lambda language, content: benchmarks.find(content, language),
    }
    rows = []
    for name, step in steps.items():
        rates = []
        for part in range(TIMED_PARTS):
            files = list(islice(timed, part, None, TIMED_PARTS))
            start = time.process_time()
            for _, language, content in files:
                step(language, content)
            seconds = time.process_time() - start
            rates.append(sum(len(content) for _, _, content in files) / 1e6 / seconds)
        rows.append(row("speed", name, "MB per CPU second", rates))
    return rows
