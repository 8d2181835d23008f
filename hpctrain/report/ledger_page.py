"""What is in a corpus and what was left out, as one self-contained HTML page: no script, nothing fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain import __version__
from hpctrain.corpus.document import SPLITS
from hpctrain.corpus.ledger import CONTAMINATION, DUPLICATE, NEAR_DUPLICATE
from hpctrain.errors import ConfigError
from hpctrain.manifest import disk_errors
from hpctrain.report import words
from hpctrain.report.ledger_data import Amount, CorpusRecord, amount, read_corpus, read_tokens, top
from hpctrain.report.ledger_pictures import CORPUS_PICTURES, CorpusPicture, draw_corpus
from hpctrain.report.ledger_template import CORPUS_PAGE
from hpctrain.report.page import data_uri, page_environment, publish
from hpctrain.report.pictures import DARK, LIGHT, Theme, png

_LICENCES = 14
_OTHER_LANGUAGE = "other languages, and files that are no source code"


@dataclass(frozen=True)
class SourceRow:
    """A line of the page's table of sources."""

    name: str
    seen: Amount
    kept: Amount
    dropped: str


def write_ledger_page(corpus_directory: Path, path: Path, shards: Path | None = None) -> None:
    """Write the page of a corpus as the HTML file `path`, which appears whole or not at all.

    With `shards`, which were made of this corpus (else DataError), tokens are counted too.

    Raises DataError if the corpus is missing, unfinished or damaged, or the file cannot be written;
    ConfigError if `path` is a directory.
    """
    if path.is_dir():
        raise ConfigError(
            f"--html: {path} is a directory; give the name of an HTML file, such as corpus.html"
        )
    record = read_corpus(corpus_directory)
    if shards is not None:
        record.tokens = read_tokens(shards, record.fingerprint)
    page = render_ledger_page(record)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, page.encode("utf-8", "replace"))


def render_ledger_page(record: CorpusRecord) -> str:
    """The HTML text of the page; everything that comes from files is escaped."""
    kept, dropped = record.total("kept"), record.by("dropped")
    languages = [
        (language, splits, sum(splits.values(), Amount())) for language, splits in record.languages.items()
    ]
    return page_environment().from_string(CORPUS_PAGE).render(
        record=record,
        subtitle=_subtitle(record),
        seen=record.total("seen"),
        kept=kept,
        duplicates=dropped.get(DUPLICATE, Amount()) + dropped.get(NEAR_DUPLICATE, Amount()),
        contaminated=dropped.get(CONTAMINATION, Amount()),
        secrets=record.secrets,
        pictures=[
            {"text": each.text, "light": _data(each, record, LIGHT), "dark": _data(each, record, DARK)}
            for each in CORPUS_PICTURES
        ],
        sources=[_source_row(name, source) for name, source in record.sources.items()],
        missing=record.missing,
        splits=[split for split in SPLITS if any(split in splits for _, splits, _ in languages)],
        languages=languages,
        tokens=record.tokens,
        classes=record.by("licence_classes").items(),
        licences=top(record.by("licences"), _LICENCES),
        models=record.by("models").items(),
        dropped=[(_OTHER_LANGUAGE if name == "language" else name, each) for name, each in dropped.items()],
        clusters=record.clusters,
        benchmarks=record.benchmarks.items(),
        removals=record.removals,
        samples=[(name, found) for name, found in record.samples.items() if name != "language"],
        share=_share,
        version=__version__,
    )  # fmt: skip


def _subtitle(record: CorpusRecord) -> str:
    languages = len(record.languages)
    parts = [words.plural(len(record.sources), "source"), words.plural(languages, "language")]
    parts.append(words.plural(len(record.by("licences")), "licence"))
    return "  ·  ".join(parts)


def _source_row(name: str, source: dict[str, Any]) -> SourceRow:
    reasons = sorted(source["dropped"].items(), key=lambda item: (-item[1]["files"], item[0]))
    said = ", ".join(f"{reason} {words.count(tally['files'])}" for reason, tally in reasons)
    return SourceRow(name, amount(source["seen"]), amount(source["kept"]), said)


def _share(part: int, whole: int) -> str:
    """A part in percent of the whole: `12.3%`, `<0.1%`."""
    percent = 100 * part / whole if whole else 0.0
    return "<0.1%" if 0 < percent < 0.05 else f"{percent:.1f}%"


def _data(picture: CorpusPicture, record: CorpusRecord, theme: Theme) -> str:
    return data_uri(png(draw_corpus(picture, record, theme)))
