"""The decoder as one ordered list of layers."""
