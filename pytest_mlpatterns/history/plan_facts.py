"""What a plan rests on: the launches of trial runs, or those of a history, by test and metric.

This module must not know what is concluded from them.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pytest_mlpatterns.analysis.metrics.definitions import metric_named, with_role
from pytest_mlpatterns.analysis.metrics.metric import Role
from pytest_mlpatterns.analysis.verdicts.tolerances import Tolerances
from pytest_mlpatterns.baseline.updates import UPDATE_LAUNCHES
from pytest_mlpatterns.errors import SettingError
from pytest_mlpatterns.history.plan import USUAL_LAUNCHES, TestFacts
from pytest_mlpatterns.records.verdict import Kind
from pytest_mlpatterns.wording import did_you_mean, listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_mlpatterns.history.plan import Sitting
    from pytest_mlpatterns.history.trial_runs import Trials
    from pytest_mlpatterns.records.baseline_entry import Baselines
    from pytest_mlpatterns.records.history import HistoryLine
    from pytest_mlpatterns.records.result import TestResult

__all__ = ["facts_of_lines", "facts_of_trials", "name_in_ids"]

_OTHER_KINDS = (Kind.TEST_ERROR, Kind.INVALID)
"""Kinds of runs whose launches show nothing of the service."""
_MOST_NAMED = 5
"""Most tests that an error names."""


def facts_of_trials(
    trials: Trials, *, tolerances: Tolerances | None = None, baselines: Baselines, machine: str
) -> tuple[TestFacts, ...]:
    """What trial runs show of each test, in the order in which the tests ran.

    Args:
        trials: of unchanged tests.
        tolerances: those that are to be planned for; None for those of each test.
        baselines: the entries that there are, whose number of launches counts.
        machine: identity of this machine, as the entries name it.
    """
    alone, beside = (_by_test(runs) for runs in (trials.alone, trials.interleaved))
    return tuple(
        _facts_of_results(
            alone[test],
            [one for one in beside.get(test, ()) if one.reference is not None and one.reference.log_ratios],
            tolerances=tolerances,
            recorded=_recorded(baselines, test, machine),
        )
        for test in alone
    )


def _by_test(runs: Iterable[Sequence[TestResult]]) -> dict[str, list[TestResult]]:
    found: dict[str, list[TestResult]] = defaultdict(list)
    for run in runs:
        for result in run:
            found[result.test].append(result)
    return dict(found)


def _recorded(baselines: Baselines, test: str, machine: str) -> int:
    """Launches of the entry of a test; those of a new one without it."""
    entry = baselines.get(test, {}).get(machine)
    return max((len(values) for values in entry.metrics.values()), default=0) if entry is not None else UPDATE_LAUNCHES


def _facts_of_results(
    alone: Sequence[TestResult], beside: Sequence[TestResult], *, tolerances: Tolerances | None, recorded: int
) -> TestFacts:
    last = alone[-1]
    terms = last.definition.terms
    asked = terms.tolerances if terms is not None else dict.fromkeys(last.measured.launches, 0.0)
    usual = Tolerances(last.definition.tolerance) if terms is None else None
    given = tolerances or usual
    pair_s = [one.measured.seconds_spent / _pairs_of(one) for one in beside if _pairs_of(one)]
    launch_s = [one.measured.seconds_spent / one.measured.launch_count for one in alone if one.measured.launch_count]
    return TestFacts(
        test=last.test,
        tolerances=_judged_tolerances(asked, given),
        launches=_sittings([_logarithms(one.measured.launches) for one in alone]),
        pairs=_sittings([one.reference.log_ratios for one in beside if one.reference is not None]),
        budget_ns=None if terms is None else terms.budget_ns,
        most_launches=USUAL_LAUNCHES if terms is None else terms.launches,
        recorded=recorded,
        launch_s=median(launch_s) if launch_s else None,
        pair_s=median(pair_s) if pair_s else None,
        in_flight=last.setup.load.in_flight,
        has_cores=bool(last.setup.cpus),
        counts=tuple(count for one in beside or alone for count in one.measured.counts),
    )


def _pairs_of(result: TestResult) -> int:
    """Paired launches of an interleaved run."""
    ratios = {} if result.reference is None else result.reference.log_ratios
    return max(map(len, ratios.values()), default=0)


def _judged_tolerances(asked: Mapping[str, float], given: Tolerances | None) -> dict[str, float]:
    """The tolerance of each metric that a comparison judges, replaced by one that is to be planned for."""
    if given is None:
        return dict(asked)
    usual = {**with_role(Role.PRIMARY), **with_role(Role.GUARD)}
    names = [name for name, tolerance in asked.items() if tolerance or name in usual]
    return {name: given.of(metric_named(name)) for name in names}


def _logarithms(values: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Sitting]:
    """Each value above zero as its logarithm; a metric with another one is left out."""
    return {
        name: tuple((math.log(value), error) for value, error in launches)
        for name, launches in values.items()
        if launches and all(0 < value < math.inf for value, _ in launches)
    }


def _sittings(runs: Iterable[Mapping[str, Sequence[tuple[float, float]]]]) -> dict[str, tuple[Sitting, ...]]:
    """The sittings of each metric, in the order of the runs."""
    found: dict[str, list[Sitting]] = defaultdict(list)
    for run in runs:
        for name, sitting in run.items():
            if sitting:
                found[name].append(tuple(sitting))
    return {name: tuple(sittings) for name, sittings in found.items()}


def facts_of_lines(
    lines: Sequence[HistoryLine], *, machine: str, tests: Sequence[str] = (), tolerances: Tolerances | None = None
) -> tuple[TestFacts, ...]:
    """What a history shows of each test on one machine: its lines with the set-up and environment of the latest one.

    How long a launch takes is not in a history, so that a plan of it counts launches instead of seconds.

    Args:
        lines: in any order.
        machine: whose lines count.
        tests: ids, files or parts of an id before a bracket or ``::``, as ids have them; empty for all.
        tolerances: those that are to be planned for; None for the default ones.

    Raises:
        SettingError: one of the tests has no line, or no line is of this machine and these tests.
    """
    _require_known(tests, lines)
    chosen = [line for line in lines if not tests or any(_is_of(line.test, name) for name in tests)]
    mine = sorted((line for line in chosen if line.machine == machine), key=lambda line: line.date)
    if not mine:
        others = sorted({line.machine for line in chosen})
        have = f"has lines of {listed([shown(name) for name in others])}" if others else "has no line"
        raise SettingError(
            f"the history {have}, expected lines of this machine, {shown(machine)}; leave --from out to measure here"
        )
    by_test: dict[str, list[HistoryLine]] = defaultdict(list)
    for line in mine:
        by_test[line.test].append(line)
    return tuple(_facts_of_test(test, found, tolerances or Tolerances()) for test, found in by_test.items())


def _facts_of_test(test: str, lines: Sequence[HistoryLine], tolerances: Tolerances) -> TestFacts:
    last = lines[-1]
    alike = [
        line
        for line in lines
        if (line.setup, line.facts) == (last.setup, last.facts) and line.kind not in _OTHER_KINDS and line.runs == 1
    ]  # a line of several runs, of a compaction, has the mean of their launches alone
    values = [
        {name: [(one.value, one.relative_error) for one in launches] for name, launches in line.values.items()}
        for line in alike
    ]
    ratios = [
        {name: [(one.log_ratio, one.error) for one in pairs] for name, pairs in line.ratios.items()} for line in alike
    ]
    known = {name for one in values for name in one}
    judged = {**with_role(Role.PRIMARY), **with_role(Role.GUARD)}
    undecided = sum(line.runs for line in lines if line.kind is Kind.UNDECIDED)
    return TestFacts(
        test=test,
        tolerances={name: tolerances.of(metric) for name, metric in judged.items() if name in known},
        launches=_sittings(map(_logarithms, values)),
        pairs=_sittings(ratios),
        undecided=(undecided, sum(line.runs for line in lines)),
    )


def _require_known(tests: Sequence[str], lines: Sequence[HistoryLine]) -> None:
    """Check that each of the names is of a test of the history, if that has any."""
    known = list(dict.fromkeys(line.test for line in lines))
    unknown = next((name for name in tests if not any(_is_of(test, name) for test in known)), None)
    if known and unknown is not None:
        more = [f"{len(known) - _MOST_NAMED:,} more"] if len(known) > _MOST_NAMED else []
        raise SettingError(
            f"the history has no line of {shown(unknown)}, {did_you_mean(unknown, known)}expected a test of it: "
            f"{listed([*known[:_MOST_NAMED], *more], 'or')}"
        )


def _is_of(test: str, name: str) -> bool:
    """Whether a test is the one that a name selects, as pytest's command line selects it; a dot selects all."""
    return name in (".", test) or test.startswith((f"{name}::", f"{name}[", f"{name.rstrip('/')}/"))


def name_in_ids(name: str, *, here: Path, root: Path) -> str:
    """A test as pytest takes it on its command line, with its path as ids have it.

    Args:
        name: an id, a file or a directory; its path is absolute or relative to ``here``.
        here: the working directory.
        root: pytest's root directory, to which the paths in ids are relative.
    """
    path, colons, rest = name.partition("::")
    whole = here / path
    whole = whole.resolve() if whole.is_dir() else whole.parent.resolve() / whole.name
    return Path(os.path.relpath(whole, root.resolve())).as_posix() + colons + rest
