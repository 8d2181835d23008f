"""Measures of a trained model, and generation."""
