"""Hooks of this plugin, for conftest files and other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def pytest_mlpatterns_result(config: pytest.Config, result: dict[str, Any]) -> None:
    """A perf test was measured.

    Called once for each test, in the process that writes the files.

    ``result``: figures and verdicts as in the file of ``--perf-json``; a copy.
    """
