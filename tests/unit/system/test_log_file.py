"""The log of a process: bounded on the disk, read from its end, readable in messages."""

import os
import sys
from pathlib import Path

import pytest

from pytest_mlpatterns.system import log_file
from pytest_mlpatterns.system.log_file import LogFile

MIB = 2**20


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LogFile:
    monkeypatch.setattr(log_file, "LIMIT_BYTES", MIB)
    return LogFile(tmp_path / "worker.log")


def write(descriptor: int, text: bytes) -> None:
    while text:
        text = text[os.write(descriptor, text) :]


@pytest.mark.skipif(sys.platform != "linux", reason="holes are punched on Linux only")
def test_a_long_log_gives_its_beginning_back_and_keeps_its_offsets(log: LogFile) -> None:
    descriptor = log.create()
    write(descriptor, b"x" * (3 * MIB))
    log.limit()
    assert (log.path.stat().st_blocks * 512) <= MIB
    assert log.size == 3 * MIB
    write(descriptor, b"\nthe last line\n")
    os.close(descriptor)
    assert log.printed_since(3 * MIB) == "\nthe last line\n"
    assert log.tail(1) == "(3.00 MiB printed, of which the log keeps the last 1.00 MiB at most)\n| the last line"


def test_a_file_system_without_holes_empties_the_log(log: LogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    descriptor = log.create()
    write(descriptor, b"x" * (3 * MIB))
    log.limit()
    assert log.size == 0
    write(descriptor, b"the last line\n")
    os.close(descriptor)
    assert log.printed_since(3 * MIB) == "the last line\n"
    assert log.tail() == "| the last line"


def test_a_short_log_stays_as_it_is(log: LogFile) -> None:
    os.close(log.create())
    log.path.write_text("one\ntwo\nthree\n")
    log.limit()
    assert log.tail() == "| one\n| two\n| three"
    assert log.tail(2) == "| two\n| three"
    assert log.printed_since(4) == "two\nthree\n"


def test_only_the_end_of_a_log_is_read(log: LogFile) -> None:
    log.path.write_bytes(b"lost\n" + b"\n".join(b"%d" % number for number in range(10_000)))
    assert len(log.printed_since(0)) == 16_384
    assert log.tail(2) == "| 9998\n| 9999"


def test_equal_lines_are_one(log: LogFile) -> None:
    log.path.write_text("started\n\n\n" + "GET /helth 404\n" * 30 + "ended\n")
    assert log.tail(4) == "| started\n| \n| GET /helth 404 (30 times)\n| ended"


def test_a_long_line_is_shortened(log: LogFile) -> None:
    log.path.write_text(f"before\n{'a' * 5_000}{'b' * 5_000}\n")
    first, second = log.tail().splitlines()
    assert first == "| before"
    assert second == f"| {'a' * 500} … (9,000 letters left out) … {'b' * 500}"


def test_a_log_that_vanished_is_empty_and_its_directory_is_made_again(log: LogFile) -> None:
    again = LogFile(log.path.parent / "gone" / "worker.log")
    assert again.tail() == again.printed_since(3) == ""
    assert again.size == 0
    again.limit()
    os.close(again.create())
    assert again.path.parent.stat().st_mode & 0o777 == 0o700
    assert again.path.stat().st_mode & 0o777 == 0o600


def test_a_log_does_not_follow_a_link_that_waits_in_its_place(log: LogFile, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    log.path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"):
        log.create()
    assert (tmp_path / "precious").read_text() == "precious"
