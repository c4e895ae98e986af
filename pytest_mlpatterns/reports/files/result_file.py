"""The result file of ``--perf-json``: every result of a run, versioned; written, and read back. Results ↔ text.

Format, version 2 (2026): ``{"format": "pytest-mlpatterns-results", "version": 2, "date": …, "commit": …,
"environment": …, "baseline": …, "history": …, "ranking": [...], "results": [...], "unmeasured": [...]}``, where a
result is :class:`pytest_mlpatterns.records.result.TestResult` with its ``outcome`` and ``kind``; metrics are
``[value, low, high]`` in nanoseconds, requests per second, bytes or shares. ``baseline`` is what the run did with the
baseline file: its ``mode``, the tests that were ``recorded``, those of them ``recorded_although_worse`` with the
verdict, the entries ``without_test``, and those that were ``pruned``. ``ranking`` orders the patterns of each test with
several, if the run asked for it. ``history`` is what the run added to the history, and which changes that made known;
empty without a history. ``unmeasured`` are the tests that failed before anything was measured. ``run`` has whether the
run was complete, the perf tests that were not run, and what failed beside perf tests.

``results.schema.json`` beside this module, which is made of
:class:`ResultFile`, describes every member. Version 1 had no latency distributions, no references and no ranking. It is
not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import fields

from pytest_mlpatterns.errors import ResultFileError
from pytest_mlpatterns.records.codec import Count, as_written, checked, plain
from pytest_mlpatterns.records.faults import MOST
from pytest_mlpatterns.records.history import Change
from pytest_mlpatterns.records.json_text import laid_out, parsed, shown
from pytest_mlpatterns.records.launch import Capacity
from pytest_mlpatterns.records.result import PARTS, FailedTest, Ranking, RunEnd, State, TestResult
from pytest_mlpatterns.records.result_parts import Beside, Reference
from pytest_mlpatterns.records.setup import Environment, Setup
from pytest_mlpatterns.records.verdict import Gate, Kind, OpenBy, Verdict
from pytest_mlpatterns.system.empty_results import FORMAT, VERSION

__all__ = ["FORMAT", "MOST", "VERSION", "ResultFile", "Results", "read_results", "results_json"]

_BY_NAME = ("metrics", "present_metrics", "law")  # Members that hold figures by name
_ADVICE = "measure again with --perf-json"


_VerdictInFile: Any = as_written(
    Verdict, why_open=(str, ""), by_machine=(bool, False), open_by=(OpenBy | None, None), test=(str, "")
)
_Verdicts = tuple[_VerdictInFile, ...]
_Rankings = tuple[Ranking, ...]
_NO_PARTS: dict[str, Any] = dict.fromkeys(PARTS)
_PRESENT: dict[str, Any] = {f"present_{field.name}": (field.type, field.default) for field in fields(Beside)}
_AsWritten = as_written(
    TestResult,
    *PARTS.values(),
    **_NO_PARTS,
    outcome=State,
    kind=(Kind | None, None),
    setup=as_written(Setup, pattern=str, load=str, order=(Literal["", "shuffled"], "")),
    verdicts=_Verdicts,
    reference=as_written(Reference, present=None, **_PRESENT) | None,
    price=str | None,
    first_failure=str,
    failed_requests=Mapping[int, Count],
    not_compared=Mapping[str, str],
    noise=tuple[str, ...],
    capacities=tuple[as_written(Capacity, objective=str | None), ...],  # type: ignore[misc]
    cancelled_requests=(Count, 0),
)
_MachineAsWritten = as_written(Environment, machine=str, cores=Annotated[float, Meta(ge=1e-3, le=1e6)])
_ChangeAsWritten = as_written(
    Change, sentence=str, command=str, fails_the_run=bool, form=(Literal["step", "drift"], "step")
)


if TYPE_CHECKING:  # types that are made when this runs
    _ResultInFile: TypeAlias = Any
    _EnvironmentInFile: TypeAlias = Any
    _ChangeInFile: TypeAlias = Any
else:
    _ResultInFile, _EnvironmentInFile, _ChangeInFile = _AsWritten, _MachineAsWritten, _ChangeAsWritten


class _BaselineUse(Struct, frozen=True, forbid_unknown_fields=True):
    """What the run did with the baseline file."""

    mode: Literal["check", "update", "require", "prune", "off"] = "check"
    accepted_file: str = ""  # the file of acceptances beside it, relative to where pytest was started
    recorded: tuple[str, ...] = ()
    recorded_although_worse: _Verdicts = ()
    not_recorded: Mapping[str, str] = {}  # by test, why an update did not record it
    # by recorded test, what was wrong when it was measured
    recorded_although_disturbed: Mapping[str, tuple[str, ...]] = {}
    without_test: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()


class _History(Struct, frozen=True, forbid_unknown_fields=True):
    """What the run did with the history."""

    place: str = ""  # path of the file
    added: Count = 0  # lines that the run added
    position: Count = 0  # number of commits to the present one along first parents; 0 if unknown
    clean: bool = True  # whether the files were the commit's
    changes: tuple[_ChangeInFile, ...] = ()


class ResultFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Every result of a run. Times are nanoseconds, rates requests per second, sizes bytes, shares 0 to 1."""

    format: Literal["pytest-mlpatterns-results"]
    version: Literal[2]
    date: str  # when the run ended, ISO 8601
    commit: str | None  # what was checked out, with a plus sign where files differed from it; null outside of git
    environment: _EnvironmentInFile
    baseline: _BaselineUse
    ranking: _Rankings
    results: tuple[_ResultInFile, ...]  # in the order in which the tests ran
    history: _History = _History()
    unmeasured: tuple[FailedTest, ...] = ()  # tests that failed before anything was measured
    run: RunEnd = RunEnd()


