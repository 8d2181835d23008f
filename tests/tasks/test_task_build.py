"""From a corpus to a task's data: splits, limits, what is there already, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from runner import Runner
from stages import write_corpus

from hpctrain.config import load_config
from hpctrain.corpus.document import Document
from hpctrain.errors import ConfigError, DataError
from hpctrain.tasks.build import build_task_data, show_task_data
from hpctrain.tasks.config import TaskConfig
from hpctrain.tasks.record import Record
from hpctrain.tasks.records import problem_of, read_problems, read_records
from hpctrain.train.config import RunConfig

KERNELS = Path(__file__).parents[2] / "examples" / "kernels"
PRESETS = Path(__file__).parents[2] / "configs" / "finetune"
LOOP = """\
void scale_%(n)d(int n, double *x)
{
#pragma omp parallel for schedule(static, %(n)d)
    for (int i = 0; i < n; ++i)
        x[i] *= %(n)d;
}
"""
CALL = """\
#include <mpi.h>
int rank_%(n)d(void)
{
    int rank = %(n)d;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}
"""


def document(number: int, family: str, split: str, text: str = LOOP, models: str = "openmp") -> Document:
    content = (text % {"n": number}).encode()
    return Document("tree", f"{family}/{number}.c", "c", "MIT", family, split, content, models)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 loops of one big family, one of which is held back too; a small one, and MPI programs."""
    documents = [document(number, "big", "train") for number in range(40)]
    documents += [document(100 + number, "small", "train") for number in range(3)]
    documents += [
        document(200, "judge", "test"),
        document(7, "copy", "test"),
        document(300, "dev", "validation"),
    ]
    documents += [document(1, "calls", "train", CALL, "mpi"), document(2, "ranks", "test", CALL, "mpi")]
    return write_corpus(tmp_path_factory.mktemp("task") / "corpus", documents)


def task(corpus: Path | None, out: Path, **options: object) -> TaskConfig:
    given = {"name": "openmp", "data": str(out), **({"corpus": str(corpus)} if corpus else {}), **options}
    return TaskConfig.model_validate(given)


def families(directory: Path, split: str) -> list[str]:
    return sorted(record.family for record in read_records(directory / f"{split}.jsonl"))


def test_records_stay_on_their_side_and_what_is_held_back_is_not_trained_on(
    corpus: Path, tmp_path: Path
) -> None:
    out = build_task_data(task(corpus, tmp_path / "data"), tmp_path / "data")
    assert families(out, "test") == ["copy", "judge"]
    assert families(out, "validation") == ["dev"]
    assert families(out, "train") == ["big"] * 39 + ["small"] * 3
    ids = [record.id for split in ("train", "test") for record in read_records(out / f"{split}.jsonl")]
    assert len(ids) == len(set(ids))
    rows = {row["split"]: row for row in show_task_data(out)}
    assert rows["train"]["records"] == 42
    assert rows["train"]["families"] == 2


def test_no_family_outweighs_the_others_and_the_seed_decides_who_is_taken(
    corpus: Path, tmp_path: Path
) -> None:
    def built(name: str, seed: int) -> list[str]:
        out = tmp_path / name
        build_task_data(task(corpus, out, max_per_family=4, train_records=6, seed=seed), out)
        return [record.id for record in read_records(out / "train.jsonl")]

    first = built("first", 1)
    assert families(tmp_path / "first", "train").count("big") <= 4
    assert len(first) == 6
    assert built("again", 1) == first
    assert built("other", 2) != first


def test_data_that_is_there_is_left_alone_and_other_data_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    build_task_data(task(corpus, out), out)
    before = (out / "manifest.json").stat().st_mtime_ns
    build_task_data(task(corpus, out), out)
    assert (out / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="made from another task"):
        build_task_data(task(corpus, out, seed=2), out)


def test_a_corpus_without_such_code_is_an_error_and_one_without_a_test_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only_train = write_corpus(tmp_path / "train", [document(1, "one", "train")])
    build_task_data(task(only_train, tmp_path / "a"), tmp_path / "a")
    assert "no record for test" in capsys.readouterr().err
    with pytest.raises(DataError, match="no record to train on: no program with MPI calls"):
        build_task_data(task(only_train, tmp_path / "b", name="mpi"), tmp_path / "b")
    with pytest.raises(DataError, match="does not exist"):
        build_task_data(task(tmp_path / "none", tmp_path / "c"), tmp_path / "c")
    assert not (tmp_path / "b").exists()


