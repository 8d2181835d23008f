"""Build a task's data: records on three sides of a split, published as a stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import xxhash

from hpctrain.config import fingerprint
from hpctrain.corpus.document import SPLITS, Document, read_corpus_manifest, read_documents
from hpctrain.errors import DataError
from hpctrain.manifest import StageWriter, find_finished, write_stage
from hpctrain.progress import progress, say
from hpctrain.tasks.config import CORPUS_TASKS, TaskConfig
from hpctrain.tasks.generated import HeldBackPairs, generated_documents
from hpctrain.tasks.mpi import mpi_records
from hpctrain.tasks.openmp import openmp_records
from hpctrain.tasks.programs import build_programs
from hpctrain.tasks.record import Record
from hpctrain.tasks.records import TASK_DATA_FORMAT, TASK_DATA_KIND, read_records, write_records

_NOT_CONTENT = {"data", "corpus"}
_SOUGHT = {"openmp": "loop with an OpenMP directive", "mpi": "program with MPI calls"}
_MAKERS = {"openmp": openmp_records, "mpi": mpi_records}


def build_task_data(task: TaskConfig, out: Path) -> Path:
    """Make the records of a task in `out`: train.jsonl, validation.jsonl, test.jsonl and a manifest.

    Data that is already there and was made of the same is left alone. Returns the directory. Raises DataError
    if the corpus is missing or damaged, holds nothing for the task, or `out` holds other data.
    """
    inputs = {"task": fingerprint(task.model_dump(mode="json", exclude=_NOT_CONTENT))}
    if task.corpus is not None:
        inputs["corpus"] = read_corpus_manifest(task.corpus).fingerprint
    if find_finished(out, TASK_DATA_KIND, TASK_DATA_FORMAT, inputs) is not None:
        return out
    with write_stage(out, TASK_DATA_KIND, TASK_DATA_FORMAT) as writer:
        writer.inputs = inputs
        writer.details["config"] = task.model_dump(mode="json", exclude=_NOT_CONTENT)
        if task.name in CORPUS_TASKS:
            _write_corpus_task(task, writer)
        else:
            build_programs(task, writer.directory)
        _count(writer, _SOUGHT.get(task.name, "program"))
    return out


def show_task_data(directory: Path) -> list[dict[str, str | int]]:
    """Records, families and bytes of a task's data by split and language."""
    rows: list[dict[str, str | int]] = []
    for split in SPLITS:
        by_language: dict[str, list[Record]] = {}
        for record in read_records(directory / f"{split}.jsonl"):
            by_language.setdefault(record.language, []).append(record)
        for language, records in sorted(by_language.items()):
            asked = (record.prompt + (record.suffix or "") for record in records)
            rows.append(
                {
                    "split": split, "task": records[0].task, "language": language, "records": len(records),
                    "families": len({record.family for record in records}),
                    "prompt bytes": sum(len(text.encode()) for text in asked),
                    "response bytes": sum(len(record.response.encode()) for record in records),
                }
            )  # fmt: skip
    return rows


def _count(writer: StageWriter, what: str) -> None:
    """Fill in the manifest's counts; refuses data without a record to learn from, says what else is empty."""
    counts: dict[str, Counter[str]] = {}
    for split in SPLITS:
        records = read_records(writer.directory / f"{split}.jsonl")
        counts[split] = Counter(record.language for record in records)
    writer.counts["records"] = {split: dict(sorted(found.items())) for split, found in counts.items()}
    if not counts["train"]:
        raise DataError(
            f"the data of the task has no record to train on: no {what} that fits; take a larger corpus, or "
            "more of it by task.max_bytes and task.context_bytes"
        )
    for split in ("validation", "test"):
        if not counts[split]:
            say(f"the data of the task has no record for {split}: the corpus holds no {what} there")


def _write_corpus_task(task: TaskConfig, writer: StageWriter) -> None:
    make = _MAKERS[task.name]
    sides = {split: _Side(task) for split in SPLITS}
    for document in chain(
        _corpus_documents(task), generated_documents(task) if task.generated_records else ()
    ):
        for record in make(document, task):
            sides[document.split].add(record)
    held_back: set[str] = set()
    for split in ("test", "validation", "train"):
        limit = task.train_records if split == "train" else task.held_out_records
        chosen = sides[split].choose(limit, held_back)
        held_back |= sides[split].names()
        write_records(writer.directory / f"{split}.jsonl", chosen)
        writer.details[f"{split} records found"] = sides[split].found


def _corpus_documents(task: TaskConfig) -> Iterator[Document]:
    """The documents that use what the task asks for, but for those that the suites ask for in the end."""
    if task.corpus is None:
        return
    asked_for = HeldBackPairs()
    counts = read_corpus_manifest(task.corpus).counts["documents"]
    total = sum(sum(languages.values()) for languages in counts.values())
    with progress(f"task {task.name}", total, "documents") as bar:
        for document in read_documents(task.corpus):
            if task.name in document.models.split(",") and document not in asked_for:
                yield document
            bar.advance()


class _Side:
    """The records of one split while they are chosen: of each family those with the least draw."""

    def __init__(self, task: TaskConfig) -> None:
        self.task, self.found = task, 0
        self._families: dict[str, dict[str, tuple[int, Record]]] = {}

    def add(self, record: Record) -> None:
        """Keep the record if its draw is among the least of its family so far."""
        self.found += 1
        family = self._families.setdefault(record.family, {})
        family[record.id] = (xxhash.xxh3_64_intdigest(record.id.encode(), seed=self.task.seed), record)
        if len(family) > self.task.max_per_family:
            del family[max(family, key=lambda name: family[name][0])]

    def names(self) -> set[str]:
        """The ids of all that is kept."""
        return {name for family in self._families.values() for name in family}

    def choose(self, limit: int | None, taken: set[str]) -> list[Record]:
        """At most `limit` records in the order of their draws, none twice and none of `taken`."""
        every: dict[str, tuple[int, Record]] = {}
        for _, family in sorted(self._families.items()):
            for name, drawn in family.items():
                if name not in taken:
                    every.setdefault(name, drawn)
        return [record for _, record in sorted(every.values(), key=lambda drawn: drawn[0])][:limit]