class Results(Struct, frozen=True):
    """The content of a result file."""

    results: tuple[TestResult, ...]  # in the order in which the tests ran
    environment: Environment  # the machine and the versions
    date: str  # ISO 8601
    baseline: Mapping[str, Any]  # what the run did with the baseline file, as plain values
    # the order of the patterns of each test that has several, as plain values
    ranking: tuple[Mapping[str, Any], ...] = ()
    # the measured commit, with a plus sign if files differed from it; None outside a git repository
    commit: str | None = None
    unmeasured: tuple[FailedTest, ...] = ()  # tests that failed before anything was measured
    history: Mapping[str, Any] = {}  # what the run did with the history, as plain values; empty without one
    run: RunEnd = RunEnd()  # how it ended; files of older releases have nothing of it, and are taken for complete

    @property
    def failures(self) -> tuple[FailedTest, ...]:
        """The tests that failed, or would have without ``--perf-gate warn``, with or without a result."""
        failed = [result for result in self.results if result.outcome is State.FAILED]
        return (*map(_failed_test, failed), *self.unmeasured)


def results_json(  # noqa: PLR0913 - the members of the file, most of them by name
    tests: Sequence[TestResult | FailedTest],
    environment: Environment,
    date: str,
    *,
    baseline: Mapping[str, object],
    history: Mapping[str, object] | None = None,
    ranking: Sequence[Mapping[str, object]] = (),
    commit: str | None = None,
    run: RunEnd | None = None,
) -> str:
    """The file's text. ``run``: None for one that was complete."""
    data = {
        "format": FORMAT,
        "version": VERSION,
        "date": date,
        "commit": commit,
        "environment": {**plain(environment), "machine": environment.machine},
        "baseline": dict(baseline),
        "history": _finite(dict(history or {})),
        "ranking": [_finite(dict(ranked)) for ranked in ranking],
        "results": [_finite(result.to_json()) for result in tests if isinstance(result, TestResult)],
        "unmeasured": [failed.to_json() for failed in tests if isinstance(failed, FailedTest)],
        "run": (run or RunEnd()).to_json(),
    }
    return laid_out(data, counts_inline=True) + "\n"