def test_the_config_says_which_task_needs_a_corpus(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the task openmp is made of a corpus"):
        task(None, tmp_path)
    with pytest.raises(ValueError, match="the task race reads no corpus, and all of it is generated"):
        task(tmp_path, tmp_path, name="race")
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump({"name": "openmpi", "data": "x", "ordr": "both"}))
    with pytest.raises(ConfigError) as caught:
        load_config(path, [], TaskConfig)
    assert any("did you mean order" in problem for problem in caught.value.problems)


@pytest.mark.parametrize("name", ["openmp", "mpi"])
def test_the_presets_are_what_they_are_called(name: str) -> None:
    config = load_config(PRESETS / f"{name}.yaml", [], RunConfig)
    assert config.task is not None
    assert config.task.name == name
    assert config.run.start_from is not None


def test_problems_are_the_held_back_records(corpus: Path, tmp_path: Path) -> None:
    out = build_task_data(task(corpus, tmp_path / "data"), tmp_path / "data")
    problems = read_problems(out, "openmp")
    assert [problem.id for problem in problems] == [record.id for record in read_records(out / "test.jsonl")]
    assert problems[0].parallel_for == "#pragma omp parallel for\n"
    assert problems[0].programming_model == "openmp"
    assert len(read_problems(out, "openmp", 1)) == 1
    with pytest.raises(DataError, match="no records of the task mpi"):
        read_problems(out, "mpi")


def test_a_record_may_say_what_a_problem_needs() -> None:
    meta = {"stop": "line", "serial": "a", "programming_model": "cuda", "sizes": [1]}
    record = Record(
        task="instruct", id="1", family="f", language="c", path="a.c", prompt="p", response="r", meta=meta
    )
    problem = problem_of(record)
    assert (problem.stop, problem.serial, problem.programming_model) == ("line", "a", "cuda")
    assert problem.meta == {"sizes": [1]}


def test_every_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    good = {
        "task": "mpi",
        "id": "1",
        "family": "f",
        "language": "c",
        "path": "a",
        "prompt": "p",
        "response": "r",
    }
    path.write_text(json.dumps(good) + "\n{oops\n\n" + json.dumps({**good, "prompt": 3}) + "\n")
    with pytest.raises(DataError) as caught:
        list(read_records(path))
    assert f"{path}, line 2: not JSON" in str(caught.value)
    assert f"{path}, line 4: prompt:" in str(caught.value)


def test_generated_programs_stand_beside_a_corpus_or_alone(corpus: Path, tmp_path: Path) -> None:
    for name, given in (("beside", corpus), ("alone", None)):
        out = tmp_path / name
        build_task_data(task(given, out, generated_records=8, max_bytes=8000), out)
        sources = {
            split: {record.meta["source"] for record in read_records(out / f"{split}.jsonl")}
            for split in ("train", "test")
        }
        assert sources["train"] == sources["test"] == ({"generated", "tree"} if given else {"generated"})
    sides = [set(families(tmp_path / "alone", split)) for split in ("train", "validation", "test")]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]


def test_the_pairs_that_the_suites_ask_for_are_not_learnt(tmp_path: Path) -> None:
    pair = (KERNELS / "axpy_c_openmp" / "parallel.c").read_text().replace("axpy", "saxpy")
    documents = [document(1, "one", "train"), document(2, "kernels", "train", pair.replace("%", "%%"))]
    out = tmp_path / "data"
    build_task_data(task(write_corpus(tmp_path / "corpus", documents), out), out)
    assert families(out, "train") == ["one"]


def test_the_commands(corpus: Path, tmp_path: Path) -> None:
    runner = Runner(tmp_path, tmp_path / "shards")
    section = {"name": "mpi", "data": str(tmp_path / "data"), "corpus": str(corpus)}
    config = runner.config(task=section)
    assert "mpi" in runner.run("tasks", "build", config).stdout
    shown = json.loads(runner.run("tasks", "show", tmp_path / "data", "--json").stdout)
    assert [(row["split"], row["records"]) for row in shown] == [("train", 1), ("test", 1)]
    example = runner.run("tasks", "show", tmp_path / "data", "--example", 1).stdout
    assert "4|    int rank = 2;\n5|    return rank;" in example
    assert "--- response\n4|    MPI_Comm_rank(MPI_COMM_WORLD, &rank);\n" in example
    refused = runner.run("tasks", "show", tmp_path / "data", "--example", 9, code=2).stderr
    assert "--example: 9; the test has 1 records" in refused
    without = runner.run("tasks", "build", runner.config("plain"), code=2).stderr
    assert "task: not given" in without
