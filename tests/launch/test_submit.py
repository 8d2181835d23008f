"""Submitting a run: what is found before the queue finds it, what is printed, what is kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from runner import Runner, environment

from hpctrain.config import load_config
from hpctrain.errors import ConfigError
from hpctrain.launch.check import Request, least_gpu_bytes
from hpctrain.launch.script import render
from hpctrain.launch.site import known_sites, load_site
from hpctrain.launch.submit import Submission, job_of, prepare
from hpctrain.train.config import RunConfig

CLUSTER: dict[str, Any] = {
    "name": "mine", "title": "A cluster", "default_queue": "long", "account_required": True,
    "queues": {
        "long": {"limits": [{"nodes": 2, "time": "24:00:00"}, {"nodes": 64, "time": "2-00:00:00"}]},
        "wide": {"options": ["--qos=wide"], "min_nodes": 16, "limits": [{"time": "12:00:00"}]},
        "cpus": {"gpus": False},
    },
    "node": {
        "gpus": 2, "gpu": "A GPU", "gpu_vendor": "nvidia", "gpu_memory_bytes": 2**34, "cores": 16,
        "local_storage": "/fast/$USER", "local_paths": ["/dev/shm"],
    },
    "environment": {"NCCL_SOCKET_IFNAME": "hsn0", "SRUN_MPI": "pmix"},
}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> str:
    """The path of a profile."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(CLUSTER))
    return str(path)


def prepared(
    runner: Runner, site: str, *overrides: str, command: str = "train", **request: Any
) -> Submission:
    """A run that asks for so much, checked for printing."""
    asked = Request(**{"account": "abc", **request})
    return prepare(runner.config(), overrides, command, site, asked, to_print=True)


def problems(runner: Runner, site: str, *overrides: str, command: str = "train", **request: Any) -> list[str]:
    """What is wrong with a run that asks for so much."""
    with pytest.raises(ConfigError) as caught:
        prepared(runner, site, *overrides, command=command, **request)
    return caught.value.problems


def test_a_good_run_is_rendered_with_the_sites_defaults(runner: Runner, site: str) -> None:
    lines = prepared(runner, site, "train.steps=9").text.splitlines()
    for line in (
        "#SBATCH --job-name=run",
        "#SBATCH --nodes=1",
        "#SBATCH --time=24:00:00",
        "#SBATCH --partition=long",
        "#SBATCH --account=abc",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --no-requeue",
        f'#SBATCH --output="{runner.directory}/run/logs/job-%j.log"',
        "export NCCL_SOCKET_IFNAME=hsn0",
        "export RANKS_PER_NODE=2",
        f"export VENV={sys.prefix}",
        f"run_ranks train {runner.directory}/run.yaml train.steps=9",
    ):
        assert line in lines, line
    assert not (runner.directory / "run").exists()


def test_the_request_wins_over_the_profile(runner: Runner, site: str) -> None:
    text = prepared(
        runner, site, "train.global_batch_size=192", queue="wide", nodes=16, time="01:00:00", job_name="j",
        gpus_per_node=1,
    ).text  # fmt: skip
    assert "--qos=wide\n" in text
    assert "--partition" not in text
    assert "--time=01:00:00\n" in text
    assert "--gpus-per-node=1\n" in text
    assert "--job-name=j\n" in text


def test_nodes_without_gpus_run_as_many_ranks_as_asked_for(runner: Runner, site: str) -> None:
    text = prepared(runner, site, queue="cpus", ranks_per_node=4).text
    assert "--gpus" not in text
    assert "export RANKS_PER_NODE=4\n" in text
    assert "--time" not in text  # no limit is known: the scheduler's own


