"""The baseline file: earlier results, one entry per test and machine, laid out for git diffs.

Format, version 1 (2026): ``{"format": "pytest-mlpatterns-baseline", "version": 1, "tests": {test id: {machine:
{"setup": …, "metrics": {name: [[value, relative error], …]}, "versions": …, "commit": …, "date": …}}}}``; keys sorted,
one launch per pair, numbers of five digits. An entry may have an ``anchor`` (``metrics``, ``commit`` and ``date`` of an
earlier one), a ``calibration`` (``cores``, ``ns``, ``workload``), its ``latency`` distribution (``[[percent, ns], …]``,
for charts only), the ``counts`` of requests (``{launch: [due, failed, [[ns, count], …]]}``, one line each, latencies
up to the median as one), and what was ``disturbed`` when it was recorded. A set-up has a ``model`` if the model names a
version; ``headers``, ``duration``, ``warmup``, ``timeout`` and ``generators`` are absent from older entries and are
then not compared. A file of another format or a later version is refused and stays as it is.

This module must not know verdicts.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import BaselineFileError
from pytest_mlpatterns.records.baseline_entry import Anchor, Baselines, Calibration, Entry
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.request_counts import RequestCounts
from pytest_mlpatterns.records.setup import Setup
from pytest_mlpatterns.reports.files.json_layout import laid_out, rounded
from pytest_mlpatterns.system.files import read_text, replace_file

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from pytest_mlpatterns.records.result import Percentiles

__all__ = ["FORMAT", "VERSION", "read_baselines", "write_baselines"]

FORMAT = "pytest-mlpatterns-baseline"
VERSION = 1
_LOCK_TIMEOUT_S = 60.0
_ALWAYS = ("pattern", "load", "wire", "payload")
"""Members of a set-up that are written although empty."""
_ADVICE = "restore it from version control, or delete it and record anew with pytest --perf-baseline update"


def read_baselines(path: Path) -> Baselines:
    """Read a baseline file; an absent one is empty.

    Raises:
        BaselineFileError: damaged, foreign or newer; the message is one line with the file and what to do.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BaselineFileError(f"{path} cannot be read: {why}; {_ADVICE}") from error
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BaselineFileError(f"{path} is damaged: {error}; {_ADVICE}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BaselineFileError(
            f"{path} is not a baseline file of pytest-mlpatterns; "
            "name another one with --perf-baseline-file, or move this one away"
        )
    version = data.get("version")
    if not isinstance(version, int) or version < 1:
        raise BaselineFileError(f"{path} is damaged: its format version is {version!r}; {_ADVICE}")
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
        raise BaselineFileError(f"{path} is damaged: {type(error).__name__}: {error}; {_ADVICE}") from error


def write_baselines(
    path: Path, updates: Baselines, remove: Collection[str] = (), *, timeout_s: float = _LOCK_TIMEOUT_S
) -> None:
    """Replace the entries of these tests and machines, keep all others; the file is replaced as a whole or not at all.

    It is locked from reading to writing, so that two runs that update it at once both keep their entries.

    Args:
        path: the file.
        updates: what is written.
        remove: tests whose entries are removed, of every machine.
        timeout_s: how long to wait for another run that updates a file of the directory.

    Raises:
        BaselineFileError: the file on disk cannot be read, or not be written; it stays as it was.
    """

    def merged_text() -> str:
        merged = {test: machines for test, machines in read_baselines(path).items() if test not in remove}
        for test, machines in updates.items():
            merged.setdefault(test, {}).update(machines)
        return _text(merged)

    try:
        replace_file(path, merged_text, timeout_s=timeout_s)
    except TimeoutError as error:
        raise BaselineFileError(
            f"{path} is unchanged: another process has locked its directory for {timeout_s:.0f} s; "
            "wait until no other run updates it, then update again"
        ) from error
    except OSError as error:
        raise BaselineFileError(
            f"{path} cannot be written: {error.strerror or error}; it is unchanged, "
            "make its directory writable or name another file with --perf-baseline-file"
        ) from error


