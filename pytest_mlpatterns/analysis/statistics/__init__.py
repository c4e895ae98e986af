"""Intervals, distributions and tests, of values whose meaning they do not know."""
