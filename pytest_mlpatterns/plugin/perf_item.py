"""What the session knows of one collected perf test, in the stash of its item."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.errors import MlpatternsError
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.perf import Perf

__all__ = ["PERF_ITEM", "PerfItem", "parameter_names"]


@dataclass(slots=True)
class PerfItem:
    """One perf test.

    Attributes:
        settings: what the test was asked to do; defaults if its marker cannot be read.
        marker_error: why its marker cannot be read; it fails the test's body.
        perf: its measurement; None before its fixture is set up.
        experiment: what it measures, in a pytest that serves another revision.
        setup_error: why the fixture could not be set up; it fails the test's body.
        properties: what was added to the test's properties for JUnit.
        advised: number of failures that the gate let pass and that are reported already.
        subtest_errors: the exceptions of its subtests.
    """

    settings: Settings
    marker_error: MlpatternsError | None = None
    perf: Perf | None = None
    experiment: Experiment | None = None
    setup_error: MlpatternsError | None = None
    properties: list[tuple[str, object]] = field(default_factory=list)
    advised: int = 0
    subtest_errors: list[BaseException | None] = field(default_factory=list)

    def restart(self, item: pytest.Item) -> None:
        """Forget an earlier attempt to run the test, so that a rerun begins afresh."""
        self.perf, self.setup_error, self.advised = None, self.marker_error, 0
        item.user_properties[:] = [one for one in item.user_properties if one not in self.properties]
        self.properties.clear()
        self.subtest_errors.clear()


PERF_ITEM: pytest.StashKey[PerfItem] = pytest.StashKey()
"""Set for every collected test that uses our fixtures."""


def parameter_names(item: pytest.Item) -> list[str]:
    """The names in a test's id that a list of patterns or wires put there."""
    params: Mapping[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return [str(params[name]) for name in ("_perf_pattern", "_perf_wire") if name in params]
