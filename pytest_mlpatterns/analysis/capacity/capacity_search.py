"""NMRT: the most requests per second that a deployment sustains, and the concurrency that reaches it.

Pure: a search over a function that measures, with no clock and no socket of its own. It is a closed-loop ladder, since
every concurrency has a steady state while an arrival rate above the capacity measures only its own backlog.
"""

import math
from collections.abc import Callable
from statistics import fmean, median, stdev

from pytest_mlpatterns.analysis.statistics.intervals import median_error
from pytest_mlpatterns.records.launch import Capacity, LaunchValue, SearchEnd, Step

MAX_STEP_ERROR_RATIO = 0.01  # Largest share of failed requests that a step may have and still count as sustained
_MAX_CONCURRENCY = 4096
"""Most requests in flight of a search; a service that still gains there is limited by its clients."""
_GAIN = 1.10  # Factor by which a doubling of the concurrency must raise the rate to count as a gain: taste, above noise
_FLAT_DOUBLINGS = 2  # Doublings without a gain after which the climb ends; one alone may be noise
_FLAT = "two doublings of the concurrency gained less than 10 %"
_PLATEAU = 0.95  # Share of the best rate from which a step belongs to the plateau


def climb(
    measure: Callable[[int], Step],
    *,
    out_of_time: Callable[[], bool],
    decided: Callable[[LaunchValue], bool] = lambda _value: False,
    max_concurrency: int = _MAX_CONCURRENCY,
    confirms: bool = True,
) -> Capacity:
    """Double the concurrency until throughput stops growing, then confirm the knee.

    It ends at two doublings in a row with under 10 % gain, at over 1 % of failed requests, if the generator is the
    limit, if time is up, or if ``decided`` is true. The plateau is made of the steps within 5 % of the best one; NMRT
    is the median over all its windows. The knee is the smallest concurrency with 95 % of NMRT.
    """
    ladder: list[Step] = []
    concurrency, best, flat = 1, 0.0, 0
    while True:
        ladder.append(step := measure(concurrency))
        at = f"at concurrency {concurrency}"
        if step.limited:
            return _open_end(ladder, SearchEnd.GENERATOR, f"the load generator was the limit {at}: {step.limited}")
        if step.error_ratio > MAX_STEP_ERROR_RATIO or not step.rates_rps:
            stopped = f"requests failed {at}"
            break
        if decided(_value(step.rates_rps)):
            return _open_end(ladder, SearchEnd.DECIDED, "the limit was decided")
        flat, best = flat + 1 if best and step.rate_rps < best * _GAIN else 0, max(best, step.rate_rps)
        if flat == _FLAT_DOUBLINGS:
            stopped = _FLAT
            break
        if out_of_time():
            return _open_end(ladder, SearchEnd.TIME, f"the time was up {at}")
        if (concurrency := concurrency * 2) > max_concurrency:
            return _open_end(ladder, SearchEnd.TOP, f"the ladder ends {at}")
    return _confirm(measure, ladder, stopped, out_of_time=lambda: not confirms or out_of_time())


def _confirm(
    measure: Callable[[int], Step], ladder: list[Step], stopped: str, *, out_of_time: Callable[[], bool]
) -> Capacity:
    """Measure the knee and twice the knee again, in the order A B B A, and pool them with the ladder.

    The median over all windows of the plateau is no maximum, which would grow with the number of tries.
    """
    good = [step for step in ladder if step.rates_rps and step.error_ratio <= MAX_STEP_ERROR_RATIO]
    if not good:
        return Capacity(LaunchValue(0.0, 0.0), 1, tuple(ladder), stopped, at_least=False)
    knee = _knee(good, median(_plateau_rates(good)))
    for factor in (1, 2, 2, 1):
        if out_of_time():
            break
        step = measure(knee * factor)
        if step.limited is None and step.error_ratio <= MAX_STEP_ERROR_RATIO and step.rates_rps:
            good.append(step)
    rates = _plateau_rates(good)
    value = _value(rates)
    knee = _knee(good, value.value)
    memory = [one.peak_rss_bytes for one in good if one.concurrency == knee and one.peak_rss_bytes is not None]
    return Capacity(
        value,
        knee,
        tuple(ladder),
        stopped,
        at_least=False,
        asl=_asl_at(good, knee),
        peak_rss_bytes=max(memory, default=None),
    )


def _plateau_rates(steps: list[Step]) -> tuple[float, ...]:
    best = max(step.rate_rps for step in steps)
    return tuple(rate for step in steps if step.rate_rps >= _PLATEAU * best for rate in step.rates_rps)


def _knee(steps: list[Step], plateau_rps: float) -> int:
    """The smallest concurrency whose windows, over all its steps, have a median of 95 % of the plateau."""
    pooled: dict[int, list[float]] = {}
    for step in steps:
        pooled.setdefault(step.concurrency, []).extend(step.rates_rps)
    reached = [concurrency for concurrency, rates in pooled.items() if median(rates) >= _PLATEAU * plateau_rps]
    return min(reached, default=max(pooled))


def _asl_at(steps: list[Step], concurrency: int) -> LaunchValue | None:
    """The system load over all steps with a concurrency, with the standard error of their mean."""
    loads = [step.asl_ratio for step in steps if step.concurrency == concurrency and step.asl_ratio is not None]
    if not loads:
        return None
    mean = fmean(loads)
    error = stdev(loads) / (mean * math.sqrt(len(loads))) if len(loads) > 1 and mean > 0 else 0.0
    return LaunchValue(mean, error)


def _open_end(ladder: list[Step], end: SearchEnd, stopped: str) -> Capacity:
    """A search that ended before the deployment degraded: the best step is a lower bound."""
    reached = [step for step in ladder if step.rates_rps and step.error_ratio <= MAX_STEP_ERROR_RATIO]
    best = max(reached, key=lambda step: step.rate_rps, default=None)
    if best is None:
        return Capacity(LaunchValue(0.0, 0.0), 1, tuple(ladder), stopped, at_least=True, end=end)
    return Capacity(_value(best.rates_rps), best.concurrency, tuple(ladder), stopped, at_least=True, end=end)


def _value(rates: tuple[float, ...]) -> LaunchValue:
    return LaunchValue(median(rates), median_error(rates))
