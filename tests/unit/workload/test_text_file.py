"""Lines of a file: read as they come, and never without a bound."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_mlpatterns import SettingError
from pytest_mlpatterns.workload.payload import read_payload
from pytest_mlpatterns.workload.text_file import read_lines

NO_FILE = "it is a pipe, a socket or a device; name a regular file"


def pipe(path: Path) -> Path:
    """A pipe that has no writer."""
    os.mkfifo(path)
    return path


def sparse(path: Path) -> Path:
    """A file of a terabyte in which no byte is stored."""
    path.touch()
    os.truncate(path, 2**40)
    return path


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (pipe, NO_FILE),
        (lambda _: Path("/dev/zero"), NO_FILE),
        (sparse, "it has 1.00 TiB, expected at most "),
        (lambda path: path, "No such file or directory"),
        (lambda path: path.parent, "Is a directory"),
        (lambda path: path / "a\0b", "embedded null byte"),
    ],
    ids=["pipe", "device", "sparse", "absent", "directory", "nul"],
)
def test_no_file_or_a_large_one_is_refused_unread(tmp_path: Path, make: Callable[[Path], Path], expected: str) -> None:
    path = make(tmp_path / "inputs.jsonl")
    with pytest.raises(SettingError) as caught:
        read_payload(path)
    assert str(caught.value).startswith(f"perf_payload {path} cannot be read: ")
    assert expected in str(caught.value)


def test_lines_are_counted_where_the_size_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "inputs"
    path.write_bytes(b"ab\r\ncd\nef")
    size = os.stat_result([*path.stat()[:6], 0, *path.stat()[7:10]])
    monkeypatch.setattr(os, "fstat", lambda _: size)
    assert list(read_lines(path, 8)) == ["ab", "cd", "ef"]
    with pytest.raises(OSError, match=r"^it has over 7\.00 B; name a part of it$"):
        list(read_lines(path, 7))


def test_deep_brackets_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "inputs"
    path.write_text(f"1\n{'[' * 100_000}\n")
    with pytest.raises(SettingError, match=r"inputs line 2 is nested too deeply$"):
        read_payload(path)
