"""Build a rendering of a program and run it beside the serial one, in the sandbox."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import DataError
from hpctrain.sandbox.run import Outcome, Sandbox
from hpctrain.sandbox.toolchain import SUFFIXES, build, execute, why_missing
from hpctrain.tasks.programs_driver import difference


@dataclass(frozen=True)
class Code:
    """A rendering with the driver that calls it."""

    language: str
    model: str
    text: str
    driver: str


def draw_sizes(rng: random.Random, count: int) -> list[str]:
    """Arguments of a driver: a seed and `count` sizes, no multiples of anything."""
    return [str(rng.randrange(1 << 30)), *(str(rng.choice((7, 13, 37, 61, 101))) for _ in range(count))]


def build_code(sandbox: Sandbox, directory: Path, code: Code, name: str) -> Outcome:
    """Compile a rendering and its driver to the program `name`."""
    unit = f"{name}_unit{SUFFIXES[code.language]}"
    main = f"{name}_main{SUFFIXES[code.language if code.language in ('cpp', 'cuda') else 'c']}"
    (directory / unit).write_text(code.text, encoding="utf-8")
    (directory / main).write_text(code.driver, encoding="utf-8")
    return build(sandbox, directory, [unit, main], name, code.language, code.model)


def check(
    sandbox: Sandbox, serial: Code, other: Code, inputs: Sequence[Sequence[str]], counts: Sequence[int]
) -> str:
    """What is wrong with `other`, in words; empty if it gives what `serial` gives at each count.

    CUDA is built only: whether a device is there is not looked for here. Raises DataError if `serial` itself
    does not build or run, LaunchError if a compiler is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        built = build_code(sandbox, directory, other, "other")
        if built.status != "ok":
            return f"not built: {built.message}"
        if other.model == "cuda":
            return ""
        built = build_code(sandbox, directory, serial, "serial")
        if built.status != "ok":
            raise DataError(f"a generated serial program does not build: {built.message}\n{serial.text}")
        for arguments in inputs:
            wanted = execute(sandbox, directory, "serial", "", 1, arguments)
            if wanted.status != "ok":
                raise DataError(f"a generated serial program does not run: {wanted.message}\n{serial.text}")
            for count in counts if other.model in ("openmp", "mpi") else (1,):
                got = execute(sandbox, directory, "other", other.model, count, arguments)
                if got.status != "ok":
                    return f"{count} {other.model}: {got.status}: {got.message}"
                if found := difference(wanted.stdout, got.stdout):
                    return f"{count} {other.model}, sizes {' '.join(arguments[1:])}: {found}"
    return ""


def can_check(language: str, model: str) -> bool:
    """Whether the compiler (and launcher) is here."""
    return not why_missing(language, "" if model == "serial" else model)
