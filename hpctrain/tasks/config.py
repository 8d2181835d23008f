"""The `task` section of a fine-tuning config: which task, made of what, and where its data lies."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from hpctrain.config import Section
from hpctrain.tasks.record import Task

Order = Literal["loop-first", "pragma-first", "both"]
ProgrammingModel = Literal["openmp", "mpi", "cuda"]
CONTEXT_BYTES = 1500
CORPUS_TASKS: tuple[Task, ...] = ("openmp", "mpi")
"""Tasks whose records are made of a corpus; the others' are generated."""


class TaskConfig(Section):
    """A task and how its records are made."""

    name: Task
    """openmp: the directive for a loop. mpi: the MPI calls of a program. serial-to-parallel, translate, race,
    instruct: see docs/tasks.md."""
    data: Path
    """Directory of the task's train.jsonl, validation.jsonl and test.jsonl; built where it is missing."""
    corpus: Path | None = None
    """openmp and mpi: corpus that the records are made of. The other tasks take none."""
    generated_records: int = Field(default=0, ge=0)
    """openmp and mpi: so many generated programs are taken in besides the corpus, or instead of one."""
    order: Order = "loop-first"
    """openmp: the directive is asked for after its loop, or in its place between what stands before it and
    the loop (fill in the middle), or each loop both ways."""
    context_bytes: int = Field(default=CONTEXT_BYTES, ge=0)
    """openmp: text before the directive that is shown at most, from the head of its function on."""
    max_bytes: int = Field(default=4000, ge=100)
    """Records with a longer prompt, suffix and response together are left out."""
    max_per_family: int = Field(default=200, ge=1)
    """Records of one family in a split, at most: one big project is not to outweigh all others."""
    train_records: int | None = Field(default=None, ge=1)
    """Records to train on, at most; none: all there are. Generated tasks: how many are generated, 2000
    where it is not said."""
    held_out_records: int = Field(default=200, ge=1)
    """Records for validation, and for the test, at most."""
    parallel: tuple[ProgrammingModel, ...] = ("openmp", "mpi", "cuda")
    """serial-to-parallel and instruct: programming models that are asked for."""
    checked_records: int = Field(default=50, ge=0)
    """Generated tasks: how many programs for training and validation are built and run while the data are
    made; those of the test all are."""
    seed: int = Field(default=1, ge=0)
    """Decides which records are taken where there are more, and all of what is generated."""

    @model_validator(mode="after")
    def _corpus_where_needed(self) -> TaskConfig:
        takes = self.name in CORPUS_TASKS
        if takes and self.corpus is None and not self.generated_records:
            raise ValueError(
                f"corpus: the task {self.name} is made of a corpus; name its directory, or give "
                "generated_records"
            )
        if not takes and (self.corpus is not None or self.generated_records):
            raise ValueError(
                f"corpus, generated_records: the task {self.name} reads no corpus, and all of it is "
                "generated; leave them out"
            )
        return self