def test_what_the_user_set_for_the_job_goes_into_its_script(
    runner: Runner, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRUN_MPI", "pmi2")
    monkeypatch.setenv("BROADCAST", "yes")
    monkeypatch.setenv("USER", "ada")
    text = prepared(runner, site).text
    assert "export SRUN_MPI=pmi2\n" in text
    assert "export BROADCAST=/fast/ada\n" in text
    assert "pmix" not in text


def test_the_jobs_of_a_chain_are_one_series(runner: Runner, site: str) -> None:
    text = prepared(runner, site, chain=3).text
    assert "--dependency=singleton\n" in text
    assert "--no-requeue\n" in text
    assert "export HPCTRAIN_SERIES=run-" in text
    assert text != prepared(runner, site, chain=3).text  # another chain is another series


@pytest.mark.parametrize(
    ("request_", "overrides", "problem"),
    [
        ({"account": None}, [], "--account: mine wants every job to name one"),
        ({"account": "a b"}, [], "--account: 'a b' must be"),
        ({"queue": "lang"}, [], "did you mean long?"),
        ({"nodes": 65}, [], "--nodes: 65, but long of mine takes at most 64"),
        ({"queue": "wide"}, [], "no fewer than 16"),
        ({"time": "24:00:01"}, [], "gives at most 24:00:00 with --nodes 1"),
        ({"time": "90"}, [], "--time: '90' is not a time"),
        ({"gpus_per_node": 4}, [], "a node of mine has 2"),
        ({"ranks_per_node": 4}, [], "run 2 ranks, one a GPU"),
        ({"queue": "cpus", "ranks_per_node": 17}, [], "a node of mine has 16 cores"),
        ({"nodes": 3}, [], "8 is not a multiple of micro_batch_size 2 x 6"),
        ({}, ["parallel.pipeline_stages=2", "parallel.zero_stage=2"], "cannot be combined with a pipeline"),
        ({}, ["schedule.warmup_steps=6"], "leaves nothing of train.steps"),
        ({}, ["run.dir=/dev/shm/run"], "/dev/shm, which each node of mine has for itself"),
        ({}, ["data.shards=/nowhere"], "data.shards: /nowhere: this shards does not exist"),
        ({}, ["run.dir=/etc/hostname/run"], "run.dir: /etc/hostname is not a directory"),
        ({}, ['run.dir="a%b"'], "carry all of its characters"),
        ({}, ["model={preset: 7b}"], "need at least 69.2 GiB of each GPU under ZeRO 1, 2 replicas"),
    ],
)  # fmt: skip
def test_each_problem_is_named(
    request_: dict[str, Any], overrides: list[str], problem: str, runner: Runner, site: str
) -> None:
    found = problems(runner, site, *overrides, **request_)
    assert [line for line in found if problem in line], found


def test_all_problems_are_said_at_once(runner: Runner, site: str) -> None:
    found = problems(runner, site, "train.step=3", "model.heads=3", nodes=99, time="x", account=None)
    assert len(found) == 5


def test_a_finetuning_needs_weights_to_start_from(runner: Runner, site: str) -> None:
    assert "needs a run to start from" in problems(runner, site, command="finetune")[0]
    other = f"run.start_from={runner.directory}/other"
    assert "has no checkpoint" in problems(runner, site, other, command="finetune")[0]
    (runner.directory / "other" / "checkpoints" / "step-00000001").mkdir(parents=True)
    (runner.directory / "other" / "checkpoints" / "step-00000001" / "manifest.json").touch()
    assert "\nrun_ranks finetune " in prepared(runner, site, other, command="finetune").text


def test_a_hand_brake_that_is_on_is_seen(runner: Runner, site: str) -> None:
    (runner.directory / "run").mkdir()
    (runner.directory / "run" / "stop").touch()
    assert "remove it to go on" in problems(runner, site)[0]


def test_an_environment_without_hpctrain_is_seen(
    runner: Runner, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENV", str(runner.directory))
    assert problems(runner, site) == [
        f"VENV: {runner.directory} has no bin/hpctrain; install with launch/install.sh, or set VENV"
    ]


def test_remarks_say_what_is_not_known_to_work(runner: Runner, site: str) -> None:
    assert [text for text in prepared(runner, site).remarks if "has not been tried" in text]
    assert [text for text in prepared(runner, site).remarks if "--chain N" in text]
    assert not [text for text in prepared(runner, site, chain=2).remarks if "--chain N" in text]


@pytest.mark.parametrize("name", sorted({*known_sites()} - {"laptop"}))
def test_the_scripts_of_all_sites_are_sound(name: str, runner: Runner) -> None:
    site, path = load_site(name), runner.directory / "script.sh"
    queues = list(site.queues) or [None]
    for queue in queues:
        request = Request(nodes=2, queue=queue, account="abc")
        config = load_config(runner.config(), [], RunConfig)
        path.write_text(
            render(job_of(config, "train", ("it's.yaml", "a=*"), site, request, Path(sys.prefix)))
        )
        subprocess.run(["bash", "-n", path], check=True)
        if shutil.which("shellcheck"):  # SC1091: it would read launch/job.sh too
            found = subprocess.run(["shellcheck", "--exclude=SC1091", path], capture_output=True, text=True)
            assert found.returncode == 0, found.stdout


SIZES = {"parameters": st.integers(1, 10**12), "replicas": st.integers(1, 4096), "stages": st.integers(1, 64)}


@given(precision=st.sampled_from(["fp32", "bf16"]), **SIZES)
def test_more_sharding_never_needs_more_memory(
    precision: str, parameters: int, replicas: int, stages: int
) -> None:
    needs = [least_gpu_bytes(parameters, precision, zero, replicas, stages) for zero in (1, 2, 3)]
    assert needs == sorted(needs, reverse=True)
    assert least_gpu_bytes(parameters, precision, 1, 1, 1) == 16 * parameters


def test_a_scheduler_that_is_not_here_is_named(runner: Runner, site: str) -> None:
    nowhere = {**environment(), "PATH": "/nowhere"}
    command = [
        sys.executable,
        "-m",
        "hpctrain",
        "submit",
        runner.config(),
        "--site",
        site,
        "--account",
        "abc",
    ]
    found = subprocess.run(command, env=nowhere, capture_output=True, text=True)
    assert found.returncode == 2
    assert "no sbatch here; run this on its login node, or look with --print" in found.stderr
    assert not (runner.directory / "run").exists()


PRINT = """
import sys
from hpctrain.cli.main import main
sys.argv = ["hpctrain", "submit", *sys.argv[1:], "--print"]
try:
    main()
except SystemExit as leave:
    assert not leave.code, leave.code
heavy = {"torch", "deepspeed", "transformers", "wandb"} & set(sys.modules)
sys.exit(f"submit imports {sorted(heavy)}" if heavy else 0)
"""


def test_printing_needs_no_torch(runner: Runner, site: str) -> None:
    command = [sys.executable, "-c", PRINT, runner.config(), "--site", site, "--account", "abc"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("#!/bin/bash\n#SBATCH")


@pytest.mark.ranks
def test_without_a_scheduler_the_ranks_start_here(runner: Runner) -> None:
    assert "no scheduler" in problems(runner, "laptop", account=None, nodes=2)[0]
    config = runner.config(train={"steps": 2})
    printed = runner.run("submit", config, "--site", "laptop", "--print").stdout
    assert printed.endswith(f"hpctrain train {config} --ranks 2\n")
    runner.run("submit", config, "--site", "laptop", "--ranks-per-node", "1")
    assert max(runner.curve()) == 2
    assert [event["world_size"] for event in runner.events() if event["event"] == "start"] == [1]
