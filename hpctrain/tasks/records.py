"""Records of a task on disk, and the problems that the held-back ones are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from hpctrain.errors import DataError
from hpctrain.manifest import Manifest, read_manifest
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.record import Record

TASK_DATA_KIND = "task data"
TASK_DATA_FORMAT = 1
_SHOWN_PROBLEMS = 10


def read_task_manifest(directory: Path) -> Manifest:
    """The manifest of a task's data; raises DataError where there is none."""
    return read_manifest(directory, TASK_DATA_KIND, TASK_DATA_FORMAT)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write records as JSON lines; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(record.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file in order. Raises DataError that names every broken line (at most ten)."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as reason:
        raise DataError(f"{path}: {reason.strerror}; build the data with `hpctrain tasks build`") from None
    except UnicodeDecodeError as reason:
        raise DataError(f"{path}: not UTF-8 text: {reason.reason} at byte {reason.start}") from None
    records: list[Record] = []
    broken: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(Record.model_validate(json.loads(line)))
        except ValidationError as reason:
            where = ".".join(map(str, reason.errors()[0]["loc"]))
            broken.append(f"{path}, line {number}: {where}: {reason.errors()[0]['msg']}")
        except ValueError as reason:
            broken.append(f"{path}, line {number}: not JSON: {reason}")
    if broken:
        more = [f"... and {len(broken) - _SHOWN_PROBLEMS} more"] if len(broken) > _SHOWN_PROBLEMS else []
        raise DataError("\n".join([*broken[:_SHOWN_PROBLEMS], *more]))
    yield from records


def read_problems(directory: Path, task: str, limit: int | None = None) -> list[Problem]:
    """The problems of a task's held-back records, `limit` of them at most.

    Raises DataError if the directory holds no such data or a line is broken.
    """
    read_task_manifest(directory)
    problems = [
        problem_of(record) for record in read_records(directory / "test.jsonl") if record.task == task
    ]
    if not problems:
        raise DataError(f"{directory}: test.jsonl holds no records of the task {task}")
    return problems[:limit]


def problem_of(record: Record) -> Problem:
    """A record as a question to be answered; `meta` may hold the fields `programming_model`, `stop`,
    `serial` and `parallel_for` of Problem."""
    meta = dict(record.meta)
    own = {name: meta.pop(name) for name in ("stop", "serial", "parallel_for") if name in meta}
    model = str(meta.pop("programming_model", record.task if record.task in ("openmp", "mpi") else "serial"))
    return Problem(
        id=record.id, task=record.task, language=record.language, programming_model=model, path=record.path,
        prompt=record.prompt, reference=record.response, suffix=record.suffix, meta=meta, **own,
    )  # fmt: skip
