"""What goes wrong on purpose: ``make faults`` runs it, with ``ALL=1`` the rarer variants too."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def ended_by_sighup() -> Iterator[None]:
    """Runs that the tests start are ended by SIGHUP, although ``nohup make faults`` lets this one ignore it."""
    if is_ignored := signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    if is_ignored:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
