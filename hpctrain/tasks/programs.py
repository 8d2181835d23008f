"""Data of the tasks that need no corpus: small numerical programs from a grammar, in all languages.

Families are shapes of programs: their loops and expressions without names and constants. A shape is on one
side of the split whatever the seed, so what the test asks was not seen in training under other names.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from hpctrain.corpus.lexer import code_tokens
from hpctrain.errors import DataError
from hpctrain.progress import progress, say
from hpctrain.sandbox import bubblewrap
from hpctrain.sandbox.run import Sandbox
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.programs_check import can_check, check, draw_sizes
from hpctrain.tasks.programs_records import Made, Maker
from hpctrain.tasks.record import Record
from hpctrain.tasks.records import write_records

DEFAULT_TRAIN_RECORDS = 2000
HELD_OUT_PERCENT = {"test": 15, "validation": 10}
_PATIENCE = 60
"""Programs that may be drawn for each record before the rest is given up."""
_HELD_OUT_FAMILIES = 10
"""A family gives at most this part of what is held out: small shapes are drawn often."""
_COUNTS = (3,)
_EXAMPLES = Path(__file__).parents[2] / "examples" / "kernels"
_LANGUAGES = {
    ".c": "c", ".f": "fortran-fixed", ".F": "fortran-fixed", ".f90": "fortran-free", ".cu": "cuda",
}  # fmt: skip


def build_programs(task: TaskConfig, out: Path) -> None:
    """Write train.jsonl, validation.jsonl and test.jsonl of a generated task to the directory `out`.

    All programs of the test, and `task.checked_records` of the others, are built and run beside serial ones.
    Raises DataError if one of them does not do what it should.
    """
    made = make_records(task)
    others = [*made["train"], *made["validation"]]
    checked = random.Random(task.seed).sample(others, k=min(task.checked_records, len(others)))
    check_records([*made["test"], *checked], task)
    for split, records in made.items():
        write_records(out / f"{split}.jsonl", [_kept(m) if split != "test" else m.record for m in records])


def make_records(task: TaskConfig) -> dict[str, list[Made]]:
    """The records of each side, no text twice and none that equals a pair of examples/kernels."""
    wanted = {
        "train": task.train_records or DEFAULT_TRAIN_RECORDS, "validation": task.held_out_records,
        "test": task.held_out_records,
    }  # fmt: skip
    made: dict[str, list[Made]] = {split: [] for split in wanted}
    families: dict[str, int] = {}
    taken = set(held_back_texts())
    maker, number = Maker(task), 0
    at_once = 2 if task.name == "race" else 1
    with progress(f"task {task.name}", sum(wanted.values()), "records") as bar:
        while any(len(made[split]) + at_once <= count for split, count in wanted.items()):
            number += 1
            if number > _PATIENCE * sum(wanted.values()):
                raise DataError(f"task.max_bytes: {task.max_bytes}: too few programs fit; allow more bytes")
            found = maker.make(number)
            split = split_of(found[0].record.family) if found else "train"
            texts = {normal_form(m.answer.text, m.answer.language) for m in found}
            full = len(made[split]) + len(found) > wanted[split]
            if not found or full or texts & taken or any(_size(m) > task.max_bytes for m in found):
                continue
            family = found[0].record.family
            most = task.max_per_family if split == "train" else max(2, wanted[split] // _HELD_OUT_FAMILIES)
            if families.get(family, 0) + len(found) > most:
                continue
            families[family] = families.get(family, 0) + len(found)
            taken |= texts
            made[split] += found
            bar.advance(len(found))
    return made


def split_of(family: str) -> str:
    """The side of the split that a family is on, whatever the seed."""
    place = xxhash.xxh3_64_intdigest(family.encode()) % 100
    if place < HELD_OUT_PERCENT["test"]:
        return "test"
    return "validation" if place < sum(HELD_OUT_PERCENT.values()) else "train"


def check_records(made: Iterable[Made], task: TaskConfig) -> None:
    """Build the code of records and run it beside the serial code. Raises DataError for the first that fails.

    What has no compiler here is left out, and said.
    """
    every = list(made)
    able = [m for m in every if can_check(m.answer.language, m.answer.model)]
    if left := len(every) - len(able):
        say(f"{left} of {len(every)} programs are not checked: no compiler or launcher for them here")
    missing = bubblewrap.missing()
    if missing:
        say(f"{missing}: generated programs, which are the project's own, are checked without a sandbox")
    sandbox = Sandbox(unsafe=bool(missing))
    with progress("checking programs", len(able), "programs") as bar, ThreadPoolExecutor(_cores()) as pool:
        for m, problem in zip(able, pool.map(lambda m: _problem(sandbox, m, task.seed), able), strict=True):
            if problem:
                raise DataError(f"{m.record.id}: a generated program is wrong: {problem}\n{m.answer.text}")
            bar.advance()
    on_device = sum(m.answer.model == "cuda" for m in able)
    if on_device:
        say(f"{on_device} of {len(able)} checked programs are for CUDA: built, not run")


def _problem(sandbox: Sandbox, made: Made, seed: int) -> str:
    rng = random.Random(f"{made.record.id}-{seed}")
    inputs = [draw_sizes(rng, made.sizes)] if made.is_run else []
    return check(sandbox, made.serial, made.answer, inputs, _COUNTS)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _size(made: Made) -> int:
    return len(made.record.prompt.encode()) + len(made.record.response.encode())


def _kept(made: Made) -> Record:
    """A record without what only a judge needs."""
    kept = {name: made.record.meta[name] for name in ("programming_model", "kind")}
    return made.record.model_copy(update={"meta": kept})


def held_back_texts() -> set[str]:
    """The pairs of examples/kernels in normal form, where the package runs from its own tree."""
    if not _EXAMPLES.is_dir():
        say(f"{_EXAMPLES} is not there: programs are not compared with the pairs of the suite `kernels`")
        return set()
    units = [path for path in sorted(_EXAMPLES.glob("*/*")) if path.stem in ("serial", "parallel")]
    return {normal_form(path.read_text(encoding="utf-8"), _LANGUAGES[path.suffix]) for path in units}


def normal_form(text: str, language: str) -> str:
    """Code without comments, layout, case and the choice of names: equal where only these differ."""
    names: dict[bytes, bytes] = {}
    words = []
    for token in code_tokens(text.encode(), language):
        word = token.lower()
        if word[:1].isalpha() and word not in _KEYWORDS and not word.startswith((b"mpi_", b"omp_", b"cuda")):
            word = names.setdefault(word, b"v%d" % len(names))
        words.append(word)
    return b" ".join(words).decode("utf-8", "replace")


_KEYWORDS = frozenset(
    b"""if else for while do end enddo endif then return int double void const static size_t real integer
    precision subroutine function continue include pragma omp parallel private reduction collapse schedule
    implicit none intent in out inout max min sqrt abs fabs fmax fmin exp sin cos std dble mod""".split()
)
