"""Fixtures of the whole suite: what runs plugin tests serially and distributed."""

from __future__ import annotations

import signal

import pytest

import pytest_mlpatterns.plugin.session  # noqa: F401 - numpy loads once a process, and runs in this process forget modules

pytest_plugins = ["pytester"]

_RUNS_PYTEST = {"Project", "Repository", "subprocess"}
"""A file whose tests run pytest imports one of these."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run pytest take longest, so they come first: at the end no worker waits long for another."""
    items.sort(key=lambda item: not _RUNS_PYTEST.intersection(vars(item.getparent(pytest.Module).obj)))  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite says the same where CI is set."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture(scope="session", params=[(), ("-n", "2")], ids=["serial", "xdist"])
def distribution(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Arguments that run a project serially, and over two workers of pytest-xdist."""
    return tuple(request.param)
