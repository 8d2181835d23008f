"""Measurements against peers: `python -m bench NAME` prints a table."""
