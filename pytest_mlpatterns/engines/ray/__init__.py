"""The Ray engine: starts the process tree of a pattern as one application of Ray Serve."""
