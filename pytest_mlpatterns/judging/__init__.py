"""One perf test: measure, decide, compare, assert."""
