"""Messages on a pipe: one that an interrupt cuts arrives whole before the next one, wherever the cut is."""

import fcntl
import io
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from pytest_mlpatterns.system.pipe_messages import MessageWriter, read_message

PATIENCE_S = 30
LARGE = b"x" * 1_000_000
"""More than a pipe holds."""


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """Both ends of a pipe; the end for writing does not block."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with io.FileIO(reading) as source, io.FileIO(writing, "w") as sink:
        yield source, sink


@contextmanager
def interrupted_writes(source: io.FileIO) -> Iterator[None]:
    """Each write to the pipe sends this process SIGINT before it returns."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.fcntl(source, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(source, fcntl.F_SETSIG, signal.SIGINT)
    fcntl.fcntl(source, fcntl.F_SETFL, os.O_ASYNC)
    try:
        yield
    finally:
        fcntl.fcntl(source, fcntl.F_SETFL, 0)
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe chooses its signal on Linux only")
@pytest.mark.parametrize("interrupts", [1, 2, 3, 5])
def test_a_message_that_interrupts_cut_arrives_whole_before_the_next(
    pipe: tuple[io.FileIO, io.FileIO], interrupts: int
) -> None:
    source, sink = pipe
    writer = MessageWriter(sink)
    received = io.BytesIO()
    with interrupted_writes(source):
        for _ in range(interrupts):
            with pytest.raises(KeyboardInterrupt):
                writer.write(["first", pickle.PickleBuffer(LARGE)], PATIENCE_S)
            received.write(source.read(len(LARGE)) or b"")
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(source.readall)
        writer.write("next", PATIENCE_S)
        sink.close()
        received.write(rest.result() or b"")
    received.seek(0)
    assert read_message(received) == ["first", LARGE]
    assert read_message(received) == "next"
    with pytest.raises(EOFError):
        read_message(received)


def test_a_stream_that_another_thread_has_closed_is_an_end_as_any_other() -> None:
    sink = io.BytesIO()
    writer = MessageWriter(sink)
    sink.close()
    with pytest.raises(BrokenPipeError):
        writer.write("late")
