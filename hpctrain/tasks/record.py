"""One example of a task: what is asked, and what is to be answered."""

from __future__ import annotations

from typing import Any, Literal

from hpctrain.config import Section

Task = Literal["openmp", "mpi", "serial-to-parallel", "translate", "race", "instruct"]
TASKS: tuple[Task, ...] = ("openmp", "mpi", "serial-to-parallel", "translate", "race", "instruct")


class Record(Section):
    """A line of `train.jsonl`, `validation.jsonl` or `test.jsonl` of a task's data."""

    task: Task
    id: str
    """Unique in the data; the same for the same source text."""
    family: str
    """Repository family of the source: no family is on two sides of a split."""
    language: str
    """Label of the corpus for the response, or for the code asked about where the response is a word."""
    path: str
    """File name that stands in the head of the document."""
    prompt: str
    """Ends where the response begins: nothing is put between them."""
    response: str
    """Ends with a line end where more code could follow."""
    suffix: str | None = None
    """Text after the response; fill in the middle where it is given."""
    meta: dict[str, Any] = {}
    """What a task's score needs besides, as plain JSON."""