def _text(baselines: Baselines) -> str:
    data = {
        "format": FORMAT,
        "version": VERSION,
        "tests": {
            test: {machine: _plain(entry) for machine, entry in found.items()} for test, found in baselines.items()
        },
    }
    return laid_out(data, sort_keys=True) + "\n"


def _entry(data: dict[str, Any]) -> Entry:
    anchor, calibration = data.get("anchor"), data.get("calibration")
    return Entry(
        setup=Setup.from_json(data["setup"]),
        metrics=_metrics(data["metrics"]),
        versions={str(name): str(version) for name, version in data["versions"].items()},
        commit=data["commit"],
        date=str(data["date"]),
        calibration=None if calibration is None else _calibration(calibration),
        anchor=None if anchor is None else _anchor(anchor),
        latency=_latency(data.get("latency", ())),
        counts=_counts(data.get("counts", {})),
        disturbed=tuple(str(text) for text in data.get("disturbed", ())),
    )


def _anchor(data: dict[str, Any]) -> Anchor:
    return Anchor(_metrics(data["metrics"]), data["commit"], str(data["date"]), int(data.get("updates", 1)))


def _metrics(data: dict[str, Any]) -> dict[str, tuple[LaunchValue, ...]]:
    metrics = {
        str(name): tuple(LaunchValue(float(value), float(error)) for value, error in launches)
        for name, launches in data.items()
    }
    values = [number for launches in metrics.values() for one in launches for number in (one.value, one.relative_error)]
    if not all(math.isfinite(number) for number in values):
        raise ValueError("a value that is not a finite number")
    if not all(metrics.values()):
        raise ValueError("a metric without launches")
    return metrics


def _latency(data: Any) -> Percentiles:
    latency = tuple((float(percent), float(ns)) for percent, ns in data)
    columns = list(zip(*latency, strict=True))
    if any(list(column) != sorted(column) or not all(map(math.isfinite, column)) for column in columns):
        raise ValueError("latency percentiles that do not ascend")
    return latency


def _counts(data: dict[str, Any]) -> tuple[RequestCounts, ...]:
    found = tuple(
        RequestCounts(int(requests), int(failed), {int(ns): int(count) for ns, count in latencies})
        for _, (requests, failed, latencies) in sorted(data.items())
    )
    if any(min(one.requests, one.failed, *one.latencies, *one.latencies.values()) < 0 for one in found):
        raise ValueError("a count of requests below zero")
    return found


def _calibration(data: dict[str, Any]) -> Calibration:
    found = Calibration(float(data["ns"]), int(data["cores"]), int(data["workload"]))
    if not 0 < found.ns < math.inf:
        raise ValueError("a calibration that is not a time above zero")
    return found


def _plain(entry: Entry) -> dict[str, Any]:
    setup, calibration, anchor = entry.setup.to_json(), entry.calibration, entry.anchor
    plain: dict[str, Any] = {
        "setup": {name: value for name, value in setup.items() if value or name in _ALWAYS},
        "metrics": _pairs(entry.metrics),
        "versions": dict(entry.versions),
        "commit": entry.commit,
        "date": entry.date,
    }
    if calibration is not None:
        plain["calibration"] = {**asdict(calibration), "ns": rounded(calibration.ns)}
    if entry.latency:
        plain["latency"] = [[rounded(percent), rounded(ns)] for percent, ns in entry.latency]
    if entry.counts:
        plain["counts"] = {
            f"{number:03}": [one.requests, one.failed, [list(pair) for pair in sorted(one.latencies.items())]]
            for number, one in enumerate(entry.counts, start=1)
        }
    if entry.disturbed:
        plain["disturbed"] = list(entry.disturbed)
    if anchor is not None:
        plain["anchor"] = {
            "metrics": _pairs(anchor.metrics),
            "commit": anchor.commit,
            "date": anchor.date,
            "updates": anchor.updates,
        }
    return plain


def _pairs(metrics: Mapping[str, tuple[LaunchValue, ...]]) -> dict[str, list[list[float | int]]]:
    return {
        name: [[rounded(launch.value), rounded(launch.relative_error, 2)] for launch in launches]
        for name, launches in metrics.items()
    }
