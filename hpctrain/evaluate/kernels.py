"""The suite `kernels`: serial in, parallel out, for the pairs of examples/kernels in held-back variants."""

from __future__ import annotations

from pathlib import Path

from hpctrain.evaluate.candidate import Candidate
from hpctrain.evaluate.executed import Task, run_tasks
from hpctrain.evaluate.held_back import read_pairs
from hpctrain.evaluate.judge import Judge
from hpctrain.evaluate.suites import SuiteOptions
from hpctrain.sandbox.run import Sandbox
from hpctrain.tasks.result import Result


def run_kernels(candidate: Candidate, options: SuiteOptions) -> Result:
    """Ask for the parallel form of each pair, build it, run it, and compare with the serial one.

    Without a CUDA device, CUDA answers are built and not run. Raises LaunchError without a sandbox, DataError
    where there are no pairs.
    """
    judge = Judge(Sandbox(options.unsafe))
    pairs = read_pairs(options.problems or default_pairs(), options.counts)
    return run_tasks("kernels", candidate, [Task(p.problem, p.job, p.unit) for p in pairs], options, judge)


def default_pairs() -> Path:
    """The pairs beside the package, where it runs from its own tree."""
    return Path(__file__).parents[2] / "examples" / "kernels"
