"""The checkpoint section of a run's config."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from hpctrain.config import Section


class CheckpointConfig(Section):
    """When to save, how, and what to keep."""

    every_steps: int = Field(default=500, ge=1)
    """Steps from one save to the next; the last step is always saved."""
    background: bool = True
    """Write while the next steps run; a copy in host memory, 12 bytes a parameter over all ranks, is kept."""
    staging_dir: Path | None = None
    """Node-local directory, such as NVMe, that the copy is kept in instead of memory, and drained from."""
    keep: int = Field(default=3, ge=1)
    """Number of newest checkpoints that stay."""
    keep_every: int = Field(default=0, ge=0)
    """Checkpoints of every so many steps stay for good, step 0 too. A multiple of `every_steps`. 0: none."""
    keep_best: int = Field(default=0, ge=0)
    """Number of best checkpoints that stay, by held-out bits per byte, the mean over languages; only those
    of steps that were evaluated count."""
    patience_seconds: float = Field(default=1800.0, gt=0)
    """Longest wait of rank 0 for the other ranks' files, after its own is written."""
    start_anew: bool = False
    """Begin at step 0 although the run has saved before and nothing whole is left."""

    @model_validator(mode="after")
    def _check_keep_every(self) -> CheckpointConfig:
        if self.keep_every % self.every_steps:
            raise ValueError(
                f"keep_every {self.keep_every} is not a multiple of every_steps {self.every_steps}"
            )
        return self
