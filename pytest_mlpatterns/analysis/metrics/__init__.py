"""Metrics as values, and what they are computed from."""
