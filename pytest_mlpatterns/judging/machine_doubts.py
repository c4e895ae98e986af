"""What the machine explains, because it is busy or slower than when the baseline was recorded.

An excuse (:mod:`pytest_mlpatterns.analysis.health.machine`) explains at most what it can do: a metric is judged again
beside the entry as it would be on such a machine. If the recorded code decides, it explains what passes there; if the
file decides, it leaves failures open that do not hold there. A missed limit on a time or a rate is left open if it is
kept without what others took. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pytest_mlpatterns.analysis.health.machine import (
    Excuse,
    hiding_speed,
    reaches_its_limit,
    slower_excuse,
    speed_excuse,
    taken_excuse,
    taken_in,
)
from pytest_mlpatterns.analysis.metrics.definitions import STANDING, leading_time, metric_named
from pytest_mlpatterns.analysis.metrics.metric import Metric, Role
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.verdicts.tolerances import failed_by_whole_answers
from pytest_mlpatterns.baseline.lookup import scaled
from pytest_mlpatterns.config.settings import NoisePolicy
from pytest_mlpatterns.judging.compared_metrics import ComparedMetric
from pytest_mlpatterns.judging.look import Look
from pytest_mlpatterns.judging.metric_rules import judge_metrics
from pytest_mlpatterns.records.baseline_entry import Entry
from pytest_mlpatterns.records.launch import Launch, Taken
from pytest_mlpatterns.records.verdict import OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import SECOND_NS, Unit

if TYPE_CHECKING:
    from pytest_mlpatterns.config.assertions import Limit

_QUIET_LAUNCHES = 2  # Launches on a quiet machine that a failure may rest on while the others were disturbed
LEAST_ROOM = 0.1  # Least tolerance beside such an entry: a service and a fixed work do not slow down by the same


def change_in(look: Look, compared: ComparedMetric, excuse: Excuse | None = None) -> Verdict | None:
    """By how much launches are worse than the entry, or than it would be on such a machine; None if not known."""
    if excuse is not None and _times(look.entry, compared.metric, excuse) != 1:
        room = 0.0 if compared.metric.counts_failures else LEAST_ROOM  # whose tolerance is a difference
        compared = replace(compared, tolerance=max(compared.tolerance, room))
        look = replace(look, reference=excused(look.entry, compared.metric, excuse))
    return next(iter(judge_metrics([compared], look).verdicts), None)


def excuses(look: Look, metric: Metric) -> list[Excuse]:
    """What the machine did in these minutes that makes a metric worse."""
    found = taken_excuse(look.minutes, look.entry.taken), speed_excuse(look.minutes, look.entry.sorting_ns)
    return [one for one in found if one is not None and _times(look.entry, metric, one) > 1]


def explains(look: Look, compared: ComparedMetric, *others: Metrics) -> str:
    """What of the machine explains that a metric is worse than in the entry, in words; empty if nothing does.

    ``others``: of further launches that share it, in which it may be worse by more.
    """
    sides = [look, *(replace(look, present=one) for one in others)]
    found = excuses(look, compared.metric)
    return next((one.why for one in found if any(is_within(change_in(side, compared, one)) for side in sides)), "")


def doubt_of(failed: Verdict | None, look: Look, compared: ComparedMetric) -> str:
    """Why a failure may be one of a slower machine, in words; empty if it stands, and if there is none."""
    if failed is None:
        return ""
    slower = slower_excuse(look.minutes, look.entry.sorting_ns)
    (found,) = left_open(look, [failed], [compared], excuse=slower)
    return "" if slower is None or found is failed else slower.why


def unhidden(look: Look, verdicts: Sequence[Verdict], compared: Sequence[ComparedMetric]) -> Sequence[Verdict]:
    """The verdicts, with every pass left open that does not hold beside the entry as it would be on this machine.

    A service that became slower passes on a machine that became faster.
    """
    speed = hiding_speed(look.minutes, look.entry.sorting_ns)
    if speed is None:
        return verdicts
    hidden = {
        one.metric.name
        for one in compared
        if not (one.metric.is_tail or one.metric.counts_failures) and not is_within(change_in(look, one, speed))
    }
    left = WhyOpen(OpenBy.MACHINE, speed.why)
    return [
        one.left_open(left, f"but {left}") if one.outcome is Outcome.PASS and one.metric in hidden else one
        for one in verdicts
    ]


def left_open(
    look: Look,
    verdicts: Sequence[Verdict],
    compared: Sequence[ComparedMetric],
    *,
    excuse: Excuse | None,
    quiet: Sequence[Launch] = (),
) -> Sequence[Verdict]:
    """The verdicts, with every failure left open that the excuse explains.

    What no machine changes stands. ``quiet``: launches that it is not of; what two of them show stands, too.
    """
    failed = frozenset(one.metric for one in verdicts if _fails(one))
    if excuse is None or not failed:
        return verdicts
    doubted = failed - look.stands - failed_by_whole_answers(verdicts, look.entry, look.present)
    sides: list[tuple[Look, Excuse | None]] = [(look, excuse)]
    if len(quiet) >= _QUIET_LAUNCHES:
        sides.append((replace(look, present=Metrics(tuple(quiet))), None))
    open_now = {
        one.metric.name
        for one in compared
        if one.metric.name in doubted and not any(_fails(change_in(side, one, why)) for side, why in sides)
    }
    left = WhyOpen(OpenBy.MACHINE, excuse.why)
    return [one.left_open(left, f"but {left}") if one.metric in open_now else one for one in verdicts]


def unless_explained(
    metrics: Metrics, asked: Limit, judge: Callable[[float], Verdict], *, noise: NoisePolicy
) -> Verdict:
    """The verdict on a limit; a failure is left open that would be none without what others took of the machine.

    ``judge``: gives the verdict by any limit.
    """
    found = judge(asked.value)
    if found.outcome is not Outcome.FAIL or noise is NoisePolicy.TRUST:
        return found
    excuse, metric = _taken_by_others(metrics.launches), asked.metric
    if excuse is None or metric.name in STANDING or metric.unit not in (Unit.DURATION, Unit.RATE):
        return found
    if judge(_limit_beside(metrics, asked, excuse)).outcome is Outcome.FAIL:
        return found
    return found.left_open(WhyOpen(OpenBy.MACHINE, excuse.why), f"but {excuse.why}, which may be why")


def _taken_by_others(launches: Sequence[Launch]) -> Excuse | None:
    """What others took in these minutes; of a CPU limit that the service itself reaches they took nothing."""
    own = taken_in(launches).throttled_ratio if reaches_its_limit(launches) else 0.0
    return taken_excuse(launches, Taken(throttled_ratio=own))


def _limit_beside(metrics: Metrics, asked: Limit, excuse: Excuse) -> float:
    """The limit that a service keeps on a machine with this excuse which keeps the asked one without it.

    Of a time others stretch what the service computes itself, at most the CPU time of all requests in flight.
    """
    metric = asked.metric
    if metric.name == "cpu_per_request":
        return asked.value * excuse.cpu_times
    latency_ns = _mean_of(metrics, leading_time(streams=False).name)
    own_ns = _own_ns(metrics, metric, latency_ns)
    if _is_time_of_a_request(metric):
        least_ns = max(asked.value, 1.0)  # a test may ask for 0
        return least_ns + min(least_ns, own_ns) * (excuse.times - 1) + _waits_ns(metric, excuse)
    times = excuse.times
    if latency_ns:  # of requests that were answered
        computed_ns = latency_ns - excuse.waits_ns
        alone_ns = max(computed_ns / excuse.times, computed_ns - own_ns * (excuse.times - 1))
        times = latency_ns / alone_ns if alone_ns > 0 else math.inf
    return asked.value * times if metric.unit is Unit.DURATION else asked.value / times


def _own_ns(metrics: Metrics, metric: Metric, latency_ns: float) -> float:
    """CPU time of the service itself that a request waits for, at most: its own, and that of all others in flight.

    Infinite if it is not known, as of a start, and in a load that comes in bursts.
    """
    cpu_ns = _mean_of(metrics, "cpu_per_request")
    comes_in_bursts = any(one.open_loop and one.rate_rps is None for one in metrics.launches)
    if not cpu_ns or comes_in_bursts or Role.INDEPENDENT_OF_LATENCY in metric.roles:
        return math.inf
    in_flight = _mean_of(metrics, "throughput") * latency_ns / SECOND_NS
    return cpu_ns * max(in_flight, 1.0)


def _mean_of(metrics: Metrics, name: str) -> float:
    """A metric's mean over the launches; 0 if it is not known."""
    return fmean([one.value for one in metrics.comparable_values(metric_named(name))] or [0.0])


