"""Check a run, render its batch script, hand it to the scheduler, and say how to watch it."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpctrain.config import load_config
from hpctrain.errors import ConfigError, LaunchError
from hpctrain.launch.check import (
    Request,
    allocation_problems,
    gpus_per_node,
    machine_problems,
    queue_of,
    ranks_per_node,
    remarks,
    run_problems,
    seconds,
)
from hpctrain.launch.script import Job, render
from hpctrain.launch.site import Site, load_site, project_directory
from hpctrain.progress import duration
from hpctrain.train.brake import SAVE_FILE, STOP_FILE
from hpctrain.train.config import RunConfig
from hpctrain.train.metrics import EVENTS_NAME

_QUEUE_OPTION = {"slurm": "--partition=", "pbs": "-q ", "flux": "--queue="}
_GPU_OPTION = {"slurm": "--gpus-per-node={gpus}", "pbs": None, "flux": "--gpus-per-node={gpus}"}
JOB_VARIABLES = ("BROADCAST", "BROADCAST_CACHE", "BROADCAST_COMPRESSION", "LAUNCHER", "SRUN_MPI")
"""What launch/job.sh reads: set when a job is submitted, they are written into its script."""
# sbatch lets these win over what the script's header says.
_SBATCH_VARIABLES = (
    "SBATCH_ACCOUNT", "SBATCH_JOB_NAME", "SBATCH_NO_REQUEUE", "SBATCH_OPEN_MODE", "SBATCH_OUTPUT",
    "SBATCH_PARTITION", "SBATCH_QOS", "SBATCH_REQUEUE", "SBATCH_SIGNAL", "SBATCH_TIMELIMIT",
)  # fmt: skip


@dataclass(frozen=True)
class Submission:
    """A run that was checked, and the batch script for it."""

    site: Site
    request: Request
    run: Path
    """The run directory."""
    text: str
    """The batch script; where there is no scheduler, the command below as a line of shell."""
    local: tuple[str, ...]
    """Where there is no scheduler: the command to run here."""
    remarks: Sequence[str]


def prepare(
    config: Path, overrides: Sequence[str], command: str, site_name: str, request: Request, to_print: bool
) -> Submission:
    """Check everything and render the batch script. Raises ConfigError with every problem at once."""
    site = load_site(site_name)
    venv = Path(os.environ.get("VENV") or sys.prefix).absolute()
    problems = [*allocation_problems(site, request), *machine_problems(site, venv, to_print)]
    try:
        record = load_config(config, overrides, RunConfig)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    problems += run_problems(record, command, site, request)
    if problems:
        raise ConfigError(problems)
    words = (str(config), *overrides)
    local: tuple[str, ...] = ()
    if site.scheduler == "none":
        ranks = str(ranks_per_node(site, request))
        local = (sys.executable, "-m", "hpctrain", command, *words, "--ranks", ranks)
        text = shlex.join(local) + "\n"
    else:
        text = render(job_of(record, command, words, site, request, venv))
    return Submission(site, request, record.run.dir.absolute(), text, local, remarks(site, request))


def job_of(
    config: RunConfig, command: str, words: tuple[str, ...], site: Site, request: Request, venv: Path
) -> Job:
    """The job that runs `hpctrain COMMAND WORDS` on a site, from the present directory."""
    name, queue = queue_of(site, request)
    gpus = gpus_per_node(site, request)
    gpu_option = site.gpu_option or _GPU_OPTION[site.scheduler]
    by_name = [f"{_QUEUE_OPTION[site.scheduler]}{name}"] if name else []
    chained = request.chain > 1
    given = {name: os.environ[name] for name in JOB_VARIABLES if name in os.environ}
    if given.get("BROADCAST") == "yes" and site.node.local_storage is not None:
        given["BROADCAST"] = os.path.expandvars(site.node.local_storage)
    series = {"HPCTRAIN_SERIES": f"{config.run.name}-{secrets.token_hex(4)}"} if chained else {}
    return Job(
        scheduler=site.scheduler,
        name=request.job_name or config.run.name,
        nodes=request.nodes,
        seconds=seconds(site, request),
        queue_options=tuple(queue.options or by_name),
        account=request.account,
        gpu_option=gpu_option.replace("{gpus}", str(gpus)) if gpu_option and gpus else None,
        pbs_chunk=site.pbs_chunk,
        header=tuple(site.header),
        logs=config.run.dir.absolute() / "logs",
        requeue=site.requeue and not chained,
        singleton=chained,
        setup=tuple(site.setup),
        directory=Path.cwd(),
        script=project_directory() / "launch" / "job.sh",
        command=command,
        arguments=words,
        environment={
            **site.environment, **given, "VENV": str(venv),
            "RANKS_PER_NODE": str(ranks_per_node(site, request)), **series,
        },
        note=f"by hpctrain submit for the site {site.name}",
    )  # fmt: skip


def hand_over(submission: Submission) -> tuple[Path, list[str]]:
    """Keep the script in the run directory and submit it, as often as the chain is long.

    Returns the kept script and the job ids. Raises LaunchError if the scheduler refuses.
    """
    script = _keep(submission)
    jobs: list[str] = []
    for _ in range(submission.request.chain):
        try:
            jobs.append(_submit(submission.site.scheduler, script, jobs[-1] if jobs else None))
        except LaunchError as error:
            if not jobs:
                script.unlink()  # what is kept was submitted
                raise
            raise LaunchError(f"{error}; before it, these were submitted: {', '.join(jobs)}") from None
    return script, jobs


def _keep(submission: Submission) -> Path:
    """Write the script to the first free RUN/submitted-N.sh, for the user's eyes only."""
    number = 1
    try:
        submission.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        (submission.run / "logs").mkdir(exist_ok=True)
        while (path := submission.run / f"submitted-{number}.sh").exists():
            number += 1
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(submission.text, encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"run.dir: {error.filename}: {error.strerror}") from None
    return path


