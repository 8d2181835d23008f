"""What an evaluation found; see `hpctrain.tasks.result`."""

from hpctrain.tasks.result import Result, Sample, Score, Verdict

__all__ = ["Result", "Sample", "Score", "Verdict"]
