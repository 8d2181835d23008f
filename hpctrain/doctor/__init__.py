"""The preflight: what would fail or be slow is found before a job burns its allocation."""
