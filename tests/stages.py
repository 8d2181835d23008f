"""Stages that tests of several rooms write by hand."""

from __future__ import annotations

from pathlib import Path

from hpctrain.corpus.document import CORPUS_FORMAT, CORPUS_KIND, Document, write_corpus_files
from hpctrain.manifest import write_stage


def write_corpus(directory: Path, documents: list[Document]) -> Path:
    """Publish documents as a corpus stage, with the counts that the corpus build writes."""
    counts: dict[str, dict[str, dict[str, int]]] = {"documents": {}, "bytes": {}}
    for document in documents:
        for name, amount in (("documents", 1), ("bytes", len(document.content))):
            by_language = counts[name].setdefault(document.split, {})
            by_language[document.language] = by_language.get(document.language, 0) + amount
    with write_stage(directory, CORPUS_KIND, CORPUS_FORMAT) as stage:
        write_corpus_files(stage, documents)
        total = sum(len(document.content) for document in documents)
        stage.counts = {**counts, "licences": {"Apache-2.0": total}}
    return directory
