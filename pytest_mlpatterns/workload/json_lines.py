"""Inputs from a file with one JSON value per line; each knows its line, for messages. It must not know wires."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.workload.text_file import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["JsonLine", "read_json_lines"]


class JsonLine(NamedTuple):
    """The value of a line, and the number of the line, from 1."""

    number: int
    value: Any


def read_json_lines(path: Path, most_bytes: int) -> Iterator[JsonLine]:
    """Read the lines of a file that are not empty.

    Args:
        path: the file.
        most_bytes: largest file that is read.

    Raises:
        SettingError: it cannot be read, or a line is no JSON.
    """
    try:
        for number, line in enumerate(read_lines(path, most_bytes), start=1):
            if line.strip():
                yield JsonLine(number, _json_of(line, path, number))
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