def is_within(verdict: Verdict | None) -> bool:
    """Whether a metric is within its tolerance by its estimate; one that counts requests, if nothing is suspected."""
    if verdict is None or verdict.outcome is not Outcome.INCONCLUSIVE:
        return verdict is not None and verdict.outcome is Outcome.PASS
    metric = metric_named(verdict.metric)
    return verdict.change is not None and not (verdict.suspected or metric.is_tail or metric.counts_failures)


def excused(entry: Entry, metric: Metric, excuse: Excuse) -> Entry:
    """The entry as it would be on a machine with this excuse, for the judgement of one metric.

    Of a load beyond the capacity, such a machine serves less, and refuses the rest.
    """
    times = _times(entry, metric, excuse)
    if not metric.counts_failures:
        return scaled(entry, times)
    counts = [replace(one, failed=round(one.requests - (one.requests - one.failed) / times)) for one in entry.counts]
    return replace(entry, counts=tuple(counts))


def _times(entry: Entry, metric: Metric, excuse: Excuse) -> float:
    """How many times as long as in the entry what the metric measures takes, at most."""
    if metric.name == "cpu_per_request":
        return excuse.cpu_times
    name = metric.name if _is_time_of_a_request(metric) else leading_time(streams=False).name
    known = [value for launch in entry.metrics.get(name, ()) if (value := launch.value) > 0]
    return excuse.times + _waits_ns(metric, excuse) / (known[0] if known else math.inf)


def _is_time_of_a_request(metric: Metric) -> bool:
    return metric.unit is Unit.DURATION and Role.PACED not in metric.roles


def _waits_ns(metric: Metric, excuse: Excuse) -> float:
    """Time that a request waits for a core besides, at most."""
    return excuse.tail_waits_ns if metric.is_tail else excuse.waits_ns


def _fails(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.outcome is Outcome.FAIL
