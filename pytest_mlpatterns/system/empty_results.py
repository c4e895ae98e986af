"""A result file without results: of a run that has not come to its end, and of one without perf tests.

A run replaces the results of an earlier one when it starts, so that no reader takes them for its own, however it ends.
Each pytest with ``--perf-json`` loads this module, which therefore imports nothing that measures or reads results.
"""

import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

FORMAT = "pytest-mlpatterns-results"
VERSION = 2  # Version of the format; a file of another one is refused
_HEAD_BYTES = 4096  # Beginning of a file, which has the name of its format


def head_of(file: Path) -> bytes:
    """The beginning of a file, by which it is seen whether a run may replace it."""
    with file.open("rb") as opened:
        return opened.read(_HEAD_BYTES)


def is_results(head: bytes) -> bool:
    """Whether a file that begins so has results."""
    return f'"{FORMAT}"'.encode() in head


def write_empty_results(file: Path, *, complete: bool = False, failed: Sequence[str] = ()) -> None:
    """Replace a result file by one without results. A pipe or device stays, as its reader is to get results only.

    ``failed``: ids of what failed beside perf tests. Raises OSError: it cannot be written; it is as it was.
    """
    if file.exists() and not file.is_file():
        return
    from pytest_mlpatterns.system.files import replace_file  # not on Windows, where no test measures

    python = ".".join(platform.python_version_tuple()[:2])
    machine = {"cores": os.cpu_count() or 1, "architecture": platform.machine(), "python": python}
    data = {
        "format": FORMAT,
        "version": VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": None,
        "environment": {"processor": "", **machine, "versions": {}, "gpu": "", "machine": ""},
        "baseline": {},
        "history": {},
        "ranking": [],
        "results": [],
        "unmeasured": [],
        "run": {"complete": complete, "not_run": [] if complete else None, "other_failures": list(failed)},
    }
    replace_file(file, lambda: json.dumps(data, indent=1) + "\n")
