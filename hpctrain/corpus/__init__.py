"""Source trees to documents."""
