"""The kernel pairs as problems: what is held back, that the known answers pass and the floors do not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from hpctrain.corpus.lexer import code_tokens
from hpctrain.errors import ConfigError, DataError
from hpctrain.evaluate.candidate import Sampling
from hpctrain.evaluate.driver import Argument
from hpctrain.evaluate.executed import without_fence
from hpctrain.evaluate.held_back import HeldBack, read_pairs
from hpctrain.evaluate.kernels import default_pairs, run_kernels
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.evaluate.yardsticks import Yardstick
from hpctrain.sandbox.toolchain import why_missing
from hpctrain.tasks.result import Result

ROOT = default_pairs()


@pytest.fixture(scope="module")
def pairs() -> dict[str, HeldBack]:
    return {pair.problem.id: pair for pair in read_pairs(ROOT)}


def some(tmp_path: Path, *names: str) -> Path:
    """A directory with these pairs alone."""
    variants = yaml.safe_load((ROOT / "held_back.yaml").read_text())
    for name in names:
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "held_back.yaml").write_text(yaml.safe_dump({name: variants[name] for name in names}))
    return tmp_path


def test_every_pair_is_held_back_in_a_variant(pairs: dict[str, HeldBack]) -> None:
    assert sorted(pairs) == sorted(path.parent.name for path in ROOT.glob("*/kernel.yaml"))


def test_no_variant_is_a_text_of_the_repository(pairs: dict[str, HeldBack]) -> None:
    for name, pair in pairs.items():
        for role, text in (("serial", pair.job.serial.text), ("parallel", pair.problem.reference)):
            own = next((ROOT / name).glob(f"{role}.*")).read_text()
            language = pair.problem.language
            assert [*code_tokens(text.encode(), language)] != [*code_tokens(own.encode(), language)]
            words = b" ".join(code_tokens(text.encode(), language)).decode().lower().split()
            kept = [
                word for word in words if word.startswith((f"{name.split('_')[0]}_", "serial_", "parallel_"))
            ]
            assert kept == [], f"{name}: {role}"


def test_lines_in_fixed_form_stay_within_column_72(pairs: dict[str, HeldBack]) -> None:
    for pair in pairs.values():
        if pair.problem.language == "fortran-fixed":
            code = f"{pair.problem.prompt}{pair.problem.reference}{pair.problem.serial}"
            assert max(map(len, code.splitlines())) <= 72


def test_the_prompt_holds_the_serial_code_and_names_what_is_asked(pairs: dict[str, HeldBack]) -> None:
    problem = pairs["sor_f77_openmp"].problem
    assert problem.prompt.endswith("C     The same in parallel with OpenMP, as rbr_parallel.\n")
    assert "SUBROUTINE RBR_SERIAL(M, N, NSWEEP, RELAX, F, U)" in problem.prompt
    assert "SUBROUTINE RBR_PARALLEL(M, N, NSWEEP, RELAX, F, U)" in problem.serial
    assert "!$OMP PARALLEL DO\n      DO ISWEEP" in problem.parallel_for
    assert pairs["heat_c_mpi"].problem.parallel_for == ""


def run(candidate: str, root: Path, **other: object) -> Result:
    options = SuiteOptions(problems=root, counts=(2,), **other)  # type: ignore[arg-type]
    return run_kernels(Yardstick(candidate), options)


@pytest.mark.parametrize("name", ["oddeven_f77_openmp", "matvec_f90_mpi", "lu_f90_openacc"])
def test_known_answers_pass_and_floors_do_not(tmp_path: Path, pairs: dict[str, HeldBack], name: str) -> None:
    problem = pairs[name].problem
    if reason := why_missing(problem.language, problem.programming_model):
        pytest.skip(reason)
    root = some(tmp_path, name)
    known = run("reference", root, sampling=Sampling(samples=2))
    assert [sample.verdict for sample in known.samples] == ["passed"] * 2, known.samples
    assert {score.value for score in known.scores if score.metric[:6] in ("build@", "pass@1", "pass@2")} == {
        1.0
    }
    assert known.settings["counts"] == [2]
    copy = run("floor:serial-copy", root)
    assert [sample.verdict for sample in copy.samples] == ["not parallel"]
    if problem.programming_model == "openmp":
        loop = run("floor:parallel-for", root)
        assert loop.samples[0].verdict in ("race", "wrong", "crashed"), loop.samples[0]


def test_without_a_device_cuda_is_built_and_not_said_to_pass(tmp_path: Path) -> None:
    if reason := why_missing("cuda"):
        pytest.skip(reason)
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a device")
    result = run("reference", some(tmp_path, "transpose_cuda"))
    assert [sample.verdict for sample in result.samples] == ["built"]
    values = {score.metric: (score.value, score.count) for score in result.scores}
    assert values == {"build@1": (1.0, 1), "pass@1": (None, 0)}


def test_a_missing_compiler_is_named_for_each_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = some(tmp_path / "pairs", "axpy_c_openmp")
    found = run_kernels(Yardstick("reference"), SuiteOptions(problems=root, limit=0, unsafe=True))
    assert found.samples == []
    for tool in ("nm", "objcopy"):
        (tmp_path / tool).symlink_to("/usr/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    skipped = run_kernels(Yardstick("reference"), SuiteOptions(problems=root, unsafe=True)).skipped
    assert skipped == {"axpy_c_openmp": "no compiler for c: gcc or cc on PATH"}


def test_directories_that_hold_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no held_back\.yaml there; name a directory of kernel pairs by --problems"
    ):
        read_pairs(tmp_path)
    root = some(tmp_path, "axpy_c_openmp")
    (root / "axpy_c_openmp" / "serial.c").unlink()
    with pytest.raises(DataError, match="axpy_c_openmp: cannot be read"):
        read_pairs(root)


@pytest.mark.parametrize("text", ["double x", "in double x[n]", "out double y[n] = 1", "inout x = 3"])
def test_what_is_no_argument(text: str) -> None:
    with pytest.raises(ConfigError, match="is no argument"):
        Argument.parse(text)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("int a;\n", "int a;\n"),
        ("Here:\n```c\nint a;\n```\nDone.", "int a;\n"),
        ("```\nint a;\n", "int a;\n"),
        ('char *s = "```";\n', 'char *s = "```";\n'),
    ],
)
def test_code_is_taken_out_of_markdown(answer: str, code: str) -> None:
    assert without_fence(answer) == code
