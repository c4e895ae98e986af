"""Rules of other tools, applied to the runs that were recorded for our own verdicts.

Each rule gets what its tool would have measured: one launch of three seconds a run. Public descriptions of the rules:
pytest-benchmark's ``--benchmark-compare-fail=median:10%``, inference-doctor's comparison of five runs with five, k6's
threshold ``http_req_duration: ['med<…']``.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, median, variance
from typing import TYPE_CHECKING, Any

from bench import Table

from pytest_mlpatterns.analysis.statistics.intervals import t_quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Run = dict[str, Any]

__all__ = ["median_rule", "table", "threshold_rule", "welch_rule"]

RUNS = 5
_FAIL, _PASS, _OPEN = "fail", "pass", "inconclusive"


def median_rule(present: float, baseline: float, tolerance: float) -> str:
    """pytest-benchmark: one median against one stored median."""
    return _FAIL if present / baseline - 1 > tolerance else _PASS


def threshold_rule(present: float, limit: float) -> str:
    """k6: a fixed number that the median has to stay below."""
    return _FAIL if present >= limit else _PASS


def welch_rule(present: Sequence[float], baseline: Sequence[float], tolerance: float) -> str:
    """inference-doctor: the 95 % interval of Welch on the logarithm of the ratio, against the tolerance."""
    now, then = ([math.log(value) for value in values] for values in (present, baseline))
    parts = [variance(values) / len(values) for values in (now, then)]
    error = math.sqrt(sum(parts))
    degrees = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (now, then), strict=True)
    )
    difference, half = fmean(now) - fmean(then), t_quantile(0.95, degrees) * error
    wanted = math.log(1 + tolerance)
    if difference - half > wanted:
        return _FAIL
    return _PASS if difference + half <= wanted else _OPEN


def table(unchanged: Sequence[Run], slowed: Mapping[float, Sequence[Run]], baselines: Sequence[Run]) -> Table:
    """What the rules say of the same data.

    Args:
        unchanged: runs without a slow-down, in the order in which they ran.
        slowed: runs with one, by its share.
        baselines: what was recorded as a baseline; the rule of one run takes the first launch of the latest one.
    """
    rows: list[Sequence[str]] = []
    for slower, runs in ((0.0, unchanged), *sorted(slowed.items())):
        if not runs or not baselines:
            continue
        found = {
            "pytest-benchmark, median:10% of one run": [
                median_rule(_first(run), _first(_latest(baselines, run)), 0.10) for run in runs
            ],
            "k6, med<1.1 × the first baseline": [
                threshold_rule(_first(run), 1.10 * median(_all(baselines[0]))) for run in runs
            ],
            "inference-doctor, 5 runs against 5, 10 %": [
                welch_rule([_first(one) for one in now], [_first(one) for one in then], 0.10)
                for now, then in _fives(runs, unchanged)
            ],
        }
        for rule, outcomes in found.items():
            if outcomes:
                shares = (f"{outcomes.count(name)} ({outcomes.count(name) / len(outcomes):.1%})" for name in _NAMES)
                rows.append((rule, f"{slower:+.0%}" if slower else "no change", str(len(outcomes)), *shares))
    headings = ("rule", "slowed by", "verdicts", "FAIL", "PASS", "no verdict")
    return Table("rules of other tools on the runs against a stored baseline", headings, rows)


_NAMES = (_FAIL, _PASS, _OPEN)


def _all(run: Run) -> list[float]:
    return [value for value, _ in run["result"]["launches"]["rtm"]]


def _first(run: Run) -> float:
    return _all(run)[0]


def _latest(baselines: Sequence[Run], run: Run) -> Run:
    """The baseline that a run was compared with."""
    return max((one for one in baselines if one["at"] <= run["at"]), key=lambda one: one["at"], default=baselines[0])


def _fives(runs: Sequence[Run], unchanged: Sequence[Run]) -> list[tuple[Sequence[Run], Sequence[Run]]]:
    """Five successive runs of a case, and the five unchanged ones of about then; none of them is in both."""
    if runs is unchanged:
        groups = [unchanged[start : start + RUNS] for start in range(0, len(unchanged) - RUNS + 1, RUNS)]
        return [(now, then) for then, now in pairwise(groups)]
    found = []
    for start in range(0, len(runs) - RUNS + 1, RUNS):
        now = runs[start : start + RUNS]
        before = [number for number, run in enumerate(unchanged) if run["at"] <= now[RUNS // 2]["at"]]
        first = min(max(len(before) - RUNS // 2 - 1, 0), len(unchanged) - RUNS)
        if first >= 0:
            found.append((now, unchanged[first : first + RUNS]))
    return found
