"""Hooks of this plugin, for conftest files and other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

__all__ = ["pytest_mlpatterns_result"]


def pytest_mlpatterns_result(config: pytest.Config, result: dict[str, Any]) -> None:
    """A perf test was measured. Called once for each, in the process that writes, when its report has come there.

    Args:
        config: pytest's.
        result: what was measured and judged, as the file of ``--perf-json`` holds it; its own copy.
    """
