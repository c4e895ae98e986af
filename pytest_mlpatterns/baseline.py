"""The baseline file: what was measured before, one entry per test and machine, made for git diffs.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-baseline", "version": 1, "tests": {test id: {machine:
{"setup": …, "metrics": {name: [[value, relative error], …]}, "versions": …, "commit": …, "date": …}}}}``; keys sorted,
one launch per pair, numbers of five digits. A file of another format or a later version is refused and not touched.

This module must not know verdicts: it says what was recorded, not whether the present is worse.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.records import LaunchValue, Setup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FORMAT", "VERSION", "Baselines", "Entry", "read_baselines", "write_baselines"]

FORMAT = "pytest-mlpatterns-baseline"
VERSION = 1
_MEND = "restore it from version control, or delete it and record anew with pytest --perf-baseline update"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one test gave on one machine: set-up, every metric launch by launch, and where it came from."""

    setup: Setup
    metrics: Mapping[str, tuple[LaunchValue, ...]]
    versions: Mapping[str, str]
    commit: str | None
    date: str


Baselines = dict[str, dict[str, Entry]]
"""Test id → machine → entry."""


def read_baselines(path: Path) -> Baselines:
    """Read a baseline file; an absent one is empty.

    Raises:
        BaselineFileError: damaged, foreign or newer; the message is one line that names the file and the mend.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BaselineFileError(f"{path} cannot be read: {error}; {_MEND}") from error
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BaselineFileError(f"{path} is damaged: {error}; {_MEND}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BaselineFileError(
            f"{path} is no baseline file of pytest-mlpatterns; name another with --perf-baseline-file, or move it away"
        )
    version = data.get("version")
    if not isinstance(version, int) or version < 1:
        raise BaselineFileError(f"{path} is damaged: its format version is {version!r}; {_MEND}")
    if version > VERSION:
        raise BaselineFileError(
            f"{path} has format version {version}, this pytest-mlpatterns reads up to {VERSION}; upgrade the package"
        )
    try:
        return {
            test: {machine: _entry(entry) for machine, entry in machines.items()}
            for test, machines in data["tests"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BaselineFileError(f"{path} is damaged: {type(error).__name__}: {error}; {_MEND}") from error


def write_baselines(path: Path, updates: Baselines) -> None:
    """Replace the entries of these tests and machines, keep all others; the file is replaced as a whole or not at all.

    Raises:
        BaselineFileError: the file on disk cannot be read, or not be written; it stays as it was.
    """
    merged = read_baselines(path)
    for test, machines in updates.items():
        merged.setdefault(test, {}).update(machines)
    data = {
        "format": FORMAT,
        "version": VERSION,
        "tests": {test: {machine: _plain(entry) for machine, entry in found.items()} for test, found in merged.items()},
    }
    text = _lines(data) + "\n"
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode if path.exists() else 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise BaselineFileError(
            f"{path} cannot be written: {error}; it is as it was, "
            "make its directory writable or name another file with --perf-baseline-file"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _entry(data: dict[str, Any]) -> Entry:
    metrics = {
        str(name): tuple(LaunchValue(float(value), float(error)) for value, error in launches)
        for name, launches in data["metrics"].items()
    }
    values = [number for launches in metrics.values() for one in launches for number in (one.value, one.relative_error)]
    if not all(math.isfinite(number) for number in values):
        raise ValueError("a value that is no finite number")
    if not all(metrics.values()):
        raise ValueError("a metric without launches")
    return Entry(
        setup=Setup(**data["setup"]),
        metrics=metrics,
        versions={str(name): str(version) for name, version in data["versions"].items()},
        commit=data["commit"],
        date=str(data["date"]),
    )


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "setup": asdict(entry.setup),
        "metrics": {
            name: [[_digits(launch.value), _digits(launch.relative_error, 2)] for launch in launches]
            for name, launches in entry.metrics.items()
        },
        "versions": dict(entry.versions),
        "commit": entry.commit,
        "date": entry.date,
    }


def _lines(value: object, indent: str = "") -> str:
    """JSON with sorted keys, an object's members on lines of their own and everything else on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + " "
    members = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_lines(value[key], inner)}" for key in sorted(value)]
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def _digits(number: float, digits: int = 5) -> float | int:
    rounded = float(f"{number:.{digits}g}")
    return int(rounded) if rounded.is_integer() else rounded
