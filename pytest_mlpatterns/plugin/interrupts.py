"""Ctrl-C, SIGTERM and SIGHUP: each ends a run with what was measured until then; a second one shortens the end only.

pytest dies of SIGTERM, which job schedulers and CI send at a time limit, and of SIGHUP, which a closed terminal sends:
its results would be lost. Here both interrupt a run that has perf tests, as Ctrl-C does. A second interrupt ends what
the first is waiting for, such as the teardown of a fixture; files and summary are written nevertheless.

Each write to a closed terminal fails, also the first line of a summary, so that the files after this line would be
lost. Therefore its descriptors are replaced by the null device.
"""

import contextlib
import functools
import os
import select
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType

import pytest

from pytest_mlpatterns.errors import MlpatternsError, is_of_interrupt

_ENDING = (signal.SIGTERM, signal.SIGHUP)  # Signals that end a run as Ctrl-C does
_DESCRIPTORS = "/dev/fd"


class InterruptHooks:
    """SIGTERM and SIGHUP interrupt this process from now on, until pytest is done.

    A handler of anyone else stays, and so does a signal that is ignored, as ``nohup`` ignores SIGHUP.
    """

    def __init__(self, *, writes_results: bool) -> None:
        self._ended_by: signal.Signals | None = None
        self._terminals = Terminals()
        takes = writes_results and _in_main_thread()
        self._installed = [one for one in _ENDING if takes and signal.getsignal(one) is signal.SIG_DFL]
        for number in self._installed:
            signal.signal(number, self._interrupt)
        if self._installed:
            _spare_forked_children()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the signal; pytest names a KeyboardInterrupt only."""
        if self._ended_by is not None:
            name = self._ended_by.name
            terminalreporter.write_line(f"{name} ended this run; its results are those measured until then", red=True)

    def pytest_unconfigure(self) -> None:
        """Restore the default of the signals."""
        while self._installed and _in_main_thread():
            signal.signal(self._installed.pop(), signal.SIG_DFL)

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self._ended_by = signal.Signals(number)
        if self._ended_by is signal.SIGHUP:
            self._terminals.replace_closed()  # pytest would fail at its next line, and write no results
        raise KeyboardInterrupt


@contextlib.contextmanager
def written_first() -> Iterator[None]:
    """Let a block that writes results run to its end; an interrupt meanwhile takes effect after it."""
    arrived: list[Callable[[], object]] = []

    def noting(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        return lambda number, frame: arrived.append(lambda: handler(number, frame))

    numbers = (signal.SIGINT, *_ENDING) if _in_main_thread() else ()
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
    return isinstance(error, MlpatternsError) and is_of_interrupt(error)


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
    """The signals end a child that a test forks, as without this plugin.

    They are blocked during the fork: Python forgets what arrives between the fork and the child's first step.
    """

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ours())

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ours())

    def restore() -> None:
        ours = _ours()
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=restore)


def _ours() -> list[signal.Signals]:
    """The signals that interrupt this process now."""
    return [one for one in _ENDING if isinstance(getattr(signal.getsignal(one), "__self__", None), InterruptHooks)]


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Terminals:
    """The terminals that this process has open."""

    def __init__(self) -> None:
        self._devices = {device for descriptor, device in _devices() if os.isatty(descriptor)}

    def replace_closed(self) -> None:
        """Point each descriptor of one of these terminals that is closed at the null device."""
        closed = [one for one, device in _devices() if device in self._devices and _is_closed(one)]
        if closed:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in closed:  # pytest keeps copies of them while it captures output
                os.dup2(nowhere, descriptor, inheritable=os.get_inheritable(descriptor))
            os.close(nowhere)


def _devices() -> Iterator[tuple[int, int]]:
    """The open descriptors of this process, each with the number of its device."""
    with contextlib.suppress(FileNotFoundError):  # a container without it has no terminal either
        for name in os.listdir(_DESCRIPTORS):
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                yield int(name), os.fstat(int(name)).st_rdev


def _is_closed(descriptor: int) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, 0)  # the end of the other side is reported unasked
    return any(events & select.POLLHUP for _, events in waiting.poll(0))
