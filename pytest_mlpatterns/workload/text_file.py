"""Lines of a text file that a test names, read one at a time and within a bound.

A pipe or a device is refused, because it may never end, or never begin.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.units import format_size


def read_lines(path: Path, most_bytes: int) -> Iterator[str]:
    """Read the lines of a regular file in UTF-8, with or without a byte order mark.

    Raises UnicodeDecodeError: it is not in UTF-8.
    """
    at_once = os.O_NONBLOCK | os.O_CLOEXEC  # without waiting for the writer of a pipe
    with open(path, encoding="utf-8-sig", opener=lambda name, flags: os.open(name, flags | at_once)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is a pipe, a socket or a device; name a regular file")
        most = format_size(most_bytes)
        if status.st_size > most_bytes:
            raise OSError(f"it has {format_size(status.st_size)}, expected at most {most}; name a part of it")
        left = most_bytes
        while line := file.readline(left + 1):
            left -= len(line)
            if left < 0:  # it grows, or its file system knows no sizes
                raise OSError(f"it has over {most}; name a part of it")
            yield line.removesuffix("\n")


def read_json_lines(path: Path, most_bytes: int) -> Iterator[tuple[int, Any]]:
    """Read the lines of a file that are not empty: the number of each, from 1, and its value."""
    try:
        for number, line in enumerate(read_lines(path, most_bytes), start=1):
            if line.strip():
                yield number, _json_of(line, path, number)
    except SettingError:
        raise
    except (OSError, ValueError) as error:  # not in UTF-8, or a path with NUL
        raise SettingError(f"perf_payload {path} cannot be read: {error}") from None


def _json_of(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise SettingError(f"perf_payload {path} line {number} is not JSON: {error}") from None
    except RecursionError:
        raise SettingError(f"perf_payload {path} line {number} is nested too deeply") from None
