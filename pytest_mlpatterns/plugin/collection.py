"""What pytest collected: files, tests, and the arguments of their perf markers.

Loaded with every pytest, so it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_mlpatterns.errors import SettingError

__all__ = ["Collection", "MarkerReading", "may_ask_later", "uses_our_fixtures"]

_FIXTURES = ("perf", "perf_deploy", "perf_deploy_session")
_DEFINED_IN = "pytest_mlpatterns.plugin.entry"


def uses_our_fixtures(item: pytest.Item) -> bool:
    """Whether a test uses a fixture of this plugin that measures or deploys, and not another one of that name."""
    found: Mapping[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    return any(_leads_to_ours(name, found.get(name, ())) for name in _FIXTURES)


def may_ask_later(item: pytest.Item) -> bool:
    """Whether a test may ask for a fixture while it runs, with ``request.getfixturevalue``."""
    return "request" in getattr(item, "fixturenames", ())


def _leads_to_ours(name: str, definitions: Sequence[Any]) -> bool:
    """Whether the closest definition of a fixture is ours, or asks for the one that it overrides, which is ours."""
    for definition in reversed(definitions):
        if definition.func.__module__ == _DEFINED_IN:
            return True
        if name not in definition.argnames:
            return False
    return False


@dataclass(slots=True)
class MarkerReading:
    """The perf markers of a test as one, or why they cannot be read.

    Attributes:
        arguments: of all markers, the closest first; empty if they cannot be merged.
        error: why they cannot be merged, or why a list in them makes no tests; None if they can.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: SettingError | None = None


class Collection:
    """What was collected before options such as ``-k`` deselect tests.

    Attributes:
        files: ids of the files that were collected as a whole, and whether that went without errors.
        tests: tests by id.
    """

    def __init__(self) -> None:
        self.files: dict[str, bool] = {}
        self.tests: dict[str, pytest.Item] = {}
        self._readings: dict[tuple[int, ...], tuple[list[pytest.Mark], MarkerReading]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file and its tests. A file of which single tests were named has no report of its own."""
        file, _, inside = report.nodeid.partition("::")
        if not inside or not report.passed:
            self.files[file] = report.passed and self.files.get(file, True)
        self.tests.update((node.nodeid, node) for node in report.result if isinstance(node, pytest.Item))

    def read_markers(self, node: pytest.Item) -> MarkerReading:
        """Merge the perf markers of a test: of its parameters, its function, class and module, the closest first.

        Each combination of markers is merged once; later calls give the same reading.

        Args:
            node: a test, or the definition of tests that are still to be parametrized.
        """
        of_parameters = getattr(getattr(node, "callspec", None), "marks", ())
        marks = sorted(node.iter_markers("perf"), key=lambda mark: mark not in of_parameters)
        key = tuple(map(id, marks))
        if key not in self._readings:  # the marks are kept with the reading, so that no other object gets their id
            self._readings[key] = marks, _merged(marks)
        return self._readings[key][1]


def _merged(marks: list[pytest.Mark]) -> MarkerReading:
    from pytest_mlpatterns.config.settings import merge_markers
    from pytest_mlpatterns.errors import SettingError

    try:
        return MarkerReading(merge_markers([(mark.args, mark.kwargs) for mark in marks]))
    except SettingError as error:
        return MarkerReading(error=error)
