"""What a run will need, before it is run: memory, time, node-hours, by arithmetic."""
