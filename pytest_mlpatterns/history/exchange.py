"""Histories of other tools: github-action-benchmark's and asv's are read; a CSV for Apache Otava is written.

What is read becomes lines of a history whose machine begins with ``imported``, so that no series mixes it with values
of this package. A value of another tool has no launches: it counts as one launch, with the error that the tool gives,
or 0 for an unknown one. Files are data: nothing in them is run, and what does not fit is left out and counted.

Sources of the formats: ``src/write.ts`` and ``src/extract.ts`` of benchmark-action/github-action-benchmark;
``asv/results.py`` of airspeed-velocity/asv, ``api_version`` 2; ``docs/CSV.md`` of apache/otava.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any

from pytest_mlpatterns.analysis.metrics.definitions import metric_named
from pytest_mlpatterns.analysis.metrics.imported import IMPORTED, imported_name
from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, digest_of
from pytest_mlpatterns.records.json_text import parsed
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.system.files import read_text
from pytest_mlpatterns.units import foreign_unit
from pytest_mlpatterns.wording import named, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_mlpatterns.analysis.changes.series import Series

__all__ = ["Imported", "OtavaTable", "otava_config", "otava_table", "read_foreign", "with_positions"]

_LARGEST = 1e29
"""Largest value, below what a line of a history takes for a measured one."""
_MOST_VALUES = 1_000_000
"""Most values that one import takes: ten years of 250 benchmarks a day; more is no history of a project."""
_MOST_FILES = 100_000
"""Most result files of asv that are looked at."""
_LONGEST = 500
"""Longest test id or machine, in letters."""
_SCRIPT = re.compile(r"\ufeff?\s*window\.BENCHMARK_DATA\s*=\s*")
"""Beginning of a data.js, which is a script that sets one variable to JSON."""
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_BIGGER = frozenset({"customBiggerIsBetter", "benchmarkjs", "pytest"})
"""Tools of github-action-benchmark for which it calls larger values better."""
_OWN_DIRECTION = frozenset({"customBiggerIsBetter", "customSmallerIsBetter"})
"""Tools whose name has the direction; of the others, larger rates are better."""
_RATE = re.compile(r"/\s*s(?:ec(?:ond)?)?$", re.IGNORECASE)
_ASV_FORMAT = 2
"""Version of asv's result files that is read."""
_Z_99 = 2.5758
"""Standard errors from the middle of a 99 % interval, which asv writes, to its end."""
_WIDEST = 1.0
"""Largest relative standard error that is taken over; a wider interval has no information."""
_UNITS_BY_NAME = {"time": "seconds", "timeraw": "seconds", "mem": "bytes", "peakmem": "bytes"}
"""Units of asv's benchmarks by the beginning of their names, if ``benchmarks.json`` is missing."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What was read of another tool.

    Attributes:
        lines: one for each test of each run.
        warnings: what was left out and why, one sentence each.
    """

    lines: tuple[HistoryLine, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of another tool, in the unit of its metric.

    Attributes:
        test: the id of its test.
        metric: the name of its metric.
        value: above zero.
        error: its relative standard error; 0 if it is not known.
        setup: what must be the same for two values to be comparable.
    """

    test: str
    metric: str
    value: float
    error: float
    setup: str


@dataclass(slots=True)
class _Tally:
    """How many values were taken from a path, and what was left out, by reason."""

    path: Path
    left_out: dict[str, int] = field(default_factory=dict)
    taken: int = 0

    def leave_out(self, reason: str) -> None:
        """Count what does not fit."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def take(self) -> None:
        """Count a value.

        Raises:
            ResultFileError: there are too many.
        """
        self.taken += 1
        if self.taken > _MOST_VALUES:
            raise ResultFileError(f"{named(self.path)} has more than {_MOST_VALUES:,} values; import a part of it")

    def warnings(self) -> tuple[str, ...]:
        """What was left out, one sentence for each reason."""
        return tuple(f"{number:,} left out: {reason}" for reason, number in self.left_out.items())


def read_foreign(path: Path) -> Imported:
    """Read what another tool kept.

    Args:
        path: github-action-benchmark's ``data.js`` (or the JSON file that it keeps elsewhere), asv's directory of
            results, the directory of one machine in it, or one of its files.

    Raises:
        ResultFileError: it cannot be read, or is none of these.
    """
    tally = _Tally(path)
    if path.is_dir():
        lines = _of_asv_directory(path, tally)
    else:
        text = _text_of(path)
        script = _SCRIPT.match(text)
        data = _data_of(path, text[script.end() :].rstrip().removesuffix(";") if script else text)
        if isinstance(data.get("entries"), dict):
            lines = _of_benchmark_data(data["entries"], tally)
        elif "result_columns" in data:
            lines = _of_asv_file(data, _asv_units(path.parent.parent), tally)
        else:
            raise ResultFileError(
                f"{named(path)} is no history that can be imported, expected data.js of github-action-benchmark or "
                "a result of asv; name the file data.js or asv's directory of results"
            )
    if not lines:
        raise ResultFileError(
            f"{named(path)} has no value that can be imported{''.join(f'; {one}' for one in tally.warnings())}"
        )
    return Imported(tuple(lines), tally.warnings())


def with_positions(lines: tuple[HistoryLine, ...], positions: Mapping[str, int]) -> tuple[HistoryLine, ...]:
    """The lines with the positions of their commits along first parents, as far as they are known.

    Args:
        lines: as :func:`read_foreign` gave them.
        positions: by the hash of a commit.
    """
    return tuple(
        replace(line, at=CommitPosition(line.at.commit, positions.get(line.at.commit, line.at.position)))
        for line in lines
    )


def _text_of(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultFileError(f"{named(path)} cannot be read: {reason}; name another file") from error


def _data_of(path: Path, text: str) -> dict[str, Any]:
    try:
        data = parsed(text, allows_constants=True)
    except ValueError as error:
        raise ResultFileError(f"{named(path)} cannot be read: {error}; expected JSON, or data.js") from error
    if not isinstance(data, dict):
        raise ResultFileError(f"{named(path)} is no history that can be imported, expected an object of JSON")
    return data


def _number(value: object) -> float | None:
    """A finite number above zero, which has a logarithm; None for anything else."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if 0 < number < math.inf else None


def _lines(values: Iterable[_Value], *, machine: str, date: str, at: CommitPosition) -> list[HistoryLine]:
    """One line for each test of one run; several values of one metric count as its launches."""
    by_test: dict[str, list[_Value]] = {}
    for value in values:
        by_test.setdefault(value.test, []).append(value)
    return [
        HistoryLine(
            test=test,
            machine=f"{IMPORTED}{machine}",
            date=date,
            at=at,
            clean=True,
            setup=digest_of({one.metric: one.setup for one in found}),
            facts="",
            kind=Kind.PASSED,
            values={
                metric: tuple(LaunchValue(one.value, one.error) for one in found if one.metric == metric)
                for metric in dict.fromkeys(one.metric for one in found)
            },
        )
        for test, found in by_test.items()
    ]


def _name(value: object) -> str:
    """A text as an id, on one line; empty if it is none."""
    return " ".join(spelled(value).split())[:_LONGEST] if isinstance(value, str) else ""


def _date(value: object) -> str:
    """The date of milliseconds since 1970, as lines have it; empty if it is none."""
    number = _number(value)
    try:
        return "" if number is None else datetime.fromtimestamp(number / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return ""


def _commit(value: object) -> str:
    """The hash of a commit; empty if it is none."""
    text = value.lower() if isinstance(value, str) else ""
    return text if _COMMIT.fullmatch(text) else ""


def _converted(value: object, unit: str) -> float | None:
    """A value in the unit of its metric; None if it is not above zero, or larger than a line takes."""
    number, known = _number(value), foreign_unit(unit)
    if number is None or (scaled := number * (1.0 if known is None else known.scale)) > _LARGEST:
        return None
    return scaled


# --- github-action-benchmark ------------------------------------------------------------------------------------------


def _of_benchmark_data(entries: Mapping[str, Any], tally: _Tally) -> list[HistoryLine]:
    """The lines of all suites; a suite, which is often a kind of runner, counts as a machine."""
    lines = []
    for suite, runs in entries.items():
        for run in runs if isinstance(runs, list) else [runs]:
            lines += _of_benchmark_run(_name(suite), run, tally)
    return lines


def _of_benchmark_run(suite: str, run: object, tally: _Tally) -> list[HistoryLine]:
    if not isinstance(run, dict) or not isinstance(run.get("benches"), list):
        tally.leave_out("runs without a list of benches")
        return []
    commit, date = run.get("commit"), _date(run.get("date"))
    at = CommitPosition(_commit(commit.get("id") if isinstance(commit, dict) else None))
    if not at.commit or not date:
        tally.leave_out("runs without a commit and a date")
        return []
    tool = _name(run.get("tool"))
    return _lines(_benches(tool, run["benches"], tally), machine=suite, date=date, at=at)


def _benches(tool: str, benches: Sequence[object], tally: _Tally) -> Iterator[_Value]:
    """The values of one run; their ranges, which mean something else for each tool, are left out."""
    for entry in benches:
        if not isinstance(entry, dict) or not (test := _name(entry.get("name"))):
            tally.leave_out("benches without a name")
            continue
        unit = _name(entry.get("unit"))
        value = _converted(entry.get("value"), unit)
        if value is None:
            tally.leave_out("values that are no numbers above zero")
            continue
        tally.take()
        yield _Value(test, imported_name(unit, higher=_is_higher(tool, unit)), value, 0.0, f"{tool} {unit}")


def _is_higher(tool: str, unit: str) -> bool:
    """Whether larger values are better: as the user chose, and else for rates, whatever the tool takes them for."""
    return tool in _BIGGER if tool in _OWN_DIRECTION else tool in _BIGGER or _RATE.search(unit) is not None


# --- asv --------------------------------------------------------------------------------------------------------------


def _of_asv_directory(path: Path, tally: _Tally) -> list[HistoryLine]:
    """The lines of a directory of results, which has one directory for each machine, or of one of these."""
    machines = (
        [path] if (path / "machine.json").is_file() else sorted(one.parent for one in path.glob("*/machine.json"))
    )
    if not machines:
        raise ResultFileError(
            f"{named(path)} has no machine.json in it or one below, expected asv's directory of results; "
            "name it, for example .asv/results"
        )
    units = _asv_units(machines[0].parent)
    files = [file for machine in machines for file in sorted(machine.glob("*.json")) if file.name != "machine.json"]
    if len(files) > _MOST_FILES:
        raise ResultFileError(f"{named(path)} has {len(files):,} results, expected at most {_MOST_FILES:,}")
    lines = []
    for file in files:
        try:
            data = _data_of(file, _text_of(file))
        except ResultFileError:  # a file that a killed process left
            tally.leave_out("files that cannot be read")
            continue
        lines += _of_asv_file(data, units, tally)
    return lines


def _asv_units(results: Path) -> dict[str, str]:
    """The unit of each benchmark, from the file beside the machines; empty without it."""
    try:
        data = _data_of(results, _text_of(results / "benchmarks.json"))
    except ResultFileError:
        return {}
    return {
        name: benchmark["unit"]
        for name, benchmark in data.items()
        if isinstance(benchmark, dict) and isinstance(benchmark.get("unit"), str)
    }


def _of_asv_file(data: Mapping[str, Any], units: Mapping[str, str], tally: _Tally) -> list[HistoryLine]:
    """The lines of one commit in one environment; commits are dated by themselves, since asv measures old ones late."""
    results, columns, params = data.get("results"), data.get("result_columns"), data.get("params")
    at, date = CommitPosition(_commit(data.get("commit_hash"))), _date(data.get("date"))
    if data.get("version") != _ASV_FORMAT:
        tally.leave_out(f"files of another format than asv's {_ASV_FORMAT}; asv update writes it")
        return []
    if not isinstance(results, dict) or not isinstance(columns, list) or not at.commit or not date:
        tally.leave_out("files without results, a commit or a date")
        return []
    machine = " ".join(
        filter(None, (_name(params.get("machine")) if isinstance(params, dict) else "", _name(data.get("env_name"))))
    )
    values = [
        value
        for name, row in results.items()
        if isinstance(row, list)
        for value in _asv_values(
            _name(name),
            dict(zip(map(str, columns), row, strict=False)),
            unit=units.get(name) or _asv_unit(name),
            tally=tally,
        )
    ]
    return _lines(values, machine=machine, date=date, at=at)


def _asv_values(name: str, row: Mapping[str, Any], *, unit: str, tally: _Tally) -> Iterator[_Value]:
    """The values of one benchmark: one for each combination of its parameters."""
    for case in _asv_cases(row):
        value = _converted(case.result, unit)
        if value is None:
            tally.leave_out("values that are no numbers above zero")
            continue
        tally.take()
        test = f"{name}({', '.join(case.parameters)})"[:_LONGEST] if case.parameters else name
        metric = imported_name(unit, higher=False)
        yield _Value(test, metric, value, case.error, f"{unit} {row.get('version', '')}"[:_LONGEST])


@dataclass(frozen=True, slots=True)
class _Case:
    """One combination of parameters with its result."""

    parameters: tuple[str, ...]
    result: object
    error: float


def _asv_cases(row: Mapping[str, Any]) -> Iterator[_Case]:
    """The combinations of a row; nothing for a benchmark that failed, or was skipped, as a whole."""
    results, params = row.get("result"), row.get("params")
    if not isinstance(results, list):
        return
    lists = [one for one in params if isinstance(one, list)] if isinstance(params, list) else []
    lows, highs = (_column(row, f"stats_ci_99_{side}", len(results)) for side in "ab")
    for parameters, result, low, high in zip(product(*lists), results, lows, highs, strict=False):
        yield _Case(tuple(map(_name, map(str, parameters))), result, _asv_error(result, low, high))


def _column(row: Mapping[str, Any], name: str, length: int) -> Sequence[object]:
    found = row.get(name)
    return found if isinstance(found, list) else [None] * length


def _asv_error(result: object, low: object, high: object) -> float:
    """Relative standard error of a result, from its 99 % interval; 0 without one."""
    value, begin, end = _number(result), _number(low), _number(high)
    if value is None or begin is None or end is None or end < begin:
        return 0.0
    return min((end - begin) / (2 * _Z_99 * value), _WIDEST)


def _asv_unit(name: str) -> str:
    """The unit that asv gives a benchmark by the beginning of its name."""
    kind = name.rpartition(".")[2].partition("_")[0].lower()
    return _UNITS_BY_NAME.get(kind, "")


# --- Apache Otava -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OtavaTable:
    """The runs of one test on one machine, as Otava reads them.

    Attributes:
        text: CSV with the columns ``time`` and ``commit`` and one for each metric, in its unit: nanoseconds, bytes.
        columns: the metric of each column, by the column's name.
        left_out: number of runs that lack one of these metrics.
    """

    text: str
    columns: Mapping[str, str]
    left_out: int


def otava_table(all_series: Sequence[Series]) -> OtavaTable:
    """The table of a test: the metrics of its newest run, and the runs that have all of them.

    Otava takes no row with an empty cell, and a metric that the test no longer has would leave all newer runs out.

    Args:
        all_series: of values, of one test and one machine, and at least one with a point.
    """
    known = [course for course in all_series if course.points]
    newest = max(course.points[-1].date for course in known)
    shown = [course for course in known if course.points[-1].date == newest]
    levels = [{(point.at.commit, point.date): point.level for point in course.points} for course in shown]
    runs = {run: None for course in known for run in ((point.at.commit, point.date) for point in course.points)}
    kept = [run for run in levels[0] if all(run in one for one in levels)]
    columns = {_column_name(course.metric): course.metric for course in shown}
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(["time", "commit", *columns])
    writer.writerows([date, commit, *(f"{math.exp(one[commit, date]):.7g}" for one in levels)] for commit, date in kept)
    return OtavaTable(written.getvalue(), columns, len(runs) - len(kept))


def otava_config(tables: Mapping[str, tuple[str, OtavaTable]]) -> str:
    """The ``otava.yaml`` of several tables: each with the direction of its metrics.

    Args:
        tables: the file and the table, by the name of the test.
    """
    lines = ["tests:"]
    for test, (file, table) in tables.items():
        lines += [
            f"  {json.dumps(test)}:",
            "    type: csv",
            f"    file: {json.dumps(file)}",
            "    time_column: time",
            "    attributes: [commit]",
            "    metrics:",
        ]
        for column, metric in table.columns.items():
            direction = 1 if metric_named(metric).better == "higher" else -1
            lines.append(
                f"      {json.dumps(column)}: {{column: {json.dumps(column)}, direction: {direction}, scale: 1}}"
            )
    return "\n".join(lines) + "\n"


def _column_name(metric: str) -> str:
    """The name of a metric without what CSV would quote."""
    return re.sub(r"[^\w.%()/<>:-]+", "_", metric)
