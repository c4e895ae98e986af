"""Profilers: where the time of serving processes goes, read from outside while they serve."""
