"""Generated programs as documents, for the tasks that are made of a corpus."""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.corpus.document import Document
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.programs import held_back_texts, make_records, normal_form

SOURCE = "generated"
_TRAIN_PER_HELD_OUT = 10
_PROGRAM_BYTES = 8000


def generated_documents(task: TaskConfig) -> Iterator[Document]:
    """`task.generated_records` programs in the task's programming model to train on, and a tenth of it for
    validation and for the test; their families are shapes of programs."""
    held_out = max(1, min(task.held_out_records, task.generated_records // _TRAIN_PER_HELD_OUT))
    programs = TaskConfig.model_validate(
        {
            "name": "serial-to-parallel", "data": task.data, "parallel": (task.name,), "seed": task.seed,
            "train_records": task.generated_records, "held_out_records": held_out,
            "max_bytes": _PROGRAM_BYTES, "max_per_family": task.max_per_family,
        }
    )  # fmt: skip
    for split, made in make_records(programs).items():
        for each in made:
            content = each.answer.text.encode()
            yield Document(
                SOURCE,
                each.record.path,
                each.answer.language,
                "",
                each.record.family,
                split,
                content,
                task.name,
            )


class HeldBackPairs:
    """Knows the pairs of examples/kernels, which the suites ask for, whatever their names and layout."""

    def __init__(self) -> None:
        self._texts = held_back_texts()

    def __contains__(self, document: Document) -> bool:
        text = document.content.decode("utf-8", "replace")
        return bool(self._texts) and normal_form(text, document.language) in self._texts
