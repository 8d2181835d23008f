"""Data of the generated tasks: splits by shape, no text twice, what is checked, and what is said."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpctrain.errors import DataError
from hpctrain.sandbox.toolchain import why_missing
from hpctrain.tasks import programs
from hpctrain.tasks.build import build_task_data
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.programs import held_back_texts, make_records, normal_form, split_of
from hpctrain.tasks.records import read_problems, read_records

NAMES = ("serial-to-parallel", "translate", "race", "instruct")
needs_compilers = pytest.mark.skipif(
    any(why_missing(language, "mpi") for language in ("c", "cpp", "fortran-free")), reason="no MPI compilers"
)


def task(name: str, out: Path = Path("unused"), **options: object) -> TaskConfig:
    given = {"train_records": 30, "held_out_records": 6, "checked_records": 1, "parallel": ("openmp", "mpi")}
    return TaskConfig.model_validate({"name": name, "data": out, **given, **options})


@pytest.mark.parametrize("name", NAMES)
def test_shapes_stay_on_their_side_and_no_text_comes_twice(name: str) -> None:
    made = make_records(task(name))
    assert {split: len(records) for split, records in made.items()} == {
        "train": 30, "validation": 6, "test": 6,
    }  # fmt: skip
    families = {split: {m.record.family for m in records} for split, records in made.items()}
    assert not families["train"] & (families["test"] | families["validation"])
    assert not families["test"] & families["validation"]
    assert all(split_of(family) == split for split, found in families.items() for family in found)
    ids = [m.record.id for records in made.values() for m in records]
    assert len(set(ids)) == len(ids)
    assert make_records(task(name)) == made
    assert make_records(task(name, seed=2)) != made


@needs_compilers
@pytest.mark.parametrize("name", ["translate", "race"])
def test_data_is_built_and_checked(name: str, tmp_path: Path) -> None:
    out = tmp_path / "data"
    build_task_data(task(name, out, held_out_records=2), out)
    problems = read_problems(out, name)
    assert len(problems) == 2
    train = list(read_records(out / "train.jsonl"))
    assert all(set(record.meta) == {"programming_model", "kind"} for record in train)
    assert all(record.response.endswith("\n") for record in train)
    if name == "race":
        assert sorted(problem.reference.split()[0].strip(",") for problem in problems) == ["no", "yes"]


def test_a_pair_of_races_differs_in_little() -> None:
    records = [m.record for m in make_records(task("race"))["train"]]
    for racy, safe in zip(records[::2], records[1::2], strict=True):
        assert racy.response.startswith(" yes, ")
        assert safe.response == " no\n"
        assert racy.family == safe.family
        assert racy.prompt != safe.prompt
        assert racy.response[6:].strip().lower() in racy.prompt.lower()


def test_serial_copies_and_bare_directives_stand_in_the_problems() -> None:
    made = make_records(task("serial-to-parallel", parallel=("openmp",)))
    for record in (m.record for m in made["test"]):
        assert record.meta["serial"].strip() in record.prompt
        assert "omp parallel" in record.meta["parallel_for"].lower()
        assert record.meta["parallel_for"] != record.meta["serial"]


def test_normal_form_knows_neither_names_nor_layout() -> None:
    first = "void f(int n, double *x)\n{\n    for (int i = 0; i < n; ++i) /* all */\n        x[i] = 2.0;\n}\n"
    other = "void g(int m, double *y) {\n  for (int k = 0; k < m; ++k) y[k] = 2.0; // each\n}\n"
    assert normal_form(first, "c") == normal_form(other, "c")
    assert normal_form(first, "c") != normal_form(first.replace("2.0", "3.0"), "c")
    upper = "      SUBROUTINE F(N)\n      INTEGER N\nC     ALL\n      END\n"
    assert normal_form(upper, "fortran-fixed") == normal_form(upper.lower(), "fortran-fixed")


def test_what_equals_a_held_back_pair_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(held_back_texts()) > 40
    first = make_records(task("translate"))["train"][0]
    text = normal_form(first.answer.text, first.answer.language)
    monkeypatch.setattr(programs, "held_back_texts", lambda: {text})
    again = make_records(task("translate"))
    assert first.record.id not in {m.record.id for records in again.values() for m in records}


def test_too_little_room_is_said() -> None:
    with pytest.raises(DataError, match=r"task\.max_bytes: 100"):
        make_records(task("translate", max_bytes=100, train_records=1, held_out_records=1))


def test_a_missing_compiler_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_records(task("translate", train_records=4, held_out_records=1))["train"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert os.environ["PATH"] == str(tmp_path)
    programs.check_records(made, task("translate"))
    assert "4 of 4 programs are not checked" in capsys.readouterr().err


@needs_compilers
def test_a_wrong_program_stops_the_build() -> None:
    made = make_records(task("translate", train_records=1, held_out_records=1))["train"][0]
    wrong = replace(made, answer=replace(made.answer, text="no program\n"))
    with pytest.raises(DataError, match="a generated program is wrong"):
        programs.check_records([wrong], task("translate"))
