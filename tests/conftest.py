"""What holds for the whole suite: its order, what starts processes, and which processes measure coverage."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

import pytest_mlpatterns.plugin.session  # noqa: F401 - numpy loads once a process, and runs in this process forget modules

if TYPE_CHECKING:
    from collections.abc import Iterator

_COVERAGE = "COVERAGE_PROCESS_CONFIG"
"""Set where this process measures coverage; a Python that inherits it measures too, which costs it 0.1 s and more."""
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes take longest, so they come first: at the end no worker waits long for another."""
    slow = {_file_of(item) for item in items if item.get_closest_marker("processes")}
    items.sort(key=lambda item: _file_of(item) not in slow)


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


@pytest.fixture(scope="module", autouse=True)
def _coverage_of_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Processes measure coverage where a file asks for it by its marker; the others run the same code."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("covered_processes"):
            patch.delenv(_COVERAGE, raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite says the same where CI is set."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture(scope="session", params=[(), ("-n", "1")], ids=["serial", "xdist"])
def distribution(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Arguments that run a project in one process, and apart from the process that writes (pytest-xdist).

    What two workers did is put together in the tests of baselines and of the distribution itself.
    """
    return tuple(request.param)
