"""A problem that a model is to solve, with its known solution and how an answer is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Stop = Literal["end", "line", "function", "file"]
"""Where an answer ends: the model's end mark alone, the first line end, the end of the function it opened,
or the whole file (as `end`, but cut text is judged too)."""


@dataclass(frozen=True)
class Problem:
    """What is asked, independent of who answers."""

    id: str
    task: str
    """The task of a record, or the suite's name."""
    language: str
    """Label of the corpus for the answer."""
    programming_model: str
    """openmp, openacc, mpi, cuda, hip, kokkos; serial where none is asked for."""
    path: str
    """File name that stands in the head of the document."""
    prompt: str
    """Text before the answer."""
    reference: str
    """A known answer, as text that follows the prompt."""
    suffix: str | None = None
    """Text after the answer; fill in the middle where it is given."""
    stop: Stop = "end"
    serial: str = ""
    """The answer that copies the serial code; empty where there is no such thing."""
    parallel_for: str = ""
    """The answer that puts a bare parallel loop directive on the outermost loop; empty likewise."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What the judge needs besides."""
