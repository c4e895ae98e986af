"""Child processes with a lifeline: they start, exchange values with their parent, and never outlive it.

A child is a fresh Python that runs ``main()`` of a module of this package. Parent and child exchange pickled values
over two pipes. That of the child's messages is not its standard output, to which a ``sitecustomize`` may print before
any code of this package runs. When the parent ends, for any reason, the child's input closes; the child then ends
itself and all processes that it started, daemons included. :meth:`Child.stop` uses the same path, and ends the
processes that a killed child left behind. ``multiprocessing``, ``execnet`` and ``loky`` offer no such lifeline, or
import the user's ``__main__`` again.
"""

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Generic, NoReturn, TypeVar

import psutil
from msgspec import Struct

from pytest_mlpatterns.errors import ChildError
from pytest_mlpatterns.system import orphans
from pytest_mlpatterns.system.cpu_share import current_share
from pytest_mlpatterns.system.log_file import LOOK_S, LogFile
from pytest_mlpatterns.system.pipe_messages import MessageWriter, read_message

_WATCH_S = 0.25  # Interval at which a process looks whether its parent is gone, in seconds: a look takes microseconds
_PATIENCE_S = 30.0  # Longest time in which a child takes no byte of a message; a busy one reads in a thread of its own
_PROGRAM = "from {} import main; main(); from pytest_mlpatterns.system.child import leave; leave()"
"""What the Python of a child runs; the module has its place in it."""
_CHANNEL = "PYTEST_MLPATTERNS_CHANNEL"
"""Environment variable with the descriptor to which a child writes its messages."""
_GRACE_S = 1.5  # Grace period of a child after its input closed; then its whole process group is killed


_T = TypeVar("_T")  # Type of a value


