"""What has too few samples for a verdict, and what it takes: a longer window, or a larger budget.

A tail that has too few samples is left out of a comparison, and the reports name what it needs. Pure.
"""

import math
from collections.abc import Mapping, Sequence

from pytest_mlpatterns.analysis.metrics.metric import LatencyPercentile, Metric
from pytest_mlpatterns.analysis.metrics.metrics import Metrics
from pytest_mlpatterns.analysis.statistics.intervals import min_samples, wilson_interval
from pytest_mlpatterns.errors import TooFewSamplesError
from pytest_mlpatterns.records.launch import Launch
from pytest_mlpatterns.records.verdict import LeftOut, OpenBy, Outcome, Verdict, WhyOpen
from pytest_mlpatterns.units import format_count, format_duration
from pytest_mlpatterns.wording import listed

_SPARE_REQUESTS = 1.1  # Factor on the window that is recommended, since the number of requests varies
_ROUNDED = 1.01  # Factor within which counted times are rounded
_NAMED = 4  # Metrics that the sentence names as judged: as many as are read at a glance


def with_needed_budget(error: TooFewSamplesError, launches: Sequence[Launch], spent_ns: int) -> TooFewSamplesError:
    """The error with the time of a request and the budget that it takes, if a request is longer than the window.

    ``spent_ns``: time that all of the launches took.
    """
    if not launches or launches[-1].given_window_ns is None or not error.found:
        return error
    needed_s = math.ceil(_SPARE_REQUESTS * spent_ns / 1e9 * error.needed / error.found)
    took = format_duration(launches[-1].longest_answer_ns)
    text = f'{error}; a request takes up to {took}, so give budget="{needed_s}s"'
    return TooFewSamplesError(text, needed=error.needed, found=error.found)


def judge_few(
    metric: Metric, limit: float, error: TooFewSamplesError, *, metrics: Metrics, confidence: float
) -> Verdict:
    """The verdict on a percentile of too few samples: open, or a failure if surely more are beyond the limit."""
    is_whole, quantity = isinstance(metric.kind, LatencyPercentile), metric.name.partition(":")[0]
    launches = [one if is_whole else one.of_streams(quantity) for one in metrics.request_counts]
    known = [one for one in launches if one is not None]
    late = [sum(n for time, n in one.latencies.items() if time > _ROUNDED * limit) + one.failed for one in known]
    beyond, size = sum(late), sum(one.requests for one in known)
    if size and wilson_interval(beyond, size, confidence).low > 1 - metric.percentile / 100:
        text = f"{metric.label} is not below {metric.show(limit)}: {beyond:,} of {size:,} requests are later or failed"
        return Verdict(metric.name, "limit", Outcome.FAIL, text)
    more = error.needed - error.found
    why = WhyOpen(OpenBy.REQUESTS, f"{error}; {more:,} more {'is' if more == 1 else 'are'} needed")
    return Verdict(metric.name, "limit", Outcome.INCONCLUSIVE, str(why), why_open=why)


def describe_too_few(error: TooFewSamplesError, duration_ns: int | None) -> LeftOut:
    """What a percentile needs, and the window that gives it, if ``duration_ns`` is None by its number of requests."""
    if not error.found:
        return LeftOut(str(error), is_sentence=True)
    window = _longer(duration_ns, error.needed, error.found)
    return LeftOut(f"needs {error.needed:,} requests, there were {error.found:,} ({window})")


def tails_left_out(compared: Sequence[Metric], present: Metrics, *, paired: bool = False) -> dict[str, LeftOut]:
    """Why percentiles are not judged, by their labels: one sentence for all that need more requests than there were.

    ``paired``: the requests are of blocks, which no argument of the marker makes longer; else it is named.
    """
    tails = _beyond(compared, present.requests)
    if not tails or not present.requests:
        return {}
    last = present.launches[-1]
    duration_ns = None if last.requests else last.window.duration_ns
    window = _longer(duration_ns, max(tails.values()), present.requests)
    why = LeftOut(f"{_sentence(tails, present)}{'' if paired else f' ({window})'}", is_sentence=True)
    return dict.fromkeys(tails, why)


def foreseen_tails(compared: Sequence[Metric], present: Metrics, launches: int) -> str:
    """The percentiles that even this number of launches cannot judge; empty if they judge all."""
    tails = _beyond(compared, math.floor(present.requests * launches / len(present.launches)))
    if not tails or not present.requests:
        return ""
    open_yet = _beyond(compared, present.requests)
    others = [metric.label for metric in compared if metric.label not in open_yet]
    named = ", ".join([*others[:_NAMED], *(["…"] if len(others) > _NAMED else [])])
    return f"{_sentence(tails, present)}{f'; judged are {named}' if others else ''}"


def _beyond(compared: Sequence[Metric], requests: int) -> dict[str, int]:
    """The requests that percentiles need which need more of them, by label, the lowest first."""
    whole = [(one.percentile, one.label) for one in compared if one.is_tail or isinstance(one.kind, LatencyPercentile)]
    return {label: needed for percentile, label in sorted(whole) if (needed := min_samples(percentile)) > requests}


def _sentence(needed: Mapping[str, int], present: Metrics) -> str:
    """What they need: ``at 4.0 answers a second p95 latency needs 23 s and p99 latency needs 115 s``."""
    window_ns = sum(launch.window.duration_ns for launch in present.launches)
    times_ns = {label: size * window_ns / present.requests for label, size in needed.items()}
    needs = [f"{label} needs {format_duration(math.ceil(time_ns / 1e9) * 1e9)}" for label, time_ns in times_ns.items()]
    return f"at {format_count(present.requests * 1e9 / window_ns)} answers a second {listed(needs)}"


def _longer(duration_ns: int | None, needed: int, found: int) -> str:
    """The window with enough requests, if all launches so far had too few."""
    if duration_ns is None:
        return f"requests={needed}"
    return f'duration="{math.ceil(_SPARE_REQUESTS * duration_ns / 1e9 * needed / found)}s"'
