"""Corpus builder: files and MB a second on one core, step by step; and what a second build costs."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.table import Row, row
from hpctrain.config import load_config
from hpctrain.corpus.analyse import Analyst
from hpctrain.corpus.build import CorpusConfig, build_corpus
from hpctrain.corpus.contamination import Benchmarks
from hpctrain.corpus.examine import Finding, Rules, examine
from hpctrain.corpus.languages import UNDECIDED, find_language, may_be_kept
from hpctrain.corpus.models import programming_models
from hpctrain.corpus.nearby import Signer
from hpctrain.corpus.secrets import scrub
from hpctrain.corpus.units import Row as UnitRow
from hpctrain.corpus.units import write_rows

Files = Sequence[tuple[str, str, bytes]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("configs/corpus/installed.yaml"))
    parser.add_argument("--megabytes", type=int, default=24, help="sample for the single steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="directory on the file system to measure")


def measure(options: argparse.Namespace) -> list[Row]:
    """Each step of an examination on a sample of files that are kept, then whole builds."""
    config = load_config(options.config, [], CorpusConfig)
    rules = Rules(config.filters)
    analyst = Analyst(config.secrets, config.duplicates, Benchmarks.load(config.contamination))
    files = _sample(config, rules, options.megabytes << 20)
    with tempfile.TemporaryDirectory(prefix="hpctrain-bench-", dir=options.scratch) as place:
        rows = _steps(files, rules, analyst, Path(place), options.rounds)
        return [*rows, *_builds(config, Path(place))]


def _sample(config: CorpusConfig, rules: Rules, size: int) -> Files:
    """Files that a build would find, evenly from all sources that are there."""
    opened = [source.open() for source in config.sources if not source.optional]
    files: list[tuple[str, str, bytes]] = []
    for source in opened:
        held = 0
        for unit in source.units():
            for entry in unit.entries():
                if held > size / len(opened) or entry.problem or not may_be_kept(entry.path):
                    continue
                if entry.size <= rules.max_bytes:
                    content = entry.read()
                    verdict = examine(entry.path, content, rules)
                    if isinstance(verdict, Finding):
                        files.append((entry.path, verdict.language.replace(UNDECIDED, "c"), content))
                        held += len(content)
    return files


def _steps(files: Files, rules: Rules, analyst: Analyst, place: Path, rounds: int) -> list[Row]:
    signer = Signer(analyst.duplicates)
    steps: dict[str, Callable[[str, str, bytes], object]] = {
        "language": lambda path, language, content: find_language(path, content),
        "filters": lambda path, language, content: [r.keeps(content, language) for r in rules.filters],
        "licence": lambda path, language, content: rules.licences.of_source(content),
        "examination: these, and SHA-256": lambda path, language, content: examine(path, content, rules),
        "secrets": lambda path, language, content: scrub(content, analyst.secrets),
        "programming models": lambda path, language, content: programming_models(content, language),
        "signature": lambda path, language, content: signer.signature_of(content, language),
        "analysis: these, and benchmarks": lambda path, language, content: analyst.analyse(
            0, content, language
        ),
    }
    megabytes = sum(len(content) for _, _, content in files) / 1e6
    samples: dict[str, list[float]] = {name: [] for name in [*steps, "unit written"]}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.process_time()
            for path, language, content in files:
                step(path, language, content)
            samples[name].append(time.process_time() - began)
        began = time.process_time()
        with write_rows(place / "unit.parquet", UnitRow) as writer:
            for path, language, content in files:
                writer.add(UnitRow(path, len(content), language=language, content=content, sha256=bytes(32)))
        samples["unit written"].append(time.process_time() - began)
    return [
        row("step", name, metric, [amount / seconds for seconds in samples[name]])
        for name in samples
        for metric, amount in (("files/s a core", len(files)), ("MB/s a core", megabytes))
    ]


def _builds(config: CorpusConfig, place: Path) -> list[Row]:
    """A build from nothing, one of units that are examined already, and the memory of both."""
    rows = []
    for variant in ("from nothing", "all units examined before"):
        began = time.process_time()
        manifest = build_corpus(config, place / variant.replace(" ", "-"), place / "units")
        seconds = time.process_time() - began
        kept = sum(sum(sizes.values()) for sizes in manifest.counts["bytes"].values()) / 1e6
        rows += [
            row("build", variant, "seconds of a core", [seconds]),
            row("build", variant, "MB kept a second", [kept / seconds]),
        ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [*rows, row("build", "both", "MB of memory at most", [peak])]
