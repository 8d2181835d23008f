"""`hpctrain submit` on a real Slurm: what it hands over runs, is found again, and goes on in a chain."""

from __future__ import annotations

import re
import stat
import sys
from typing import Any

import pytest
import yaml
from cluster import ClusterError
from conftest import Desk, Job
from runner import Runner

SITE: dict[str, Any] = {
    "name": "test", "title": "The test cluster", "requeue": True, "header": ["--exclusive", "--mem=0"],
    "default_queue": "batch", "queues": {"batch": {"limits": [{"nodes": 4, "time": "00:20:00"}]}},
    "environment": {"OMP_NUM_THREADS": "1"},
}  # fmt: skip
# In place of hpctrain: tells its job and series, and stops early in the first job only.
STOPS_ONCE = """\
#!/bin/bash
echo "$SLURM_JOB_ID $HPCTRAIN_SERIES" >>"$(dirname "$0")/started"
[ "$(wc -l <"$(dirname "$0")/started")" -gt 1 ] || exit 75
"""


class Submitter:
    """Runs `hpctrain submit` on the cluster's controller."""

    def __init__(self, desk: Desk, runner: Runner) -> None:
        self.desk, self.runner = desk, runner
        self.site = runner.directory / "test.yaml"
        self.run = runner.directory / "a run"
        self.write_site()

    def write_site(self, **changes: Any) -> None:
        self.site.write_text(yaml.safe_dump({**SITE, **changes}))

    def __call__(self, *options: object, **variables: str) -> tuple[list[Job], str]:
        """Submit a run of two steps; its jobs and what was printed."""
        config = self.runner.config(run={"name": "test", "dir": str(self.run)}, train={"steps": 2})
        words = ["-m", "hpctrain", "submit", config, "--site", self.site, "--ranks-per-node", "1", *options]
        printed = self.desk.cluster.run(sys.executable, *words, **variables)
        line = next(line for line in printed.splitlines() if line.startswith("  job "))
        numbers = re.findall(r"\d+", line.partition("(")[0])
        jobs = [Job(self.desk.cluster, int(n), self.run / "logs" / f"job-{n}.log") for n in numbers]
        self.desk.jobs += jobs
        return jobs, printed


@pytest.fixture
def submit(desk: Desk, runner: Runner) -> Submitter:
    """Submits runs of this test."""
    return Submitter(desk, runner)


@pytest.mark.slow
@pytest.mark.ranks
def test_a_submitted_run_trains_on_two_nodes(submit: Submitter) -> None:
    (job,), printed = submit("--nodes", 2, "--time", "00:10:00")
    facts = job.facts()
    script = submit.run / "submitted-1.sh"
    nodes = facts["NumNodes"].partition("-")[0]  # `2-2` while it waits, `2` when it runs
    assert (facts["JobName"], nodes, facts["TimeLimit"]) == ("test", "2", "00:10:00")
    assert (facts["Partition"], facts["Requeue"], facts["Dependency"]) == ("batch", "1", "(null)")
    assert stat.S_IMODE(script.stat().st_mode) == 0o600
    assert stat.S_IMODE(submit.run.stat().st_mode) == 0o700
    assert f"tail -F '{job.log}'" in printed
    assert (job.end(), job.code) == ("COMPLETED", 0), job.output()
    assert "2 ranks on 2 nodes" in job.output()
    events = submit.runner.events("a run")
    assert [event["world_size"] for event in events if event["event"] == "start"] == [2]
    assert max(submit.runner.curve("a run")) == 2


def test_a_chain_goes_on_where_the_job_before_it_stopped(submit: Submitter) -> None:
    venv = submit.runner.directory / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "hpctrain").write_text(STOPS_ONCE)
    (venv / "bin" / "hpctrain").chmod(0o755)
    jobs, _ = submit("--chain", 3, VENV=str(venv))
    assert [(job.end(), job.code, job.restarts) for job in jobs] == [
        ("FAILED", 75, 0), ("COMPLETED", 0, 0), ("COMPLETED", 0, 0),
    ]  # fmt: skip
    starts = [line.split() for line in (venv / "bin" / "started").read_text().splitlines()]
    assert [int(number) for number, _ in starts] == [job.number for job in jobs]
    assert len({series for _, series in starts}) == 1
    assert [path.name for path in submit.run.glob("submitted-*")] == ["submitted-1.sh"]


def test_variables_of_sbatch_do_not_overrule_the_script(submit: Submitter) -> None:
    (job,), _ = submit(SBATCH_NO_REQUEUE="1", SBATCH_JOB_NAME="other", SBATCH_TIMELIMIT="00:05:00")
    facts = job.facts()
    assert (facts["JobName"], facts["Requeue"], facts["TimeLimit"]) == ("test", "1", "00:05:00")


def test_what_slurm_refuses_is_said_in_its_words_and_not_kept(submit: Submitter) -> None:
    submit.write_site(queues={}, default_queue=None)
    with pytest.raises(ClusterError, match=r"sbatch refused the job: .*invalid partition"):
        submit("--partition", "no-such")
    assert list(submit.run.glob("submitted-*")) == []
