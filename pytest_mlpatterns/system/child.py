"""Child processes that cannot outlive us: how they start, talk and end.

A child is a fresh Python that runs ``main()`` of a module of this package. Parent and child exchange values over two
pipes. The end of the parent, however it comes, closes the child's input, and the child then ends itself and every
process of its group; the end that the parent asks for takes the same way. This module must not know what the values
mean.
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
_GRACE_S = 1.5
"""How long a child has to end by itself once its input is closed; then its whole group is killed."""


def _write(stream: IO[bytes], message: object) -> None:
    """Send one value; objects wrapped in ``pickle.PickleBuffer`` go as their raw bytes, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    stream.write(_PARTS.pack(len(parts)) + b"".join(_LENGTH.pack(part.nbytes) for part in parts))
    for part in parts:
        while part:
            part = part[stream.write(part) :]  # noqa: PLW2901 - what an unbuffered stream did not take yet


def _read(stream: IO[bytes]) -> Any:
    """Receive one value; raises EOFError when the other end is gone. Raw buffers arrive as ``bytearray``."""
    (count,) = _PARTS.unpack(_exactly(stream, _PARTS.size))
    lengths = [_LENGTH.unpack(_exactly(stream, _LENGTH.size))[0] for _ in range(count)]
    head, *buffers = [_exactly(stream, length) for length in lengths]
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - from our own child or parent only


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
    """The parent's handle on a child process.

    Args:
        module: dotted name of the module whose ``main()`` the child runs.
        log: file that takes what the child and its libraries print.
        pass_fds: open file descriptors that the child inherits under the same numbers (POSIX).
        on_end: called once when the child has closed its channel, in a thread of its own.

    Raises:
        ChildError: from :meth:`send` and :meth:`receive`, when the child has ended.
    """

    def __init__(
        self, module: str, *, log: Path, pass_fds: Sequence[int] = (), on_end: Callable[[], None] | None = None
    ) -> None:
        self._log = log
        self._on_end = on_end
        self._stopped = False
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {module} import main; main()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
                bufsize=0,
            )
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._gone = object()
        threading.Thread(target=self._pump, name=f"messages of {module}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def send(self, message: object) -> None:
        """Send one value."""
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, message)
        except OSError as error:
            raise ChildError(self._obituary()) from error

    def receive(self, timeout_s: float) -> Any:
        """The next value from the child.

        Raises:
            TimeoutError: nothing came in time; the child goes on.
        """
        try:
            message = self._messages.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if message is self._gone:
            self._messages.put(message)
            raise ChildError(self._obituary())
        return message

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of what the child printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def close_channel(self) -> None:
        """Tell the child to end, without waiting for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def stop(self) -> None:
        """End the child and its group, and wait until they are gone. Safe to call twice."""
        if self._stopped:  # the system may have given the group's id to somebody else by now
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

    def _obituary(self) -> str:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            return f"process {self.pid} closed its channel but still runs"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        tail = self.log_tail()
        return f"process {self.pid} ended with {how}" + (f"; it printed last:\n{tail}" if tail else "")


class Channel:
    """The child's end: made once at the start of its ``main()``, before anything prints.

    Standard output is turned into standard error, so that a model that prints does not disturb the messages.
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
        atexit.register(self._leave_nobody)

    def send(self, message: object) -> None:
        """Send one value to the parent. A parent that is gone is no error: the lifeline ends us."""
        with contextlib.suppress(BrokenPipeError), self._writing:
            _write(self._out, message)

    def receive(self) -> Any:
        """The next value from the parent; raises EOFError when it closed the channel or is gone."""
        try:
            while not select.select([self._in], [], [], 1.0)[0]:
                if os.getppid() != self._parent:  # a forked copy of the parent can hold the pipe open after its death
                    raise EOFError
            return _read(self._in)
        except EOFError:
            self._closed = True
            raise

    def listen(self, on_message: Callable[[Any], None], on_close: Callable[[], None]) -> None:
        """Hand every further value to ``on_message``, in a thread of its own; ``on_close`` when the parent is gone.

        After ``on_close`` the process has a moment to end by itself; then its whole group is killed.
        """
        threading.Thread(target=self._listen, args=(on_message, on_close), name="lifeline", daemon=True).start()

    def _leave_nobody(self) -> None:
        """End what we started, where the parent closed the channel or is gone, and may not do it for us."""
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
            time.sleep(_GRACE_S)  # not a wait for an event: the deadline of a process that should be gone by now
            _kill_group(0)


def end_with_parent() -> None:
    """Interrupt this process, as Ctrl-C would, as soon as the one that started it is gone.

    For a process that is no :class:`Child` but has some: a worker of pytest-xdist otherwise looks for its controller
    only when its test is over, or after seconds.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)  # no system tells a process everywhere that its parent ended
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as where a shell runs us in its background
        os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
