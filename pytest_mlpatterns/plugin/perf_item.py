"""What the session knows of one collected perf test, in the stash of its item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.errors import MlpatternsError
    from pytest_mlpatterns.judging.perf import Perf

__all__ = ["PERF_ITEM", "PerfItem", "parameter_names"]


@dataclass(slots=True)
class PerfItem:
    """One perf test.

    Attributes:
        settings: what the test was asked to do.
        perf: its measurement; None before its fixture is set up.
        setup_error: why the fixture could not be set up; it fails the test's body.
    """

    settings: Settings
    perf: Perf | None = None
    setup_error: MlpatternsError | None = None


PERF_ITEM: pytest.StashKey[PerfItem] = pytest.StashKey()
"""Set for every collected test that uses our fixtures."""


def parameter_names(item: pytest.Item) -> list[str]:
    """The names in a test's id that a list of patterns or wires put there."""
    params: Mapping[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return [str(params[name]) for name in ("_perf_pattern", "_perf_wire") if name in params]
