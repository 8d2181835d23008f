"""Batch scripts as text: what their headers say, and that bash reads every word as it was meant."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpctrain.launch.script import Job, render

JOB = Job(
    scheduler="slurm", name="run", nodes=2, seconds=90_061, queue_options=("--partition=gpu",), account="abc",
    gpu_option="--gpus-per-node=4", pbs_chunk="ncpus=64", header=("--exclusive",), logs=Path("/my runs/logs"),
    requeue=True, singleton=False, setup=("module load torch",), directory=Path("/project"),
    script=Path("/project/launch/job.sh"), command="train", arguments=("c.yaml", "train.steps=3"),
    environment={"RANKS_PER_NODE": "4"}, note="by a test",
)  # fmt: skip
HEADERS = {
    "slurm": [
        "#SBATCH --job-name=run", "#SBATCH --nodes=2", "#SBATCH --time=25:01:01", "#SBATCH --partition=gpu",
        "#SBATCH --account=abc", "#SBATCH --gpus-per-node=4", "#SBATCH --signal=B:USR1@300",
        "#SBATCH --requeue", "#SBATCH --open-mode=append", '#SBATCH --output="/my runs/logs/job-%j.log"',
        "#SBATCH --exclusive",
    ],
    "pbs": [
        "#PBS -N run", "#PBS -l select=2:ncpus=64", "#PBS -l walltime=25:01:01", "#PBS -q gpu", "#PBS -A abc",
        "#PBS -r y", "#PBS -j oe", "#PBS -k doe", "#PBS -o /runs/logs/", "#PBS -l place=scatter",
    ],
    "flux": [
        "# flux: --job-name=run", "# flux: --nodes=2", "# flux: --exclusive", "# flux: --time-limit=90061s",
        "# flux: --queue=gpu", "# flux: --bank=abc", "# flux: --gpus-per-node=4",
        '# flux: --output="/my runs/logs/job-{{id}}.log"', "# flux: --conf=x",
    ],
}  # fmt: skip
JOBS = {
    "slurm": JOB,
    "pbs": replace(
        JOB, scheduler="pbs", queue_options=("-q gpu",), gpu_option=None, logs=Path("/runs/logs"),
        header=("-l place=scatter",),
    ),
    "flux": replace(JOB, scheduler="flux", queue_options=("--queue=gpu",), header=("--conf=x",)),
}  # fmt: skip


@pytest.mark.parametrize("scheduler", JOBS)
def test_the_whole_script(scheduler: str) -> None:
    lines = render(JOBS[scheduler]).splitlines()
    header = lines[1 : lines.index("# by a test")]
    assert lines[0].startswith("#!/bin/bash")
    assert header == HEADERS[scheduler]
    assert lines[lines.index("# by a test") + 1 :] == [
        "",
        "cd /project || exit 2",
        "module load torch || exit 2",
        "export RANKS_PER_NODE=4",
        "",
        ". /project/launch/job.sh || exit 2",
        "run_ranks train c.yaml train.steps=3",
    ]


@pytest.mark.parametrize(
    ("scheduler", "gone"),
    [
        ("slurm", ("--time", "--partition", "--account", "--gpus", "--exclusive")),
        ("pbs", ("-l walltime", "-q", "-A", "-l place")),
        ("flux", ("--time-limit", "--queue", "--bank", "--gpus", "--conf")),
    ],
)
def test_what_is_not_given_is_left_to_the_scheduler(scheduler: str, gone: tuple[str, ...]) -> None:
    bare = replace(
        JOBS[scheduler], seconds=None, queue_options=(), account=None, gpu_option=None, pbs_chunk=None,
        header=(), setup=(), environment={}, note="",
    )  # fmt: skip
    kept = [line for line in HEADERS[scheduler] if not any(f" {option}" in line for option in gone)]
    lines = render(bare).splitlines()
    assert lines[1 : lines.index("")] == [line.replace(":ncpus=64", "") for line in kept]


def test_a_job_of_a_chain_waits_for_the_others_and_does_not_come_back() -> None:
    text = render(replace(JOB, requeue=False, singleton=True))
    assert "#SBATCH --no-requeue\n#SBATCH --dependency=singleton\n" in text


@pytest.mark.parametrize(("seconds", "lead"), [(60, 15), (1200, 300), (86400, 300), (None, 300)])
def test_the_warning_leaves_time_to_work_before_it(seconds: int | None, lead: int) -> None:
    assert f"--signal=B:USR1@{lead}\n" in render(replace(JOB, seconds=seconds))


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(arguments=st.lists(WORDS, max_size=5), value=WORDS)
@settings(max_examples=60)
def test_every_word_reaches_the_command_as_it_was_typed(
    arguments: list[str], value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp() / "a 'quoted' \"name\" of $HOME \\ `ls` * \n;"
    directory.mkdir(exist_ok=True)
    script = directory / "job.sh"
    script.write_text('run_ranks() { printf "%s\\0" "$PWD" "$VALUE" "$@"; }')
    job = replace(
        JOB,
        setup=(),
        directory=directory,
        script=script,
        arguments=tuple(arguments),
        environment={"VALUE": value},
    )
    found = subprocess.run(["bash", "-c", render(job)], capture_output=True, check=True, cwd="/").stdout
    assert found.decode().split("\0")[:-1] == [str(directory), value, "train", *arguments]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ({"directory": Path("/no/such/place")}, 2),
        ({"setup": ("module() { return 1; }", "module load no-such")}, 2),
        ({"script": Path("/no/such/job.sh")}, 2),
    ],
)
def test_what_fails_before_the_ranks_ends_the_job(broken: dict[str, object], code: int) -> None:
    job = replace(JOB, **{"directory": Path("/"), "setup": (), **broken})  # type: ignore[arg-type]
    found = subprocess.run(["bash", "-c", render(job)], capture_output=True)
    assert found.returncode == code
    assert b"run_ranks" not in found.stderr


@pytest.mark.parametrize("scheduler", JOBS)
def test_bash_and_shellcheck_agree(scheduler: str, tmp_path: Path) -> None:
    job = replace(JOBS[scheduler], arguments=("it's.yaml", 'data.mixture={c: 1, "f": 2}', "a=*"))
    path = tmp_path / "job.sh"
    path.write_text(render(job))
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here")
    # SC1091: launch/job.sh is not where the example says.
    found = subprocess.run(["shellcheck", "--exclude=SC1091", path], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