def _failed_test(result: TestResult) -> FailedTest:
    """The failure of a test that was measured."""
    return FailedTest(
        result.test,
        "\n".join(result.failures) or "failed",
        result.definition.location,
        kind=result.kind,
        gate=Gate.WARN if result.advisory else Gate.FAIL,
        group=result.definition.group,
        pattern=str(result.setup.pattern),
    )


def _finite(value: Any, *, by_name: bool = False) -> Any:
    """Plain values without infinities and NaN, which JSON does not have.

    An infinity is the bound of an interval that has none. NaN is what cannot be known: a row with one is left out of
    its list, and a metric with one out of the metrics, so that the file stays readable; elsewhere it is null.
    """
    if isinstance(value, dict):
        kept = {name: member for name, member in value.items() if not (by_name and _is_unknown(member))}
        return {name: _finite(member, by_name=name in _BY_NAME) for name, member in kept.items()}
    if isinstance(value, list | tuple):
        return None if _is_unknown(value) else [_finite(item) for item in value if not _is_unknown(item)]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else math.copysign(MOST, value)


def _is_unknown(value: object) -> bool:
    """Whether a value is a row of numbers of which one is NaN."""
    return isinstance(value, list | tuple) and any(isinstance(one, float) and math.isnan(one) for one in value)


def read_results(text: str) -> Results:
    """Read the text of a result file."""
    try:
        data = parsed(text)
    except ValueError as error:
        raise ResultFileError(f"is damaged: {error}; {_ADVICE}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ResultFileError("is not a result file of pytest-mlpatterns; name a file that pytest --perf-json wrote")
    if (version := data.get("version")) != VERSION:
        remedy = "upgrade the package" if isinstance(version, int) and version > VERSION else "measure again"
        raise ResultFileError(f"has format version {shown(version)}, this pytest-mlpatterns reads {VERSION}; {remedy}")
    try:
        file = checked(data, ResultFile, text)
        results = [_result(index, item) for index, item in enumerate(data["results"])]
    except ValueError as error:
        raise ResultFileError(f"is damaged: {error}; {_ADVICE}") from error
    environment = {name: value for name, value in data["environment"].items() if name != "machine"}
    return Results(
        results=tuple(results),
        environment=Environment(**environment),
        date=data["date"],
        baseline=data["baseline"],
        ranking=tuple(data["ranking"]),
        commit=data["commit"],
        unmeasured=file.unmeasured,
        history=data.get("history", {}),
        run=file.run,
    )


def _result(index: int, data: dict[str, Any]) -> TestResult:
    """A result that the schema allows; its members must fit each other too."""
    try:
        result = TestResult.from_json(data)
    except ValueError as error:
        raise ValueError(f"results[{index}] has a member that cannot be read: {error}") from None
    if result.measured.latency is not None:
        histogram, distributions = result.measured.latency.histogram, [result.measured.latency.percentiles]
        if not any(histogram.counts) or len(histogram.edges_ns) != len(histogram.counts) + 1:
            raise ValueError(
                f"results[{index}].latency.histogram does not have one edge more than counts, and a request"
            )
        if not _ascend([(edge,) for edge in histogram.edges_ns]) or not result.measured.latency.percentiles:
            raise ValueError(f"results[{index}].latency has edges that do not ascend, or no percentiles")
    else:
        distributions = []
    if result.reference is not None:
        distributions += [result.reference.latency_percentiles, result.reference.present.latency_percentiles]
    if not all(map(_ascend, distributions)):
        raise ValueError(f"results[{index}] has latency percentiles that do not ascend from zero")
    return result


def _ascend(rows: Sequence[tuple[float, ...]]) -> bool:
    """Whether each column ascends, and none begins below zero."""
    return all(column[0] >= 0 and list(column) == sorted(column) for column in zip(*rows, strict=True))