class Mailbox(Generic[_T]):
    """Values for a thread that waits for them, from other threads and from signal handlers.

    ``queue.SimpleQueue`` of Python 3.11 and 3.12 waits for ever if its thread gets no processor until the time-out is
    over, and ``queue.Queue`` has a lock that the thread may hold when a signal comes.
    """

    def __init__(self) -> None:
        self._values: deque[_T] = deque()
        self._filled = threading.Lock()  # held while nothing has come since the last look

    def put(self, value: _T) -> None:
        """Add a value."""
        self._values.append(value)
        with contextlib.suppress(RuntimeError):  # it is not held
            self._filled.release()

    def get(self, timeout_s: float = 0.0) -> _T:
        """The oldest value; raises TimeoutError if none comes in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(IndexError):
                return self._values.popleft()
            left_s = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
            if left_s <= 0 or not self._filled.acquire(timeout=left_s):
                raise TimeoutError


class _Farewell(Struct, frozen=True):
    """The last message of a child that ends in good order."""

    below: tuple[int, ...]


class Child:
    """The parent's handle of a child process.

    ``module``: dotted name of the module whose ``main()`` the child runs. ``python``: the command of an
    interpreter whose environment has this package; None for this process's own.
    """

    def __init__(
        self,
        module: str,
        *,
        log: Path,
        pass_fds: Sequence[int] = (),
        on_end: Callable[[], None] | None = None,
        python: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._log = LogFile(log)
        self._mark, self._on_end = str(log), on_end
        self._stopped = False
        self._farewell: _Farewell | None = None
        share = current_share()
        output = self._log.create()
        reading, writing = os.pipe()
        stream = os.fdopen(reading, "rb", buffering=0)
        try:
            with contextlib.nullcontext() if share is None else share.inherited():
                self._process = subprocess.Popen(
                    [*([sys.executable] if python is None else python), "-P", "-c", _PROGRAM.format(module)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(env or {}), orphans.MARK: self._mark, _CHANNEL: str(writing)},
                    start_new_session=True,
                    pass_fds=(*pass_fds, writing),
                    bufsize=0,
                )
            if share is not None:
                share.admit(self._process.pid)
        except BaseException:
            stream.close()
            raise
        finally:
            os.close(output)
            os.close(writing)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._writer, self._writing = MessageWriter(self._process.stdin), threading.Lock()
        self._messages: Mailbox[Any] = Mailbox()
        self._gone = object()
        self._read_out = threading.Event()
        threading.Thread(target=self._pump, args=(stream,), name=f"messages of {module}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, message: object) -> None:
        """Send one value to the child, after the rest of one that an interrupt cut; several threads may."""
        try:
            with self._writing:
                self._writer.write(message, _PATIENCE_S)
        except TimeoutError:
            raise ChildError(
                f"process {self.pid} has read nothing of a message for {_PATIENCE_S:.0f} s; is it stopped?"
            ) from None
        except OSError as error:
            raise ChildError(self._describe_end()) from error

    def receive(self, timeout_s: float) -> Any:
        """The next value from the child; raises TimeoutError if none comes in time."""
        message = self._messages.get(timeout_s)
        if message is self._gone:
            self._messages.put(message)
            raise ChildError(self._describe_end())
        return message

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the child's output."""
        return self._log.tail(lines)

    def resume(self) -> None:
        """Let the process go on if it was stopped (SIGSTOP): it cannot end otherwise."""
        self._process.send_signal(signal.SIGCONT)

    def close_channel(self) -> None:
        """Ask the child to end, without waiting for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def stop(self, *, sessions: Collection[int] = (), grace_s: float = orphans.GRACE_S) -> orphans.Stopped:
        """End the child and all processes that descend from it, and wait until they are gone. Safe to call twice."""
        if self._stopped:  # by now the system may have given the group's id to another process
            return orphans.Stopped()
        self._stopped = True
        self.resume()
        self.close_channel()
        family: set[psutil.Process] = set()
        try:
            self._process.wait(_GRACE_S + 1.0)
        except subprocess.TimeoutExpired:
            family = orphans.below(self.pid)
            _kill_group(self._process.pid)
            self._process.wait()
        self._read_out.wait(4 * LOOK_S)
        if self._farewell == _Farewell(()):
            return orphans.Stopped()
        return self._end_family(family, sessions, grace_s)

    def _end_family(self, known: set[psutil.Process], sessions: Collection[int], grace_s: float) -> orphans.Stopped:
        """End the processes that the child left behind."""
        if self._farewell is not None:
            known |= orphans.with_ids(self._farewell.below)
        find = partial(orphans.related, self._mark, {self.pid, *sessions})
        known |= find()
        orphans.terminate(known)
        return orphans.end_remaining(lambda: orphans.alive(known) | find(), grace_s)

    def _pump(self, stream: IO[bytes]) -> None:
        """Pass messages on until the child has ended or hung up; a daemon of the child can hold the pipe open."""
        with contextlib.suppress(EOFError, OSError), stream:
            awaited = select.poll()
            awaited.register(stream, select.POLLIN)
            while True:
                has_ended = self.has_ended
                if awaited.poll(0 if has_ended else 1000 * LOOK_S):
                    self._take(read_message(stream))
                elif has_ended:
                    break
                self._log.limit()
        self._messages.put(self._gone)
        self._read_out.set()
        if self._on_end is not None:
            self._on_end()

    def _take(self, message: object) -> None:
        if isinstance(message, _Farewell):
            self._farewell = message
        else:
            self._messages.put(message)

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return f"process {self.pid} closed its channel but still runs"
        tail = self.log_tail()
        return f"process {self.pid} ended with {orphans.describe_exit(code)}" + (
            f"; it printed last:\n{tail}" if tail else ""
        )


class Channel:
    """The child's end of the pipes: created once at the start of its ``main()``."""

    def __init__(self) -> None:
        writing = int(os.environ.pop(_CHANNEL))
        os.set_inheritable(writing, False)
        self._writer = MessageWriter(os.fdopen(writing, "wb", buffering=0))
        self._in = os.fdopen(os.dup(0), "rb", buffering=0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._writing = threading.Lock()
        self._parent = os.getppid()
        self._pid = os.getpid()
        self._leaving = threading.Lock()
        atexit.register(self._leave)

    def send(self, message: object) -> None:
        """Send one value to the parent. A parent that is gone is no error: the lifeline ends this process."""
        with contextlib.suppress(BrokenPipeError), self._writing:
            self._writer.write(message)

    def receive(self) -> Any:
        """The next value from the parent. Raises EOFError if the parent closed the channel or is gone."""
        while not select.select([self._in], [], [], 1.0)[0]:
            if os.getppid() != self._parent:  # a forked copy of the parent can hold the pipe open after its death
                raise EOFError
        return read_message(self._in)

    def listen(self, on_message: Callable[[Any], None], on_close: Callable[[], None]) -> None:
        """Pass every further value to ``on_message``, in a thread of its own; call ``on_close`` when the parent is
        gone.

        After ``on_close`` the process has a grace period to end by itself; then its whole group is killed.
        """
        threading.Thread(target=self._listen, args=(on_message, on_close), name="lifeline", daemon=True).start()

    def _parent_is_gone(self) -> bool:
        """Whether the parent has ended, or begun to: it closes its pipes before it leaves its children to another."""
        return os.getppid() != self._parent or orphans.is_ending(self._parent)

    def _leave(self) -> None:
        """Report the processes that this one started and that still run; end them if the parent is gone."""
        if os.getpid() != self._pid or not self._leaving.acquire(blocking=False):  # a forked copy, or done already
            return
        family = orphans.below(self._pid) if orphans.has_children() else set()
        if not self._parent_is_gone():
            with contextlib.suppress(OSError):
                self.send(_Farewell(tuple(process.pid for process in family)))
        if self._parent_is_gone():  # also if it died meanwhile
            orphans.terminate(family)
            orphans.end_remaining(lambda: orphans.alive(family) | orphans.below(self._pid), orphans.GRACE_S)

    def _listen(self, on_message: Callable[[Any], None], on_close: Callable[[], None]) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    on_message(self.receive())
            on_close()
            time.sleep(_GRACE_S)  # the deadline of a process that should have ended by now, no wait for an event
            self._leave()
        except BaseException:
            traceback.print_exc()  # into the log; without this thread the process would outlive its parent
            raise
        finally:
            _kill_group(0)


def leave() -> NoReturn:
    """End this process, whose work is done, as the end of Python does but for what takes its modules apart.

    That changes nothing that can be seen, and takes 0.2 s of the processor after ``import sklearn.ensemble``.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as multiprocessing does it
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or replaced by the model
            stream.flush()
    os._exit(0)


def interrupt() -> None:
    """Interrupt this process, as Ctrl-C would."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell starts background jobs that way
    os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)


def end_with_parent(end: Callable[[], object] = interrupt) -> None:
    """End this process as soon as its parent is gone.

    For a process that is no :class:`Child` but starts some: a pytest-xdist worker otherwise notices the end of its
    controller only after its current test, or after seconds.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)  # there is no portable event for the end of a parent
        end()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
