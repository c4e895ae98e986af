"""Child processes with a lifeline: they start, exchange values with their parent, and never outlive it.

A child is a fresh Python that runs ``main()`` of a module of this package. Parent and child exchange pickled values
over two pipes. When the parent ends, for any reason, the child's input closes; the child then ends itself and its whole
process group. :meth:`Child.stop` uses the same path. ``multiprocessing``, ``execnet`` and ``loky`` offer no such
lifeline, or import the user's ``__main__`` again.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ChildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Channel", "Child", "end_with_parent"]

_PARTS = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_WATCH_S = 0.25
_PATIENCE_S = 30.0
"""Longest time in which a child takes no byte of a message; a busy one reads in a thread of its own."""
_GRACE_S = 1.5
"""Grace period of a child after its input closed; then its whole process group is killed."""


def _write(stream: IO[bytes], message: object, patience_s: float | None = None) -> None:
    """Write one value. Objects wrapped in ``pickle.PickleBuffer`` are written as raw bytes, without a copy.

    Args:
        stream: where to; with ``patience_s`` it must not block.
        message: the value.
        patience_s: longest time without the other end taking a byte; None: without limit.

    Raises:
        TimeoutError: the other end took no byte for so long.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    sizes = _PARTS.pack(len(parts)) + b"".join(_LENGTH.pack(part.nbytes) for part in parts)
    for part in (memoryview(sizes), *parts):
        while part:
            if patience_s is not None:
                _await_room(stream, patience_s)
            part = part[stream.write(part) or 0 :]  # noqa: PLW2901 - an unbuffered stream may take only a part


def _await_room(stream: IO[bytes], patience_s: float) -> None:
    room = select.poll()
    room.register(stream, select.POLLOUT)
    if not room.poll(patience_s * 1000):
        raise TimeoutError


def _read(stream: IO[bytes]) -> Any:
    """Read one value; raw buffers arrive as ``bytearray``. Raises EOFError if the other end is gone."""
    (count,) = _PARTS.unpack(_exactly(stream, _PARTS.size))
    lengths = [_LENGTH.unpack(_exactly(stream, _LENGTH.size))[0] for _ in range(count)]
    head, *buffers = [_exactly(stream, length) for length in lengths]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - only our own child or parent writes here


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = stream.readinto(view)  # type: ignore[attr-defined]  # raw and buffered readers both have it
        if not got:
            raise EOFError
        view = view[got:]
    return data


class Child:
    """The parent's handle of a child process.

    Args:
        module: dotted name of the module whose ``main()`` the child runs.
        log: file for the output of the child and its libraries.
        pass_fds: open file descriptors that the child inherits under the same numbers (POSIX).
        on_end: called once, in a thread of its own, after the child has closed its channel.
        python: the interpreter of another environment, which has this package; None for this process's own.

    Raises:
        ChildError: from :meth:`send` and :meth:`receive`, if the child has ended; from :meth:`send` also if it reads no
            message.
    """

    def __init__(
        self,
        module: str,
        *,
        log: Path,
        pass_fds: Sequence[int] = (),
        on_end: Callable[[], None] | None = None,
        python: Path | None = None,
    ) -> None:
        self._log = log
        self._on_end = on_end
        self._stopped = False
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable if python is None else str(python), "-P", "-c", f"from {module} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
                bufsize=0,
            )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._gone = object()
        threading.Thread(target=self._pump, name=f"messages of {module}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def send(self, message: object) -> None:
        """Send one value to the child."""
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, message, _PATIENCE_S)
        except TimeoutError:
            raise ChildError(
                f"process {self.pid} has read nothing of a message for {_PATIENCE_S:.0f} s; is it stopped?"
            ) from None
        except OSError as error:
            raise ChildError(self._describe_end()) from error

    def receive(self, timeout_s: float) -> Any:
        """The next value from the child.

        Raises:
            TimeoutError: no value arrived in time; the child keeps running.
        """
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if message is self._gone:
            self._messages.put(message)
            raise ChildError(self._describe_end())
        return message

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the child's output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def close_channel(self) -> None:
        """Ask the child to end, without waiting for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def stop(self) -> None:
        """End the child and its group, and wait until they are gone. Safe to call twice."""
        if self._stopped:  # by now the system may have given the group's id to another process
            return
        self._stopped = True
        self.close_channel()
        try:
            self._process.wait(_GRACE_S + 1.0)
        except subprocess.TimeoutExpired:
            _kill_group(self._process.pid)
            self._process.wait()
        _kill_group(self._process.pid)

    def _pump(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(EOFError, OSError), self._process.stdout as stream:
            while True:
                self._messages.put(_read(stream))
        self._messages.put(self._gone)
        if self._on_end is not None:
            self._on_end()

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return f"process {self.pid} closed its channel but still runs"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        tail = self.log_tail()
        return f"process {self.pid} ended with {how}" + (f"; it printed last:\n{tail}" if tail else "")


class Channel:
    """The child's end of the pipes: created once at the start of its ``main()``, before anything prints.

    Standard output is redirected to standard error, so that a model that prints does not corrupt the messages.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        self._in = os.fdopen(os.dup(0), "rb", buffering=0)
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._writing = threading.Lock()
        self._parent = os.getppid()
        self._closed = False
        atexit.register(self._kill_descendants)

    def send(self, message: object) -> None:
        """Send one value to the parent. A parent that is gone is no error: the lifeline ends this process."""
        with contextlib.suppress(BrokenPipeError), self._writing:
            _write(self._out, message)

    def receive(self) -> Any:
        """The next value from the parent. Raises EOFError if the parent closed the channel or is gone."""
        try:
            while not select.select([self._in], [], [], 1.0)[0]:
                if os.getppid() != self._parent:  # a forked copy of the parent can hold the pipe open after its death
                    raise EOFError
            return _read(self._in)
        except EOFError:
            self._closed = True
            raise

    def listen(self, on_message: Callable[[Any], None], on_close: Callable[[], None]) -> None:
        """Pass every further value to ``on_message``, in a thread of its own; call ``on_close`` when the parent is
        gone.

        After ``on_close`` the process has a grace period to end by itself; then its whole group is killed.
        """
        threading.Thread(target=self._listen, args=(on_message, on_close), name="lifeline", daemon=True).start()

    def _kill_descendants(self) -> None:
        """Kill the processes that this child started, if the parent is gone and cannot do it."""
        if self._closed or os.getppid() != self._parent:
            import psutil

            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _listen(self, on_message: Callable[[Any], None], on_close: Callable[[], None]) -> None:
        try:
            while True:
                on_message(self.receive())
        except (EOFError, OSError):
            on_close()
            time.sleep(_GRACE_S)  # the deadline of a process that should have ended by now, no wait for an event
            _kill_group(0)


def end_with_parent() -> None:
    """Interrupt this process, as Ctrl-C would, as soon as its parent is gone.

    For a process that is no :class:`Child` but starts some: a pytest-xdist worker otherwise notices the end of its
    controller only after its current test, or after seconds.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)  # there is no portable event for the end of a parent
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a shell starts background jobs that way
        os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
