"""Models for downstream tools."""
