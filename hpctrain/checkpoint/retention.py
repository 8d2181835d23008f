"""Which checkpoints stay."""

from __future__ import annotations

import shutil
from pathlib import Path

from hpctrain.checkpoint.restore import checkpoint_directories
from hpctrain.manifest import MANIFEST_NAME


def retire(directory: Path, keep: int) -> list[str]:
    """Delete all but the newest `keep` checkpoints and return their names.

    Call it after a save has been committed, so that the newest is known to be whole. Each goes manifest
    first: one that is deleted by half is no checkpoint.
    """
    retired = checkpoint_directories(directory)[keep:]
    for path in retired:
        (path / MANIFEST_NAME).unlink()
        shutil.rmtree(path)
    return [path.name for path in retired]
