"""Suites of generated programs: known solutions pass, copies and bare directives stand where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Answer
from hpctrain.evaluate.driver import Argument, Interface, c_driver
from hpctrain.evaluate.judge import Job, Judge, Unit
from hpctrain.evaluate.programs import Heard, first_word, race_scores, run_race, run_serial_to_parallel
from hpctrain.evaluate.suites import SuiteOptions, load_suite
from hpctrain.evaluate.yardsticks import yardstick
from hpctrain.manifest import write_stage
from hpctrain.sandbox.run import Sandbox
from hpctrain.sandbox.toolchain import why_missing
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.problem import Problem
from hpctrain.tasks.programs import make_records
from hpctrain.tasks.programs_race import race_pair
from hpctrain.tasks.programs_tree import Program, divided, loop_variables
from hpctrain.tasks.record import Record
from hpctrain.tasks.records import TASK_DATA_FORMAT, TASK_DATA_KIND, write_records
from hpctrain.tasks.render import Style
from hpctrain.tasks.renderers import calling, renderer
from hpctrain.tasks.result import Result

needs_gcc = pytest.mark.skipif(bool(why_missing("c", "openmp")), reason="no gcc")
OPENMP: dict[str, object] = {"parallel": ("openmp",), "seed": 5}


def data(out: Path, name: str, languages: tuple[str, ...] = ("c",), **options: object) -> Path:
    """The test records of a task in some languages, as a stage; not checked, so quick."""
    given = {"name": name, "data": out, "train_records": 40, "held_out_records": 12, **options}
    made = make_records(TaskConfig.model_validate(given))
    with write_stage(out, TASK_DATA_KIND, TASK_DATA_FORMAT) as writer:
        chosen = [m.record for m in made["test"] if m.record.language in languages]
        write_records(writer.path("test.jsonl"), chosen)
    return out


def run(suite: str, name: str, problems: Path, limit: int | None = None) -> Result:
    candidate = yardstick(name)
    assert candidate is not None
    return load_suite(suite)(candidate, SuiteOptions(problems=problems, limit=limit, counts=(2,)))


def value(result: Result, metric: str) -> float | None:
    return next(score.value for score in result.scores if score.metric == metric and not score.group)


@needs_gcc
def test_solutions_pass_and_serial_copies_do_not(tmp_path: Path) -> None:
    problems = data(tmp_path / "data", "serial-to-parallel", **OPENMP)
    known = run("serial-to-parallel", "reference", problems, 3)
    assert (value(known, "build@1"), value(known, "pass@1")) == (1.0, 1.0), known.samples
    copies = run("serial-to-parallel", "floor:serial-copy", problems, 3)
    assert (value(copies, "build@1"), value(copies, "pass@1")) == (1.0, 0.0)
    assert {sample.verdict for sample in copies.samples} == {"not parallel"}


@needs_gcc
@pytest.mark.parametrize("suite", ["translate", "instruct"])
def test_solutions_of_the_other_suites_pass(suite: str, tmp_path: Path) -> None:
    problems = data(tmp_path / "data", suite, ("c", "fortran-fixed"), **OPENMP)
    known = run(suite, "reference", problems, 1)
    assert value(known, "pass@1") == 1.0, known.samples


def temporaries(program: Program) -> set[str]:
    shares = [loop.share for loop in divided(program) if loop.share]
    return {*loop_variables(program), *(name for share in shares for name in share.private)}


@needs_gcc
@pytest.mark.parametrize("seed", range(4))
def test_planted_races_are_races(seed: int) -> None:
    """What the grammar says is raced for does harm or is seen by the thread checker; its twin passes.

    Temporaries are left out: compilers may keep a shared one in a register, and then the program is lucky.
    """
    style = Style(declares_at_top=seed % 2 == 1)
    judge = Judge(Sandbox())
    for case in race_pair(f"planted {seed}", style, "c"):
        if case.drop and case.drop in temporaries(case.program):
            continue
        called = calling(case.program, "c")
        interface = Interface(
            returns=called["returns"], arguments=tuple(map(Argument.parse, called["arguments"])),
            cases=tuple(called["cases"]), timed=called["timed"],
        )  # fmt: skip
        serial = Unit(renderer(case.program, style, "c").text(), "c", called["entry"])
        job = Job(serial, "openmp", Unit(c_driver(interface), "c"), counts=(2,), tolerance=1e-9)
        text = renderer(case.program, style, "c", "openmp", drop=(case.drop,)).text()
        judgement = judge.judge(job, Unit(text, "c", called["entry"]), judge.expect(job))
        wanted = ("race", "wrong", "crashed") if case.variable else ("passed",)
        assert judgement.verdict in wanted, (text, judgement)


def heard(answer: str, truth: str) -> Heard:
    problem = Problem("p", "race", "c", "openmp", "a.c", "?", truth)
    return Heard(problem, Answer(answer))


def test_race_answers_are_read_by_their_first_word() -> None:
    assert first_word(" Yes, in s\n") == "yes"
    assert first_word("**no**") == "no"
    assert first_word("nothing to say") == ""
    assert heard(" yes, in S\n", " yes, s\n").names_variable
    assert not heard(" yes, t\n", " yes, s\n").names_variable
    assert heard("", " no\n").sample().verdict == "no answer"
    assert heard(" yes\n", " no\n").sample().detail == "known: no"


def test_race_scores_beside_the_constant_answer() -> None:
    judged = [heard(" yes, s\n", " yes, s\n"), heard(" yes\n", " no\n"), heard(" yes, q\n", " yes, t\n")]
    found = {score.metric: score.value for score in race_scores(judged) if not score.group}
    assert found["accuracy"] == found["majority's accuracy"] == pytest.approx(2 / 3)
    assert found["balanced accuracy"] == 0.5
    assert found["variable named"] == 0.5
    assert found["clause rule's accuracy"] == pytest.approx(2 / 3)


def test_the_race_suite(tmp_path: Path) -> None:
    problems = data(tmp_path / "data", "race", ("c", "cpp", "fortran-free", "fortran-fixed"))
    known = run("race", "reference", problems)
    assert value(known, "accuracy") == value(known, "variable named") == 1.0
    assert value(known, "majority's accuracy") == 0.5
    silent = run("race", "floor:serial-copy", problems)
    assert value(silent, "accuracy") == 0.0


def test_problems_are_needed() -> None:
    candidate = yardstick("reference")
    assert candidate is not None
    with pytest.raises(ConfigError, match=r"configs/finetune/race\.yaml"):
        run_race(candidate, SuiteOptions())


def test_records_that_do_not_say_how_they_are_called(tmp_path: Path) -> None:
    record = Record(
        task="serial-to-parallel", id="r", family="f", language="c", path="a.c", prompt="?", response="x"
    )
    with write_stage(tmp_path / "data", TASK_DATA_KIND, TASK_DATA_FORMAT) as writer:
        write_records(writer.path("test.jsonl"), [record])
    candidate = yardstick("reference")
    assert candidate is not None
    with pytest.raises(DataError, match="r: its record does not say how the answer is called"):
        run_serial_to_parallel(candidate, SuiteOptions(problems=tmp_path / "data"))
