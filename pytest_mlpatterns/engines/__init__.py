"""Engines: each starts the process tree of a pattern, on this machine or on a cluster."""
