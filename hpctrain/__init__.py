"""hpctrain: train language models for HPC code on HPC clusters."""

__version__ = "0.1.0"
