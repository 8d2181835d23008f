"""Public base models as the beginning of a run."""
