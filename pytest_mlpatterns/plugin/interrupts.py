"""Ctrl-C and SIGTERM: both end a run with what was measured until then, and a second one shortens the end only.

pytest dies of SIGTERM, which job schedulers and CI send at a time limit: its results would be lost. Here SIGTERM
interrupts a run that has perf tests, as Ctrl-C does. A second interrupt ends what the first is waiting for, such as the
teardown of a fixture; files and summary are written all the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from pytest_mlpatterns.errors import MlpatternsError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import FrameType

__all__ = ["InterruptHooks", "ends_with_summary", "follows_an_interrupt", "written_first"]


class InterruptHooks:
    """SIGTERM interrupts this process from now on, until pytest is done; a handler of anyone else stays.

    Args:
        writes_results: whether this process does; another one ends as it would without this plugin.
    """

    def __init__(self, *, writes_results: bool) -> None:
        self._is_terminated = False
        is_free = _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        self._is_installed = writes_results and is_free
        if self._is_installed:
            signal.signal(signal.SIGTERM, self._interrupt)
            _spare_forked_children()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say that it was SIGTERM; pytest names a KeyboardInterrupt only."""
        if self._is_terminated:
            terminalreporter.write_line("SIGTERM ended this run; its results are those measured until then", red=True)

    def pytest_unconfigure(self) -> None:
        """Restore the default of SIGTERM."""
        if self._is_installed and _in_main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._is_installed = False

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._is_terminated = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def written_first() -> Iterator[None]:
    """Let a block that writes results run to its end; an interrupt meanwhile takes effect after it."""
    arrived: list[Callable[[], object]] = []

    def noting(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        return lambda number, frame: arrived.append(lambda: handler(number, frame))

    numbers = (signal.SIGINT, signal.SIGTERM) if _in_main_thread() else ()
    handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    for number, handler in handlers.items():
        signal.signal(number, noting(handler))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for handle in arrived:
        handle()


def follows_an_interrupt(error: BaseException | None) -> bool:
    """Whether an error of this package was raised while an interrupt was handled, which it must not replace.

    An interrupt can end processes, or cut a conversation with them; what cleans up after it then fails.
    """
    if not isinstance(error, MlpatternsError):
        return False
    behind = error.__context__
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind is not None


@contextlib.contextmanager
def ends_with_summary(session: pytest.Session, exitstatus: int) -> Generator[None]:
    """Let pytest print its summary although an interrupt cuts the end of the session, such as a fixture's teardown."""
    try:
        yield
    except KeyboardInterrupt:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
        if exitstatus != pytest.ExitCode.INTERRUPTED:
            session.config.hook.pytest_keyboard_interrupt(excinfo=pytest.ExceptionInfo.from_current())


@functools.cache
def _spare_forked_children() -> None:
    """SIGTERM ends a child that a test forks, as ever.

    It is blocked during the fork: Python forgets what arrives between the fork and the child's first step.
    """

    def block() -> None:
        if _is_ours():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def unblock() -> None:
        if _is_ours():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def restore() -> None:
        if _is_ours():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=restore)


def _is_ours() -> bool:
    return isinstance(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), InterruptHooks)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
