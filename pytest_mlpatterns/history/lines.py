"""The line that one test of one run adds to a history: which metrics it keeps, of which code, and compared with which.

A line is made of a result that supports a verdict. Smoke runs, interrupted tests, and those that failed by an error or
were not measured validly give none. This module must not know where a history is kept, nor what its lines show.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import Struct

from pytest_mlpatterns.analysis.metrics.definitions import is_known_metric, metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import AtNmrt, Nmrt, Role, objective_of
from pytest_mlpatterns.records.history import CommitPosition, HistoryLine, PairedRatio, digest_of
from pytest_mlpatterns.records.launch import LaunchValue
from pytest_mlpatterns.records.verdict import ERRORS
from pytest_mlpatterns.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_mlpatterns.records.result import TestResult
    from pytest_mlpatterns.records.setup import Environment

__all__ = ["RunOfLines", "kept_metrics", "line_of", "lines_of"]


class RunOfLines(Struct, frozen=True):
    """What all lines of one run have in common.

    Attributes:
        environment: the machine and its software.
        at: the commit that was checked out.
        clean: whether the files were those of the commit.
        date: end of the run, ISO 8601 in UTC with seconds.
    """

    environment: Environment
    at: CommitPosition
    clean: bool
    date: str


def lines_of(
    results: Sequence[TestResult], run: RunOfLines, position_of: Callable[[str], CommitPosition]
) -> tuple[HistoryLine, ...]:
    """The lines of a run, one for each test that :func:`line_of` gives one; of a test with two results the last counts.

    Args:
        results: in the order in which the tests ran.
        run: what their lines have in common.
        position_of: finds a commit's position by its full hash.
    """
    found = {line.test: line for result in results if (line := line_of(result, run, position_of)) is not None}
    return tuple(found.values())


def line_of(result: TestResult, run: RunOfLines, position_of: Callable[[str], CommitPosition]) -> HistoryLine | None:
    """The line of one result; None if the result supports no verdict, or has no value that a line keeps.

    A test that was measured interleaved with a revision adds the ratios of its launches to that revision: the one of
    ``--perf-against``, or the commit of a baseline entry that settled what the file left open.

    Args:
        result: of one test.
        run: what the lines of its run have in common.
        position_of: finds a commit's position by its full hash.
    """
    if result.judged.interrupted or result.kind in ERRORS:
        return None
    kept = kept_metrics(result)
    values = {
        name: tuple(LaunchValue(value, error) for value, error in found)
        for name, found in ((name, result.measured.launches[name]) for name in kept)
        if found and all(map(math.isfinite, (number for pair in found for number in pair)))
    }
    if not values:
        return None
    ratios = _ratios(result, kept)
    commit = "" if result.reference is None else result.reference.revision_commit
    return HistoryLine(
        test=result.test,
        machine=run.environment.machine_of(result.conditions.cluster),
        date=run.date,
        at=run.at,
        clean=run.clean,
        setup=digest_of(result.setup.to_json()),
        facts=digest_of(result.conditions.facts),
        kind=result.kind,
        values=values,
        ratios=ratios,
        reference=position_of(commit) if ratios else None,
    )


def kept_metrics(result: TestResult) -> tuple[str, ...]:
    """The metrics of a result that its line keeps, by name: those that a comparison or the test judges, and NMRT.

    What the test asks to compare is kept although nothing was compared, as in a run that records a baseline. A cost is
    left out, which follows from other metrics and from a setting. So is an NMRT that is a lower bound only.
    """
    judged = {name for role in (Role.PRIMARY, Role.GUARD) for name in with_role(role)}
    terms = result.definition.terms
    asked = {verdict.metric for verdict in result.verdicts} | {*(() if terms is None else terms.tolerances)}
    bounds: set[object] = {search.objective for search in result.limits.capacities if search.at_least}
    return tuple(name for name in result.measured.launches if _is_kept(name, judged | asked, bounds))


def _is_kept(name: str, judged: set[str], bounds: set[object]) -> bool:
    """Whether a line keeps a metric.

    Args:
        name: of the metric.
        judged: names of those that are judged.
        bounds: latency objectives whose search gave a lower bound only; None is the search without one.
    """
    if not is_known_metric(name):
        return False
    metric = metric_named(name)
    if isinstance(metric.kind, Nmrt | AtNmrt) and objective_of(metric) in bounds:
        return False
    return (name in judged or isinstance(metric.kind, Nmrt)) and metric.unit is not Unit.COST


def _ratios(result: TestResult, kept: Sequence[str]) -> dict[str, tuple[PairedRatio, ...]]:
    """The ratios to the revision that was measured interleaved; none if nothing was, or its commit is not known."""
    reference = result.reference
    if reference is None or not reference.revision_commit:
        return {}
    return {
        name: tuple(PairedRatio(log_ratio, error) for log_ratio, error in found)
        for name, found in reference.log_ratios.items()
        if name in kept and found and all(map(math.isfinite, (number for pair in found for number in pair)))
    }
