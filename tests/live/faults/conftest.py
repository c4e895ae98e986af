"""What goes wrong on purpose: ``make faults`` runs it; ``make faults ALL=1`` runs the rarer variants too."""

import os
import signal
from collections.abc import Iterator

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``all_faults``, unless the environment says ``ALL=1``."""
    if os.environ.get("ALL") == "1":
        return
    rare = [item for item in items if item.get_closest_marker("all_faults") is not None]
    if rare:
        items[:] = [item for item in items if item.get_closest_marker("all_faults") is None]
        config.hook.pytest_deselected(items=rare)


@pytest.fixture(scope="session", autouse=True)
def ended_by_sighup() -> Iterator[None]:
    """Runs that the tests start are ended by SIGHUP, although ``nohup make faults`` lets this one ignore it."""
    if is_ignored := signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    if is_ignored:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
