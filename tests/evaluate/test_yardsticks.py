"""The candidates that need no model."""

from __future__ import annotations

from hpctrain.evaluate.candidate import Sampling
from hpctrain.evaluate.executed import ask
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import Yardstick, yardstick, yardstick_names
from hpctrain.tasks.problem import Problem

PROBLEM = Problem("a", "kernels", "c", "openmp", "a.c", "prompt", "known", serial="copy", parallel_for="for")


def test_each_gives_its_answer_as_often_as_asked() -> None:
    found = {}
    for name in yardstick_names():
        candidate = yardstick(name)
        assert candidate is not None
        assert candidate.name == name
        found[name] = [
            [a.text for a in row] for row in candidate.answer([PROBLEM, PROBLEM], Sampling(samples=2))
        ]
    assert found == {
        "reference": [["known"] * 2] * 2,
        "floor:serial-copy": [["copy"] * 2] * 2,
        "floor:parallel-for": [["for"] * 2] * 2,
    }


def test_other_names_are_none_of_them() -> None:
    assert yardstick("floor:ngram") is None
    assert yardstick("runs/a") is None


def test_floors_are_not_asked_what_the_model_could_not_be_asked() -> None:
    problems = [
        Problem(f"p{n}", "kernels", "c", "openmp", "a.c", "int f(void)\n", "{ return 0; }\n")
        for n in range(3)
    ]
    skipped: dict[str, str] = {}
    answers = ask(
        Yardstick("reference"), problems, SuiteOptions(left_out=frozenset({"p1", "other"})), skipped
    )
    assert list(answers) == ["p0", "p2"]
    assert list(skipped) == ["p1"]
