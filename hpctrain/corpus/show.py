"""What is in a corpus, and whether it is whole."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpctrain.corpus.document import documents_files, read_corpus_manifest, read_documents
from hpctrain.corpus.ledger import LEDGER_NAME
from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, find_damage
from hpctrain.progress import progress

_GROUPS = {
    "language": "languages", "model": "models", "licence class": "licence_classes", "licence": "licences",
    "drop reason": "dropped", "benchmark": "contamination",
}  # fmt: skip
"""Groups of rows, and where each stands in a source's ledger."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `hpctrain corpus show`."""

    group: str
    """language, model, licence class, licence, source, drop reason, benchmark, replaced or missing."""
    name: str
    """The language, licence, source or reason."""
    files: int
    """Number of documents, of dropped files, or of replaced places; 0 for what is missing."""
    bytes: int
    """Their size."""


def describe(directory: Path) -> list[Row]:
    """Counts of a corpus by language, programming model, licence, source, drop reason and more.

    Raises DataError if the corpus is missing or its ledger cannot be read.
    """
    sources = read_ledger(directory, read_corpus_manifest(directory))
    files: dict[str, Counter[str]] = {}
    sizes: dict[str, Counter[str]] = {}

    def add(group: str, name: str, tally: dict[str, int]) -> None:
        files.setdefault(group, Counter())[name] += tally["files"]
        sizes.setdefault(group, Counter())[name] += tally["bytes"]

    for source, ledger in sources.items():
        add("source", source, ledger["kept"])
        for group, key in _GROUPS.items():
            for name, tally in ledger[key].items():
                add(group, name, tally)
        for kind, number in ledger["secrets"].items():
            add("replaced", kind, {"files": number, "bytes": 0})
    rows = [
        Row(group, name, files[group][name], size)
        for group in (*list(_GROUPS)[:4], "source", *list(_GROUPS)[4:], "replaced")
        for name, size in sizes.get(group, Counter()).most_common()
    ]
    missing = {name: reason for ledger in sources.values() for name, reason in ledger["missing"].items()}
    return rows + [Row("missing", f"{name}: {reason}", 0, 0) for name, reason in missing.items()]


def verify(directory: Path) -> int:
    """Check every file against the manifest and every document against its SHA-256; returns the documents.

    Raises DataError that lists what is damaged, or says where the counts differ from the manifest's.
    """
    manifest = read_corpus_manifest(directory)
    total = sum(record.bytes for record in manifest.files.values())
    with progress("checksums", total, "bytes") as bar:
        damage = find_damage(directory, manifest, on_bytes=bar.advance)
    if damage:
        raise DataError("\n".join(["the corpus is damaged; restore these files or build it again", *damage]))
    counts = {split: sum(n.values()) for split, n in manifest.counts["documents"].items()}
    found: Counter[str] = Counter()
    with progress("documents", sum(counts.values()), "documents") as bar:
        for document in read_documents(directory, verify=False):
            found[document.split] += 1
            bar.advance()
    if dict(found) != {split: count for split, count in counts.items() if count}:
        raise DataError(f"{directory}: {documents_files(manifest)} do not hold the documents of the manifest")
    return found.total()


def read_ledger(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """The ledgers of a corpus's sources by name. Raises DataError if the ledger is damaged."""
    if damage := find_damage(directory, manifest, [LEDGER_NAME] if LEDGER_NAME in manifest.files else []):
        raise DataError(f"{damage[0]}; restore the file or build the corpus again")
    try:
        sources: dict[str, Any] = json.loads((directory / LEDGER_NAME).read_text(encoding="utf-8"))["sources"]
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise DataError(f"{directory / LEDGER_NAME}: not a readable ledger: {reason}") from None
    return sources
