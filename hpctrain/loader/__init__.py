"""The global order of samples, and batches from it."""
