"""Records of the tasks whose programs are generated: what is asked, what is answered, how it is checked."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpctrain.config import fingerprint
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.programs_check import Code
from hpctrain.tasks.programs_driver import driver
from hpctrain.tasks.programs_grammar import draw_program
from hpctrain.tasks.programs_race import RaceCase, race_pair
from hpctrain.tasks.programs_tree import Program, shape
from hpctrain.tasks.programs_words import LANGUAGE_NAMES, MODEL_NAMES, PROMISES, comment, request
from hpctrain.tasks.record import Record
from hpctrain.tasks.render import SUFFIXES, Language, Model, Style, draw_style
from hpctrain.tasks.render_c import CRenderer
from hpctrain.tasks.renderers import HOST_LANGUAGES, calling, interface_lines, languages_of, renderer, suits

_SAME = (
    "The same {unit}, parallel with {model}", "Now in parallel, with {model}", "The {unit} with {model}",
    "Shared out with {model}",
)  # fmt: skip
_RACE_QUESTIONS = (
    "Does this loop have a data race?", "Is there a data race in this code?", "Data race?",
    "Do the threads race for a variable here?",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A record with what proves it."""

    record: Record
    answer: Code
    serial: Code
    sizes: int
    is_run: bool = True
    """Whether the answer must give what the serial code gives; else it must only build."""


class Maker:
    """Makes the records of one task, the same for the same seed."""

    def __init__(self, task: TaskConfig) -> None:
        self.task = task

    def make(self, number: int) -> list[Made]:
        """The records of the program of that number; none where it does not suit the task."""
        seed = f"{self.task.seed}-{number}"
        rng = random.Random(f"{seed}-{self.task.name}")
        style = draw_style(rng)
        if self.task.name == "race":
            return self._race(seed, style, rng)
        program = draw_program(seed)
        if self.task.name == "translate":
            return self._translate(program, style, rng)
        models: list[Model] = [model for model in self.task.parallel if suits(program, model)]
        if self.task.name == "instruct" and rng.random() < 0.2:
            models = ["serial"]
        if not models:
            return []
        model = rng.choice(models)
        language = rng.choice(languages_of(model))
        ask = self._parallel if self.task.name == "serial-to-parallel" else self._instruct
        return ask(program, style, language, model, rng)

    def _parallel(
        self, program: Program, style: Style, language: Language, model: Model, rng: random.Random
    ) -> list[Made]:
        serial = renderer(program, style, language).text()
        unit = "function" if program.result or not language.startswith("fortran") else "subroutine"
        words = rng.choice(_SAME).format(unit=unit, model=MODEL_NAMES[model])
        words += f". {PROMISES[model]}" if PROMISES[model] else ":"
        prompt = f"{serial}\n{comment(words, language)}"
        return [self._made(program, style, language, model, prompt)]

    def _translate(self, program: Program, style: Style, rng: random.Random) -> list[Made]:
        fortran: Language = rng.choice(("fortran-free", "fortran-fixed"))
        other: Language = rng.choice(("c", "cpp"))
        source, target = (fortran, other) if rng.random() < 0.5 else (other, fortran)
        model: Model = "openmp" if rng.random() < 0.3 else "serial"
        text = renderer(program, draw_style(rng), source, model).text()
        where = "as " if rng.random() < 0.5 else "in "
        head = comment(f"The same {where}{LANGUAGE_NAMES[target]}:", target)
        lines = _signature(program, style, target)
        return [self._made(program, style, target, model, f"{text}\n{head}{lines}")]

    def _instruct(
        self, program: Program, style: Style, language: Language, model: Model, rng: random.Random
    ) -> list[Made]:
        words = renderer(program, style, language if language != "cuda" else "cpp")
        lines = interface_lines(program, style, language if language != "cuda" else "cpp")
        return [
            self._made(program, style, language, model, request(program, words, language, model, rng, lines))
        ]

    def _race(self, seed: str, style: Style, rng: random.Random) -> list[Made]:
        language = rng.choice(HOST_LANGUAGES)
        pair = race_pair(seed, style, language)
        question = comment(rng.choice(_RACE_QUESTIONS), language)
        mark = comment("Answer:", language).rstrip("\n")
        family = fingerprint(shape(pair[0].program))
        made = []
        for case in pair:
            code = _race_code(case, style, language)
            answer = f" yes, {case.variable}\n" if case.variable else " no\n"
            record = self._record(
                family, language, case.program, f"{code}\n{question}{mark}", answer, "openmp"
            )
            made.append(
                self._proved(record, case.program, style, language, "openmp", code, not case.variable)
            )
        return made

    def _made(self, program: Program, style: Style, language: Language, model: Model, prompt: str) -> Made:
        text = renderer(program, style, language, model).text()
        record = self._record(fingerprint(shape(program)), language, program, prompt, text, model)
        serial = renderer(program, style, language).text()
        bare = renderer(program, style, language, bare=True).text() if model == "openmp" else ""
        meta: dict[str, Any] = {**record.meta, "calling": calling(program, language), "serial_code": serial}
        if self.task.name == "serial-to-parallel":
            meta |= {"serial": serial, "parallel_for": bare}
        record = record.model_copy(update={"meta": meta})
        return self._proved(record, program, style, language, model, text, True)

    def _record(
        self, family: str, language: Language, program: Program, prompt: str, response: str, model: Model
    ) -> Record:
        return Record(
            task=self.task.name, id=f"{self.task.name}-{fingerprint([prompt, response])[:16]}", family=family,
            language=language, path=f"{program.name}{SUFFIXES[language]}", prompt=prompt, response=response,
            meta={"programming_model": model, "kind": program.kind},
        )  # fmt: skip

    def _proved(
        self,
        record: Record,
        program: Program,
        style: Style,
        language: Language,
        model: Model,
        text: str,
        runs: bool,
    ) -> Made:
        called = CRenderer(program, style, "serial", "c" if language.startswith("fortran") else language)
        answer = Code(
            language,
            "" if model == "serial" else model,
            text,
            driver(program, language, model == "mpi", called),
        )
        plain = CRenderer(program, style, "serial", "c")
        serial = Code("c", "", plain.text(), driver(program, "c", False, plain))
        return Made(record, answer, serial, len(program.sizes), runs)


def _race_code(case: RaceCase, style: Style, language: Language) -> str:
    return renderer(case.program, style, language, "openmp", drop=(case.drop,)).text()


def _signature(program: Program, style: Style, language: Language) -> str:
    margin = 6 if language == "fortran-fixed" else 0
    lines: Sequence[str] = interface_lines(program, style, language)
    return comment("\n".join(f"    {line[margin:]}" for line in lines), language, wrap=False)