def _submit(scheduler: str, script: Path, previous: str | None) -> str:
    """Submit one job and return its id. A job of a chain waits for the one before, however that ends."""
    command = {
        "slurm": ["sbatch", "--parsable"],  # its header says that it waits: --dependency=singleton
        "pbs": ["qsub", *(["-W", f"depend=afterany:{previous}"] if previous else [])],
        "flux": ["flux", "batch", *([f"--dependency=afterany:{previous}"] if previous else [])],
    }[scheduler]
    environment = {key: value for key, value in os.environ.items() if key not in _SBATCH_VARIABLES}
    try:
        found = subprocess.run([*command, str(script)], capture_output=True, text=True, env=environment)
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be run: {error.strerror}") from None
    printed = found.stdout.strip()
    if found.returncode or not printed:
        raise LaunchError(f"{command[0]} refused the job: {found.stderr.strip() or printed}")
    return printed.splitlines()[-1].split(";")[0]  # sbatch adds ;CLUSTER where there are several


def how_to_watch(submission: Submission, script: Path, jobs: Sequence[str]) -> str:
    """What was submitted, where to look, and how to stop it: for the terminal."""
    site, request, run = submission.site, submission.request, submission.run
    log = {"slurm": "job-{}.log", "pbs": "{}.OU", "flux": "job-{}.log"}[site.scheduler].format(jobs[0])
    status = {"slurm": "squeue --jobs {}", "pbs": "qstat {}", "flux": "flux jobs {}"}[site.scheduler]
    separator = "," if site.scheduler == "slurm" else " "
    time = seconds(site, request)
    size = [
        _count(request.nodes, "node"), _count(request.nodes * ranks_per_node(site, request), "rank"),
        *([f"up to {duration(time)}"] if time is not None else []),
        *([f"{request.chain} jobs in a row"] if request.chain > 1 else []),
    ]  # fmt: skip
    rows = {
        "job": f"{', '.join(jobs)}  ({', '.join(size)})",
        "script": str(script),
        "status": status.format(separator.join(jobs)),
        "log": f"tail -F {shlex.quote(str(run / 'logs' / log))}",
        "events": f"tail -F {shlex.quote(str(run / EVENTS_NAME))}",
        "save now": f"touch {shlex.quote(str(run / SAVE_FILE))}",
        "stop": f"touch {shlex.quote(str(run / STOP_FILE))}",
    }
    return "\n".join(f"  {name:<10}{text}" for name, text in rows.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
