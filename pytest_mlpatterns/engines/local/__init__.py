"""The local engine: starts the process tree of a pattern on this machine."""
