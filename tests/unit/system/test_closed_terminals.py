"""A terminal that is closed takes what is written to it, in silence; everything else stays as it was."""

import os
from collections.abc import Iterator

import pytest

from pytest_mlpatterns.plugin.interrupts import Terminals


@pytest.fixture
def pseudo() -> Iterator[tuple[int, int]]:
    """The two ends of a pseudo-terminal: that of its window, which the test closes, and that of its programs."""
    ours, terminal = os.openpty()
    yield ours, terminal
    os.close(terminal)


def test_a_closed_terminal_takes_every_line_through_each_of_its_descriptors(pseudo: tuple[int, int]) -> None:
    ours, terminal = pseudo
    terminals = Terminals()
    copy = os.dup(terminal)
    os.close(ours)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(terminal, b"line")
    terminals.replace_closed()
    assert [os.write(one, b"line") for one in (terminal, copy)] == [4, 4]
    assert [os.get_inheritable(one) for one in (terminal, copy)] == [False, False]
    os.close(copy)


def test_an_open_terminal_and_a_pipe_without_a_reader_stay(pseudo: tuple[int, int]) -> None:
    ours, terminal = pseudo
    reader, writer = os.pipe()
    terminals = Terminals()
    os.close(reader)
    terminals.replace_closed()
    os.write(terminal, b"line")
    assert os.read(ours, 4) == b"line"
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"line")
    os.close(writer)
    os.close(ours)


def test_a_terminal_that_was_opened_later_stays() -> None:
    terminals = Terminals()
    ours, terminal = os.openpty()
    os.close(ours)
    terminals.replace_closed()
    with pytest.raises(OSError, match="Input/output error"):
        os.write(terminal, b"line")
    os.close(terminal)
