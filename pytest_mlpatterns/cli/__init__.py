"""``python -m pytest_mlpatterns``: works with result files, and writes a first test."""

from pytest_mlpatterns.cli.command_line import main

__all__ = ["main"]
