"""The result file of ``--perf-json``: every result of a run, versioned; written, and read back. Results ↔ text.

Format, version 2 (2026): ``{"format": "pytest-mlpatterns-results", "version": 2, "date": …, "commit": …,
"environment": …, "baseline": …, "ranking": [...], "results": [...]}``, where a result is
:class:`pytest_mlpatterns.records.result.TestResult` with its ``outcome``; metrics are ``[value, low, high]`` in
nanoseconds, requests per second, bytes or shares. ``baseline`` is what the run did with the baseline file: its
``mode``, the tests that were ``recorded``, those of them ``recorded_although_worse`` with the verdict, the entries
``without_test``, and those that were ``pruned``. ``ranking`` orders the patterns of each test
with several, if the run asked for it.

``results.schema.json`` beside this module describes every member. Version 1 had no latency distributions, no
references and no ranking. It is not read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.result import TestResult
from pytest_mlpatterns.records.setup import Environment
from pytest_mlpatterns.reports.files.json_layout import laid_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["FORMAT", "SCHEMA_FILE", "VERSION", "Results", "read_results", "results_json"]

FORMAT = "pytest-mlpatterns-results"
VERSION = 2
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
"""The JSON Schema of the format, which ships with the package."""


@dataclass(frozen=True, slots=True)
class Results:
    """The content of a result file.

    Attributes:
        results: in the order in which the tests ran.
        environment: the machine and the versions.
        date: ISO 8601.
        baseline: what the run did with the baseline file, as plain values.
        ranking: the order of the patterns of each test that has several, as plain values.
        commit: the measured commit, with a plus sign if files differed from it; None outside a git repository.
    """

    results: tuple[TestResult, ...]
    environment: Environment
    date: str
    baseline: Mapping[str, Any]
    ranking: tuple[Mapping[str, Any], ...] = ()
    commit: str | None = None


def results_json(
    results: Sequence[TestResult],
    environment: Environment,
    date: str,
    *,
    baseline: Mapping[str, object],
    ranking: Sequence[Mapping[str, object]] = (),
    commit: str | None = None,
) -> str:
    """The file's text; the arguments are those of :class:`Results`."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "date": date,
        "commit": commit,
        "environment": {**asdict(environment), "machine": environment.machine},
        "baseline": dict(baseline),
        "ranking": [dict(ranked) for ranked in ranking],
        "results": [result.to_json() for result in results],
    }
    return laid_out(data, counts_inline=True) + "\n"


def read_results(text: str) -> Results:
    """Read the text of a result file.

    Raises:
        ResultFileError: it is damaged, not a result file, or of another version.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ResultFileError(f"is damaged: {error}; measure again with --perf-json") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ResultFileError("is not a result file of pytest-mlpatterns; name a file that pytest --perf-json wrote")
    if (version := data.get("version")) != VERSION:
        remedy = "upgrade the package" if isinstance(version, int) and version > VERSION else "measure again"
        raise ResultFileError(f"has format version {version!r}, this pytest-mlpatterns reads {VERSION}; {remedy}")
    try:
        environment = {name: value for name, value in data["environment"].items() if name != "machine"}
        return Results(
            results=tuple(TestResult.from_json(item) for item in data["results"]),
            environment=Environment(**environment),
            date=str(data["date"]),
            baseline=dict(data["baseline"]),
            ranking=tuple(dict(ranked) for ranked in data["ranking"]),
            commit=data["commit"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultFileError(f"is damaged: {type(error).__name__}: {error}; measure again with --perf-json") from error
