"""Pairs of serial and parallel kernels as problems, under names and with inputs that are held back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpctrain.config import Section, describe_errors, read_yaml
from hpctrain.corpus.structure import loops
from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.driver import Argument, Interface, c_driver
from hpctrain.evaluate.judge import Job, Unit
from hpctrain.tasks.problem import Problem

VARIANTS = "held_back.yaml"
TIMED_CALLS = 3
_MODEL_NAMES = {"openmp": "OpenMP", "mpi": "MPI", "openacc": "OpenACC", "cuda": "CUDA"}
_SPDX = re.compile(r"\A(?:/\*|!|C|//) *SPDX-License-Identifier:.*\n")


class Pair(Section):
    """A `kernel.yaml`."""

    name: str
    language: str
    model: str
    summary: str
    entry: dict[str, str]
    sources: dict[str, str]
    threads: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
    tolerance: float


class Variant(Section):
    """How one pair is asked for."""

    stem: dict[str, str]
    """What names begin with, and what they begin with instead."""
    rename: dict[str, str] = {}
    """Whole words."""
    returns: str
    """C type of the result."""
    arguments: tuple[str, ...]
    cases: tuple[dict[str, int], ...]
    timed: dict[str, int] | None = None
    helpers: str = ""


@dataclass(frozen=True)
class HeldBack:
    """A problem, and what its answers are judged by."""

    problem: Problem
    job: Job
    answer_entry: str

    def unit(self, text: str) -> Unit:
        """An answer as a unit."""
        return Unit(text, self.job.serial.language, self.answer_entry, self.problem.path)


def read_pairs(root: Path, counts: tuple[int, ...] | None = None) -> list[HeldBack]:
    """Every pair of a directory that has a variant, by name.

    Raises DataError where the directory holds none, ConfigError for variants that cannot be used.
    """
    if not (root / VARIANTS).is_file():
        raise DataError(f"{root}: no {VARIANTS} there; name a directory of kernel pairs by --problems")
    variants = read_yaml(root / VARIANTS)
    found = []
    for name, tree in sorted(variants.items()):
        try:
            variant = Variant.model_validate(tree)
            pair = Pair.model_validate(read_yaml(root / name / "kernel.yaml"))
            found.append(_held_back(root / name, pair, variant, counts))
        except ValidationError as error:
            raise ConfigError(
                [f"{root / VARIANTS}: {name}: {line}" for line in describe_errors(error, Variant)]
            ) from None
        except OSError as error:
            raise DataError(f"{root / name}: cannot be read: {error.strerror}") from None
    return found


def _held_back(folder: Path, pair: Pair, variant: Variant, counts: tuple[int, ...] | None) -> HeldBack:
    serial, parallel = (
        _renamed((folder / pair.sources[role]).read_text(encoding="utf-8"), pair.language, variant)
        for role in ("serial", "parallel")
    )
    stem = next(iter(variant.stem.values()))
    path = f"{stem}_parallel{Path(pair.sources['parallel']).suffix}"
    job = Job(
        serial=Unit(serial, pair.language, _symbol(f"{stem}_serial", pair.language), pair.sources["serial"]),
        model=pair.model,
        driver=Unit(c_driver(_interface(pair, variant)), "cuda" if pair.language == "cuda" else "c"),
        counts=counts or pair.threads or pair.ranks or (1,),
        tolerance=pair.tolerance,
        repeats=TIMED_CALLS if variant.timed else 0,
    )
    prompt = f"{serial.rstrip()}\n\n{_question(pair, stem)}\n"
    copy = re.sub(rf"({re.escape(stem)}_)serial", r"\1parallel", serial, flags=re.IGNORECASE)
    if pair.language == "fortran-fixed":
        copy = copy.replace(f"{stem.upper()}_parallel", f"{stem.upper()}_PARALLEL")
    problem = Problem(
        id=pair.name, task="kernels", language=pair.language, programming_model=pair.model, path=path,
        prompt=prompt, reference=parallel, stop="file", serial=copy,
        parallel_for=_with_directive(copy, pair.language) if pair.model == "openmp" else "",
    )  # fmt: skip
    return HeldBack(problem, job, _symbol(f"{stem}_parallel", pair.language))


def _renamed(text: str, language: str, variant: Variant) -> str:
    """The source under its other names, without the licence's line. Fortran keeps upper case upper."""
    is_fortran = language.startswith("fortran")
    text = _SPDX.sub("", text)
    words: Mapping[str, str] = variant.rename

    def other(found: re.Match[str]) -> str:
        word = found[0]
        plain = word.lower() if is_fortran else word
        new = words.get(plain)
        for old, instead in variant.stem.items():
            if plain.startswith(f"{old}_"):
                new = instead + plain[len(old) :]
        if new is None:
            return word
        return new.upper() if is_fortran and word.isupper() else new

    return re.sub(r"(?<![\w.])[A-Za-z_]\w*", other, text)


def _symbol(name: str, language: str) -> str:
    if language == "fortran-free":
        return f"__{name}_mod_MOD_{name}"
    return {"fortran-fixed": f"{name}_", "cuda": f"*{name}*"}.get(language, name)


def _interface(pair: Pair, variant: Variant) -> Interface:
    return Interface(
        returns=variant.returns,
        arguments=tuple(Argument.parse(text) for text in variant.arguments),
        cases=variant.cases,
        timed=variant.timed,
        by_reference=pair.language.startswith("fortran"),
        helpers=variant.helpers,
    )


def _question(pair: Pair, stem: str) -> str:
    text = f"The same in parallel with {_MODEL_NAMES[pair.model]}, as {stem}_parallel."
    if pair.language == "fortran-fixed":
        return f"C     {text}"
    return f"! {text}" if pair.language == "fortran-free" else f"/* {text} */"


def _with_directive(text: str, language: str) -> str:
    """The source with a bare parallel loop directive on each outermost loop."""
    content, end, parts, last = text.encode(), -1, [], 0
    mark = {"fortran-fixed": b"!$OMP PARALLEL DO\n", "fortran-free": b"!$omp parallel do\n"}
    for start, stop in loops(content, language):
        if start < end:
            continue
        end = stop
        line = content.rfind(b"\n", 0, start) + 1
        parts += [content[last:line], mark.get(language, b"#pragma omp parallel for\n")]
        last = line
    return b"".join([*parts, content[last:]]).decode()
