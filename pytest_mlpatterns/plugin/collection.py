"""What pytest collected: files, tests, and the arguments of their perf markers.

Loaded with every pytest, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_mlpatterns.config.settings import Settings
    from pytest_mlpatterns.errors import MlpatternsError, PerfFailure, SettingError
    from pytest_mlpatterns.history.commit_runs import CommitJob
    from pytest_mlpatterns.judging.experiment import Experiment
    from pytest_mlpatterns.judging.perf import Perf

_MEASURES = "perf"  # The fixture that measures; the others deploy
_FIXTURES = (_MEASURES, "perf_deploy", "perf_deploy_session")  # Fixtures by whose use a test is a perf test
COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
"""Exit codes of a complete run."""
_DEFINED_IN = "pytest_mlpatterns.plugin.entry"
REFERENCE_TREES: pytest.StashKey[tuple[Path, Path]] = pytest.StashKey()
"""Set if this pytest only serves tests of another revision: the tops of the present tree and of that one."""
MEASURED_COMMIT: pytest.StashKey[CommitJob] = pytest.StashKey()
"""Set if this pytest measures an old commit, in a tree that is not the user's."""
PERF_ITEM: pytest.StashKey[PerfItem] = pytest.StashKey()  # Set for every collected test that uses our fixtures


def uses_our_fixtures(item: pytest.Item) -> bool:
    """Whether a test uses a fixture of this plugin that measures or deploys, and not another one of that name."""
    return any(_uses_ours(item, name) for name in _FIXTURES)


def measures(item: pytest.Item) -> bool:
    """Whether a test uses the fixture of this plugin that measures, so that it may be recorded as a baseline."""
    return _uses_ours(item, _MEASURES)


def _uses_ours(item: pytest.Item, fixture: str) -> bool:
    """Whether the closest definition of a fixture is ours, or asks for the one that it overrides, which is ours."""
    found: Mapping[str, Any] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    for definition in reversed(found.get(fixture, ())):
        if definition.func.__module__ == _DEFINED_IN:
            return True
        if fixture not in definition.argnames:
            return False
    return False


def may_ask_later(item: pytest.Item) -> bool:
    """Whether a test, or a fixture that it uses, may ask for one while it runs, with ``request.getfixturevalue``.

    pytest's own fixtures never ask for ours, and each test has them that is in a class with a ``setup_method``.
    """
    if (info := getattr(item, "_fixtureinfo", None)) is None:
        return False
    known: Mapping[str, Any] = info.name2fixturedefs
    used = (definition for definitions in known.values() for definition in definitions)
    asking = [one for one in used if "request" in one.argnames and one.func.__module__.partition(".")[0] != "_pytest"]
    return "request" in info.argnames or bool(asking)


@dataclass(slots=True)
class MarkerReading:
    """The perf markers of a test as one, or why they cannot be read."""

    # of all markers, the closest first; empty if they cannot be merged
    arguments: Mapping[str, Any] = field(default_factory=dict)
    # why they cannot be merged, or why a list in them makes no tests; None if they can
    error: SettingError | None = None


class Collection:
    """What was collected before options such as ``-k`` deselect tests."""

    def __init__(self) -> None:
        self.files: dict[str, bool] = {}
        self.failed: list[str] = []
        self.tests: dict[str, pytest.Item] = {}
        self._readings: dict[tuple[int, ...], tuple[list[pytest.Mark], MarkerReading]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file and its tests. A file of which single tests were named has no report of its own."""
        if report.failed:
            self.failed.append(report.nodeid)
        file, _, inside = report.nodeid.partition("::")
        if not inside or not report.passed:
            self.files[file] = report.passed and self.files.get(file, True)
        self.tests.update((node.nodeid, node) for node in report.result if isinstance(node, pytest.Item))

    def read_markers(self, node: pytest.Item) -> MarkerReading:
        """Merge the perf markers of a test: of its parameters, its function, class and module, the closest first.

        Each combination of markers is merged once; later calls give the same reading.
        """
        of_parameters = getattr(getattr(node, "callspec", None), "marks", ())
        marks = sorted(node.iter_markers("perf"), key=lambda mark: mark not in of_parameters)
        key = tuple(map(id, marks))
        if key not in self._readings:  # the marks are kept with the reading, so that no other object gets their id
            self._readings[key] = marks, _merged(marks)
        return self._readings[key][1]


def _merged(marks: list[pytest.Mark]) -> MarkerReading:
    from pytest_mlpatterns.config.arguments import merge_markers
    from pytest_mlpatterns.errors import SettingError

    try:
        return MarkerReading(merge_markers([(mark.args, mark.kwargs) for mark in marks]))
    except SettingError as error:
        return MarkerReading(error=error)


@dataclass(slots=True)
class PerfItem:
    """One perf test."""

    settings: Settings  # what the test was asked to do; defaults if its marker cannot be read
    marker_error: MlpatternsError | None = None  # why its marker cannot be read; it fails the test's body
    perf: Perf | None = None  # its measurement; None before its fixture is set up
    experiment: Experiment | None = None  # what it measures, in a pytest that serves another revision
    # why the fixture could not be set up, or the test cannot be compared as it is to be; it fails the test's body
    setup_error: MlpatternsError | PerfFailure | None = None
    properties: list[tuple[str, object]] = field(default_factory=list)
    advised: int = 0  # number of failures that the gate let pass and that are reported already
    subtest_errors: list[BaseException | None] = field(default_factory=list)

    def restart(self, item: pytest.Item) -> None:
        """Forget an earlier attempt to run the test, so that a rerun begins afresh."""
        self.perf, self.setup_error, self.advised = None, self.marker_error, 0
        item.user_properties[:] = [one for one in item.user_properties if one not in self.properties]
        self.properties.clear()
        self.subtest_errors.clear()


def perf_tests(session: pytest.Session) -> list[str]:
    """The ids of the perf tests that a process is to run."""
    return [item.nodeid for item in session.items if PERF_ITEM in item.stash]


def parameter_names(item: pytest.Item) -> list[str]:
    """The names in a test's id that a list of patterns or wires put there."""
    params: Mapping[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return [str(params[name]) for name in ("_perf_pattern", "_perf_wire") if name in params]
